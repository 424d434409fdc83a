// Judges schemas and patterns as the hosts do: node judge.mjs MODULES, one JSON question a line, one JSON answer a line.
// {"schema": ..., "instances": [...]} -> {"ajv1": [bool...], "ajv2": [...], "cfworker": [...]}, or {"error": text}
// {"pattern": ..., "strings": [...]} -> {"matches": [bool...]}, or {"error": text}
import readline from "node:readline";
import path from "node:path";
import { pathToFileURL } from "node:url";

const load = (file) => import(pathToFileURL(path.join(process.argv[2], "@modelcontextprotocol", file)).href);
const { AjvJsonSchemaValidator: One } = await load("sdk/dist/esm/validation/ajv-provider.js");
const { AjvJsonSchemaValidator: Two } = await load("client/dist/validators/ajv.mjs");
const { CfWorkerJsonSchemaValidator: Worker } = await load("client/dist/validators/cfWorker.mjs");

function answer(question) {
  if ("pattern" in question) {
    const pattern = new RegExp(question.pattern, "u");
    return { matches: question.strings.map((each) => pattern.test(each)) };
  }
  const judged = {};
  for (const [name, Validator] of Object.entries({ ajv1: One, ajv2: Two, cfworker: Worker })) {
    const validate = new Validator().getValidator(question.schema);
    judged[name] = question.instances.map((each) => validate(each).valid);
  }
  return judged;
}

console.warn = () => {};
for await (const line of readline.createInterface({ input: process.stdin })) {
  let said;
  try {
    said = answer(JSON.parse(line));
  } catch (error) {
    said = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(said) + "\n");
}
