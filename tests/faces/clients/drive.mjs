// Drives the server with a TypeScript SDK client and prints one JSON report.
// node drive.mjs SDK(1|2) MODE MODULES MARKS COMMAND ARG...
// node drive.mjs SDK(1|2) MODE MODULES MARKS URL          (an URL that ends in /sse is connected to with the transport of 2024)
import { pathToFileURL } from "node:url";
import fs from "node:fs";
import path from "node:path";

const [sdk, mode, modules, marks, command, ...args] = process.argv.slice(2);
const remote = /^https?:/.test(command) ? new URL(command) : undefined;
const old = remote?.pathname.endsWith("/sse");
const load = (file) => import(pathToFileURL(path.join(modules, file)).href);

let updated_method = "notifications/resources/updated";

async function makeClient() {
  const info = { name: "ts", version: "1" };
  const capabilities = { capabilities: { elicitation: { form: {} } } };
  if (sdk === "1") {
    const { Client } = await load("@modelcontextprotocol/sdk/dist/esm/client/index.js");
    const { StdioClientTransport } = await load("@modelcontextprotocol/sdk/dist/esm/client/stdio.js");
    const { SSEClientTransport } = await load("@modelcontextprotocol/sdk/dist/esm/client/sse.js");
    const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/dist/esm/client/streamableHttp.js");
    const { ElicitRequestSchema, ResourceUpdatedNotificationSchema } = await load("@modelcontextprotocol/sdk/dist/esm/types.js");
    const client = new Client(info, capabilities);
    updated_method = ResourceUpdatedNotificationSchema;
    client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { approve: true } }));
    return [client, remote === undefined ? StdioClientTransport : old ? SSEClientTransport : StreamableHTTPClientTransport];
  }
  const { Client, SSEClientTransport, StreamableHTTPClientTransport } = await load(
    "@modelcontextprotocol/client/dist/index.mjs",
  );
  const { StdioClientTransport } = await load("@modelcontextprotocol/client/dist/stdio.mjs");
  const negotiation = mode === "pin" ? { mode: { pin: "2026-07-28" } } : { mode };
  const client = new Client(info, { ...capabilities, versionNegotiation: negotiation });
  client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: { approve: true } }));
  return [client, remote === undefined ? StdioClientTransport : old ? SSEClientTransport : StreamableHTTPClientTransport];
}

const [client, Transport] = await makeClient();
await client.connect(new Transport(remote ?? { command, args, env: process.env, stderr: "ignore" }));
const report = { tools: (await client.listTools()).tools.map((tool) => tool.name) };
report.allowed = await client.callTool({ name: "tool_add", arguments: { a: 2, b: 3 } });
report.denied = await client.callTool({ name: "tool_delete", arguments: {} });
report.approved = await client.callTool({ name: "tool_pay", arguments: { to: "ann" } });
const receipt = report.allowed._meta["dev.cra/receipt"];
const uri = `cra://trace/${receipt.session_id}`;
const updated = new Promise((resolve) => {
  client.setNotificationHandler(updated_method, (message) => resolve(message.params.uri));
});
const subscription = mode === "legacy" ? await client.subscribeResource({ uri }) : await client.listen({ resourceSubscriptions: [uri] });
await client.callTool({ name: "tool_echo", arguments: {} });
report.updated = await updated;
if (mode !== "legacy") await subscription.close();
const steps = [];
const options = { onprogress: (step) => steps.push([step.progress, step.total, step.message]) };
const done = await client.callTool(
  { name: "tool_steps", arguments: {} },
  ...(sdk === "1" ? [undefined, options] : [options]),
);
report.steps = [done.content[0].text, steps];
const gaveUp = new AbortController();
const waiting = client.callTool(
  { name: "tool_wait", arguments: { marks } },
  ...(sdk === "1" ? [undefined, { signal: gaveUp.signal }] : [{ signal: gaveUp.signal }]),
);
const lines = () => (fs.existsSync(marks) ? fs.readFileSync(marks, "utf8").split("\n") : []);
const until = async (line) => {
  while (!lines().includes(line)) await new Promise((resolve) => setTimeout(resolve, 20));
};
await until("began");
gaveUp.abort();
await waiting.catch(() => undefined);
await until("ended");
report.trace = (await client.readResource({ uri })).contents[0].text;
await client.close();
process.stdout.write(JSON.stringify(report), () => process.exit(0)); // an exit does not wait for a pipe by itself
