"use strict";

/*
 * Where the stored lines come from: the host, page by page, or a file.
 *
 * Rule: lines are taken as they were stored. What is not UTF-8 is null, never a text with replaced characters: that would be another
 * trace.
 */
const TraceSource = (() => {
  const PAGE_EVENTS = 1000;
  const MAX_EVENTS = 200_000;
  const LINE_FEED = 0x0a;

  class SourceError extends Error {}

  /** The whole lines of a file, and whether something unfinished follows the last one. */
  function splitBytes(bytes) {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const lines = [];
    let start = 0;
    for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
      lines.push(decoded(decoder, bytes.subarray(start, end)));
      start = end + 1;
    }
    return { lines, tail: start < bytes.length };
  }

  function decoded(decoder, bytes) {
    try {
      return decoder.decode(bytes);
    } catch {
      return null;
    }
  }

  /** The lines of one answer: of a resource, or of the tool's content. */
  function linesOf(content) {
    if (typeof content?.blob === "string") {
      const { lines, tail } = splitBytes(Uint8Array.from(atob(content.blob), (part) => part.charCodeAt(0)));
      if (tail) throw new SourceError("the answer ends in the middle of an event");
      return lines;
    }
    if (typeof content?.text !== "string") throw new SourceError("the answer holds no trace");
    const lines = content.text.split("\n");
    if (lines.pop() !== "") throw new SourceError("the answer ends in the middle of an event");
    return lines;
  }

  async function byResource(link, sessionId, after) {
    const from = after < 0 ? "" : `after=${after}&`;
    const uri = `cra://trace/${sessionId}?${from}limit=${PAGE_EVENTS}`;
    const answer = await link.request("resources/read", { uri });
    return linesOf(answer?.contents?.[0]);
  }

  async function byTool(link, sessionId, after) {
    const given = { session_id: sessionId, after, limit: PAGE_EVENTS, format: "jsonl" };
    const answer = await link.request("tools/call", { name: "cra_trace", arguments: given });
    const content = answer?.content?.[0];
    if (answer?.isError) throw new SourceError(String(content?.text ?? "the server refuses"));
    return linesOf(content?.type === "resource" ? content.resource : content);
  }

  /** All lines of a session, by way of the first road the host has open. Throws what the last road threw. */
  async function readFromHost(link, sessionId, onProgress) {
    const roads = [];
    if (link.capabilities.serverResources) roads.push(byResource);
    if (link.capabilities.serverTools) roads.push(byTool);
    let failure = new SourceError("this host lets a page read nothing");
    for (const road of roads) {
      try {
        return await readAll((after) => road(link, sessionId, after), onProgress);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  async function readAll(readAfter, onProgress) {
    const lines = [];
    for (;;) {
      const page = await readAfter(lines.length - 1);
      if (page.length === 0) return lines;
      for (const line of page) lines.push(line);
      if (lines.length > MAX_EVENTS) throw new SourceError(`the trace has more than ${MAX_EVENTS} events`);
      onProgress(lines.length);
    }
  }

  return Object.freeze({ SourceError, readFromHost, splitBytes });
})();
