"use strict";

/*
 * What an event says at a glance. Source: specs/trace.md, "Event types".
 *
 * Rule: total over any event the verifier could read; a payload value of an unexpected type counts as absent. Says the same
 * as cra_mcp/trace/summary.py.
 */
const TraceSummary = (() => {
  const BY_TYPE = new Map([
    ["action.approved", "allow"],
    ["action.denied", "deny"],
    ["action.executed", "allow"],
    ["action.failed", "error"],
    ["approval.requested", "approval"],
    ["approval.granted", "allow"],
    ["approval.rejected", "deny"],
    ["approval.expired", "deny"],
    ["error.occurred", "error"],
    ["policy.violated", "deny"],
  ]);
  const BY_PAYLOAD = new Map([["policy.evaluated", "result"], ["carp.resolution.completed", "decision_type"]]);
  const BY_WORD = new Map([
    ["allow", "allow"],
    ["deny", "deny"],
    ["require_approval", "approval"],
    ["requires_approval", "approval"],
  ]);
  /** Payload fields that tell most of an event, the most telling first. */
  const TELLING = ["reason", "error_message", "goal", "summary", "action", "block_id", "atlas_id", "violation_type"];
  /** Where one field is not enough. */
  const TOLD = new Map([
    ["action.requested", (payload) => (payload.has("parameters") ? StrictJson.canonical(payload.get("parameters")) : "")],
    ["carp.resolution.completed", (payload) => counts(payload)],
    ["approval.granted", (payload) => answered(payload)],
    ["approval.rejected", (payload) => answered(payload)],
  ]);

  const text = (value) => (typeof value === "string" ? value : null);

  function duration(value) {
    const number = value instanceof StrictJson.Double ? value.value : value;
    return typeof number === "number" && number >= 0 ? number : null;
  }

  function decision(type, payload) {
    const field = BY_PAYLOAD.get(type);
    return (field === undefined ? BY_TYPE.get(type) : BY_WORD.get(payload.get(field))) ?? null;
  }

  /** The glance at one event: decision is "allow", "deny", "approval", "error", or null where it decides nothing. */
  function summarise(event) {
    const { payload } = event;
    return {
      sequence: event.sequence,
      timestamp: event.timestamp,
      event_type: event.event_type,
      action_id: text(payload.get("action_id")),
      decision: decision(event.event_type, payload),
      policy_id: text(payload.get("policy_id")),
      duration_ms: duration(payload.get("duration_ms")),
    };
  }

  function counts(payload) {
    const [allowed, denied] = ["allowed_count", "denied_count"].map((name) => payload.get(name));
    return Number.isSafeInteger(allowed) && Number.isSafeInteger(denied) ? `${allowed} allowed, ${denied} denied` : "";
  }

  function answered(payload) {
    const [by, channel] = ["by", "channel"].map((name) => text(payload.get(name)));
    return by === null || channel === null ? "" : `by ${by} over ${channel}`;
  }

  /** One more line about an event, for people; may be empty. */
  function detail(event) {
    const told = TOLD.get(event.event_type);
    if (told !== undefined) return told(event.payload);
    for (const name of TELLING) {
      const value = text(event.payload.get(name));
      if (value) return value;
    }
    return "";
  }

  return Object.freeze({ detail, summarise });
})();
