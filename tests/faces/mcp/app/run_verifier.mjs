// Runs the page's own scripts in Node: node run_verifier.mjs FOLDER < vectors.json > answers.json
// A vector is one of specs/conformance/hash-chain; each answer is to equal its `expect`.
import { readFileSync } from "node:fs";
import path from "node:path";
import vm from "node:vm";

const [folder] = process.argv.slice(2);
const source = ["json.js", "verifier.js"].map((name) => readFileSync(path.join(folder, name), "utf8")).join("\n");
const { StrictJson, TraceVerifier } = vm.runInThisContext(`${source}\n({ StrictJson, TraceVerifier })`);
const { answer } = vm.runInThisContext(readFileSync(new URL("answer.js", import.meta.url), "utf8"));

const vectors = JSON.parse(readFileSync(0, "utf8"));
const answers = [];
for (const vector of vectors) answers.push(await answer(StrictJson, TraceVerifier, vector));
process.stdout.write(JSON.stringify(answers));
