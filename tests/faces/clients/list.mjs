// Lists the tools of a server with a TypeScript SDK client, calls those named, and prints one JSON report.
// node list.mjs SDK(1|2) MODE MODULES CALLS COMMAND ARG...      CALLS is JSON: [[name, arguments], ...]
import { pathToFileURL } from "node:url";
import path from "node:path";

const [sdk, mode, modules, calls, command, ...args] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(path.join(modules, "@modelcontextprotocol", file)).href);
const [library, wire] =
  sdk === "1" ? ["sdk/dist/esm/client/index.js", "sdk/dist/esm/client/stdio.js"] : ["client/dist/index.mjs", "client/dist/stdio.mjs"];
const { Client } = await load(library);
const { StdioClientTransport } = await load(wire);
const negotiation = { versionNegotiation: mode === "pin" ? { mode: { pin: "2026-07-28" } } : { mode } };
const client = new Client({ name: "ts", version: "1" }, sdk === "1" ? {} : negotiation);
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: "ignore" }));
const report = { tools: (await client.listTools()).tools, results: [] };
for (const [name, given] of JSON.parse(calls)) report.results.push(await client.callTool({ name, arguments: given }));
await client.close();
console.log(JSON.stringify(report));
