// Checks a proof that an event is in a signed trace: node verify-proof.mjs FILE.tlog-proof VKEY
// Prints the event and ends with 0, or says why not and ends with 1. Node 18 or later, nothing else. See ../trace.md, "Proofs".
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const fail = (why) => { console.error(`not proved: ${why}`); process.exit(1); };
const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const base64 = (text) => {
  const data = Buffer.from(text ?? "", "base64");
  return data.toString("base64") === text ? data : fail("Base64 that is not in its usual form");
};
const [file, vkey] = process.argv.slice(2);
const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(file));
const parts = /^c2sp\.org\/tlog-proof@v1\nextra (\S+)\nindex (0|[1-9]\d{0,14})\n((?:\S+\n)*)\n((.+)\n(0|[1-9]\d{0,14})\n(\S+)\n(?:[^\n]+\n)*)\n((?:\u2014 [^\n]+\n)+)$/.exec(text);
if (!parts || /[\x00-\x09\x0b-\x1f]/.test(text)) fail("malformed");
const [, line, index, path, note, origin, size, root, signatures] = parts;

const [, name, keyId, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec((vkey ?? "").trim()) ?? fail("no public key");
const key = base64(encoded);
const id = sha256(Buffer.from(`${name}\n`), key).subarray(0, 4);
if (key.length !== 33 || key[0] !== 1 || id.toString("hex") !== keyId) fail("no Ed25519 key, or an id of another");
const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key.subarray(1)]);
const publicKey = createPublicKey({ key: der, format: "der", type: "spki" });
const own = signatures.trim().split("\n").map((each) => each.split(" ")).filter((each) => each[1] === name)
  .map((each) => base64(each[2])).filter((blob) => blob.subarray(0, 4).equals(id));
if (!own.length || !own.every((blob) => verify(null, Buffer.from(note), publicKey, blob.subarray(4)))) fail("not signed by this key");

let hash = sha256(Buffer.from([0]), base64(line)), node = +index, last = size - 1;
if (node > last) fail("the index is beyond the end");
for (const sibling of path.split("\n").slice(0, -1).map(base64)) {
  if (last === 0 || sibling.length !== 32) fail("too many hashes, or one that is none");
  const left = node % 2 === 1 || node === last;
  hash = left ? sha256(Buffer.from([1]), sibling, hash) : sha256(Buffer.from([1]), hash, sibling);
  while (left && node % 2 === 0 && node !== 0) { node /= 2; last = Math.floor(last / 2); }
  node = Math.floor(node / 2); last = Math.floor(last / 2);
}
if (last !== 0 || !hash.equals(base64(root))) fail("the event is not in the trace that was signed");
const event = JSON.parse(base64(line).toString());
if (origin !== `${name}/${event.session_id}` || event.sequence !== +index) fail("the event belongs elsewhere");
console.log(JSON.stringify(event));
