"use strict";

/*
 * The view of an agent: events without what policy keeps from it, and without the hashes that would tell of that.
 * Source: specs/trace.md, "The view of an agent".
 *
 * Rule: nothing of it can be verified here, so nothing of it is ever shown as verified.
 */
const AgentView = (() => {
  const MAX_DEPTH = 129;
  const UNREADABLE = "unreadable";
  const isText = (value) => typeof value === "string";
  const FORMS = new Map([
    ["session_id", isText],
    ["trace_id", isText],
    ["span_id", isText],
    ["parent_span_id", (value) => value === null || isText(value)],
    ["sequence", (value) => Number.isSafeInteger(value) && value >= 0],
    ["timestamp", isText],
    ["event_type", isText],
    ["payload", (value) => value instanceof Map],
  ]);

  function parsed(line) {
    try {
      return StrictJson.parse(line ?? "", MAX_DEPTH, true);
    } catch (error) {
      if (error instanceof StrictJson.JsonError) return null;
      throw error;
    }
  }

  /** Whether lines are a view, as their first one says. */
  function is(lines) {
    const first = lines.length > 0 ? parsed(lines[0]) : null;
    return first instanceof Map && first.get("view") === "1.0";
  }

  /** One line of a view as an event that has no hashes, or a Fault where it stands for a line that is no event. */
  function readEvent(line) {
    const fields = parsed(line);
    if (!(fields instanceof Map) || fields.get("event_type") === UNREADABLE) {
      return new TraceVerifier.Fault("malformed_event", "the stored line is no event");
    }
    const event = {};
    for (const [name, holds] of FORMS) {
      event[name] = fields.get(name);
      if (!holds(event[name])) return new TraceVerifier.Fault("malformed_event", `${name} breaks its form`);
    }
    return event;
  }

  return Object.freeze({ is, readEvent });
})();
