"use strict";

/*
 * Stored lines as the page shows them, and the proof of their chain, made together in small steps.
 *
 * Rule: an entry's look follows from what the event says and from what the proof found, nowhere else.
 */
const Entries = (() => {
  const BATCH = 250;

  /** One line as the list and the detail show it. Texts are ready to be shown; event is null where the line is none. */
  function entryOf(line, index, read = TraceVerifier.readEvent(line)) {
    if (read instanceof TraceVerifier.Fault) return { ...blank(index, line), read, type: "unreadable", note: read.message };
    const summary = TraceSummary.summarise(read);
    const detail = Text.visible(TraceSummary.detail(read));
    const look = shown(summary);
    return { ...blank(index, line), read, event: read, ...look, detail, note: [look.policy, detail].filter(Boolean).join(": ") };
  }

  /** The lines of an agent's view, of which nothing can be proven; check: what the server found in the chain behind it. */
  function ofView(lines, check) {
    const entries = lines.map((line, index) => entryOf(line, index, AgentView.readEvent(line)));
    if (check?.ok === false && Number.isSafeInteger(check.bad_index)) {
      mark(entries, { bad_index: check.bad_index, code: Text.visible(String(check.code), 60), message: "as the server reports" });
    }
    return entries;
  }

  /** A row that the server summed up, where the page can't have the lines. */
  function entryOfRow(row, index) {
    const summary = {
      timestamp: typeof row.timestamp === "string" ? row.timestamp : "",
      event_type: String(row.event_type),
      action_id: typeof row.action_id === "string" ? row.action_id : null,
      decision: Object.hasOwn(EventList.WORDS, row.decision ?? "") ? row.decision : null,
      policy_id: typeof row.policy_id === "string" ? row.policy_id : null,
      duration_ms: typeof row.duration_ms === "number" ? row.duration_ms : null,
    };
    const position = Number.isSafeInteger(row.sequence) ? row.sequence : index;
    return { ...blank(position, JSON.stringify(row, null, 2)), ...shown(summary) };
  }

  function blank(index, line) {
    return {
      index,
      line,
      read: null,
      event: null,
      type: "",
      action: "",
      decision: null,
      policy: "",
      detail: "",
      note: "",
      duration: null,
      time: "",
      timestamp: "",
      fault: null,
      faultMessage: "",
      unproven: false,
      tone: "quiet",
      icon: "event",
    };
  }

  function shown(summary) {
    return {
      type: Text.visible(summary.event_type, 120),
      action: Text.visible(summary.action_id ?? "", 160),
      decision: summary.decision,
      policy: Text.visible(summary.policy_id ?? "", 160),
      note: Text.visible(summary.policy_id ?? "", 160),
      duration: summary.duration_ms,
      timestamp: Text.visible(summary.timestamp, 40),
      time: Text.visible(summary.timestamp.slice(11, 23), 20),
      tone: summary.decision ?? "quiet",
      icon: summary.decision ?? "event",
    };
  }

  /** Whether an entry holds a text anywhere; needle in lower case. */
  function holds(entry, needle) {
    entry.haystack ??= (entry.line ?? "").toLowerCase();
    return entry.haystack.includes(needle);
  }

  /** Whether a person who looks for trouble would stop at an entry. */
  function isProblem(entry) {
    return entry.fault !== null || entry.decision === "deny" || entry.decision === "error";
  }

  /**
   * Read and prove lines. proof is null where no hash can be computed. onProgress(done) is called between steps, in which the
   * page can draw; it answers false to stop, and then so does this, with null.
   */
  async function prove(lines, { sessionId, expected, tail }, onProgress) {
    const chain = TraceVerifier.canHash() ? new TraceVerifier.Chain(sessionId, expected) : null;
    const entries = [];
    for (let start = 0; start < lines.length; start += BATCH) {
      const batch = lines.slice(start, start + BATCH).map((line, offset) => entryOf(line, start + offset));
      entries.push(...batch);
      await chain?.take(batch.map((entry) => entry.read));
      await drawn();
      if (!onProgress(entries.length)) return null;
    }
    const proof = chain?.end(tail) ?? null;
    if (proof !== null && !proof.ok) mark(entries, proof);
    return { entries, proof };
  }

  function mark(entries, proof) {
    const bad = entries[proof.bad_index];
    if (bad !== undefined) {
      bad.fault = proof.code;
      bad.faultMessage = proof.message;
      bad.tone = "bad";
      bad.icon = "broken";
    }
    for (const entry of entries.slice(proof.bad_index + 1)) entry.unproven = true;
  }

  /** Lets the browser draw and take input before the next step. */
  function drawn() {
    return new Promise((resolve) => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => {
        channel.port1.close();
        resolve();
      };
      channel.port2.postMessage(null);
    });
  }

  return Object.freeze({ entryOfRow, holds, isProblem, ofView, prove });
})();
