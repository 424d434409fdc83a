"use strict";

/*
 * Verifies a trace: the forms of its events, their hashes, and the chain. Source: specs/trace.md, "Event" and "Verification".
 *
 * Rule: nothing is hashed before its forms are checked, and the first bad event ends the proof: what follows it is unproven,
 * whatever it looks like. Written from the specification, not from the Python verifier, so that each checks the other.
 */
const TraceVerifier = (() => {
  const GENESIS = "0".repeat(64);
  const MAX_DEPTH = 129; // of a payload 128, and the event around it
  const ID = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
  const DAY = "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])";
  const TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{6}Z";
  const IDENTIFIER = new RegExp(`^${ID}$`);
  const HASH = /^[0-9a-f]{64}$/;
  const EXTENSION = /^x(?:\.[a-z0-9_-]{1,62}){1,8}$/;

  /** Event types of the protocol, and the fields their payloads must hold. */
  const REQUIRED = new Map([
    ["session.started", ["agent_id", "goal", "atlases", "policy_digest"]],
    ["session.ended", ["reason", "duration_ms"]],
    ["carp.request.received", ["request_id", "operation", "goal"]],
    [
      "carp.resolution.completed",
      [
        "resolution_id",
        "request_id",
        "decision_type",
        "allowed_count",
        "denied_count",
        "context_block_count",
        "ttl_seconds",
        "allowed",
        "denied",
        "digest",
      ],
    ],
    ["carp.resolution.cached", ["resolution_id", "request_id", "first_sequence"]],
    ["action.requested", ["action_id", "parameters_hash"]],
    ["policy.evaluated", ["policy_id", "result", "action_id", "determining"]],
    ["policy.violated", ["policy_id", "violation_type"]],
    ["action.approved", ["action_id", "resolution_id"]],
    ["action.denied", ["action_id", "reason", "policy_id"]],
    ["action.executed", ["action_id", "execution_id", "duration_ms", "result_hash"]],
    ["action.failed", ["action_id", "error_code", "error_message", "duration_ms"]],
    ["approval.requested", ["approval_id", "action_id"]],
    ["approval.granted", ["approval_id", "action_id", "by", "channel"]],
    ["approval.rejected", ["approval_id", "action_id", "by", "channel"]],
    ["approval.expired", ["approval_id", "action_id"]],
    ["context.injected", ["block_id", "source", "token_count"]],
    ["context.redacted", ["event_type", "found"]],
    ["context.expired", []],
    ["atlas.loaded", ["atlas_id", "version", "digest"]],
    ["atlas.unloaded", ["atlas_id", "version", "digest"]],
    ["input.received", []],
    ["output.produced", []],
    ["action.reported", []],
    ["feedback.received", []],
    ["error.occurred", []],
  ]);

  const isText = (pattern) => (value) => typeof value === "string" && pattern.test(value);
  const isIdentifier = isText(IDENTIFIER);
  const FORMS = new Map([
    ["trace_version", (value) => value === "1.0"],
    ["event_id", isIdentifier],
    ["trace_id", isIdentifier],
    ["span_id", isIdentifier],
    ["parent_span_id", (value) => value === null || isIdentifier(value)],
    ["session_id", isIdentifier],
    ["sequence", (value) => Number.isSafeInteger(value) && value >= 0],
    ["timestamp", isText(new RegExp(`^${DAY}T${TIME}$`))],
    ["event_type", (value) => typeof value === "string" && (REQUIRED.has(value) || EXTENSION.test(value))],
    ["payload", (value) => value instanceof Map],
    ["event_hash", isText(HASH)],
    ["previous_event_hash", isText(HASH)],
  ]);

  /** What is wrong with an event, as the specification calls it. */
  class Fault {
    constructor(code, message) {
      this.code = code;
      this.message = message;
    }
  }

  /** Read one stored line: an event as an object of its twelve fields (payload: a Map), or a Fault. null: it was not UTF-8. */
  function readEvent(line) {
    if (line === null) return new Fault("malformed_event", "the line is not UTF-8");
    let fields;
    try {
      fields = StrictJson.parse(line, MAX_DEPTH, true);
    } catch (error) {
      if (error instanceof StrictJson.JsonError) return new Fault("malformed_event", error.message);
      throw error;
    }
    if (!(fields instanceof Map)) return new Fault("malformed_event", "not a JSON object");
    const event = {};
    for (const [name, holds] of FORMS) {
      if (!fields.has(name)) return new Fault("malformed_event", `field ${name} is missing`);
      event[name] = fields.get(name);
      if (!holds(event[name])) return new Fault("malformed_event", `${name} breaks its form`);
    }
    if (fields.size !== FORMS.size) return new Fault("malformed_event", "a field is not known");
    return event;
  }

  /** The hash an event should have, computed here. Throws where the browser offers no SHA-256. */
  async function hashOf(event) {
    const text =
      event.trace_version +
      event.event_id +
      event.trace_id +
      event.span_id +
      (event.parent_span_id ?? "") +
      event.session_id +
      String(event.sequence) +
      event.timestamp +
      event.event_type +
      StrictJson.canonical(event.payload) +
      event.previous_event_hash;
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** A verification under way. Events are handed to it in order, in batches; it takes in none after a bad one. */
  class Chain {
    /** sessionId: the session the chain must belong to; expected: {sequence, event_hash} known from elsewhere. Both may be null. */
    constructor(sessionId = null, expected = null) {
      this.events = 0;
      this.head = GENESIS;
      this.timestamp = "";
      this.sessionId = sessionId;
      this.expected = expected;
      this.fault = null;
    }

    /** Take in what readEvent gave for the next lines. */
    async take(entries) {
      if (this.fault !== null) return;
      const hashes = await Promise.all(entries.map((entry) => (entry instanceof Fault ? null : hashOf(entry))));
      for (const [index, entry] of entries.entries()) {
        this.fault = entry instanceof Fault ? entry : this.examine(entry, hashes[index]);
        if (this.fault !== null) return;
        this.events += 1;
        this.head = entry.event_hash;
        this.timestamp = entry.timestamp;
        this.sessionId = entry.session_id;
      }
    }

    /** The outcome after the last event. tail: whether something unfinished follows it. */
    end(tail = false) {
      if (this.fault === null && tail) this.fault = new Fault("truncated", "the file ends in the middle of an event");
      if (this.fault === null && this.expected !== null && this.expected.sequence >= this.events) {
        this.fault = new Fault("truncated", `the chain ends before event ${this.expected.sequence}, which was expected`);
      }
      return {
        ok: this.fault === null,
        events: this.events,
        head: this.events > 0 ? this.head : null,
        bad_index: this.fault === null ? null : this.events,
        code: this.fault?.code ?? null,
        message: this.fault?.message ?? null,
      };
    }

    /** What is wrong with the next event; null if nothing. The order of the checks is part of the protocol. */
    examine(event, hash) {
      const position = this.events;
      if (position === 0 && (event.sequence !== 0 || event.previous_event_hash !== GENESIS)) {
        return new Fault("invalid_genesis", "the first event must have sequence 0 and a previous hash of zeros");
      }
      if (event.event_hash !== hash) {
        return new Fault("hash_mismatch", "the event's content does not have the hash it states");
      }
      if (event.previous_event_hash !== this.head) {
        return new Fault("chain_broken", "the event is not linked to the one before it");
      }
      if (this.expected?.sequence === position && this.expected.event_hash !== event.event_hash) {
        return new Fault("chain_broken", "the event is not the one that was expected here");
      }
      if (event.sequence !== position) {
        return new Fault("sequence_gap", `sequence is ${event.sequence}, not ${position}`);
      }
      if (event.timestamp < this.timestamp) {
        return new Fault("timestamp_regression", "the event is dated before the one it follows");
      }
      if (this.sessionId !== null && event.session_id !== this.sessionId) {
        return new Fault("session_mismatch", "the event belongs to another session");
      }
      const missing = (REQUIRED.get(event.event_type) ?? []).find((name) => !event.payload.has(name));
      if (missing !== undefined) {
        return new Fault("malformed_event", `the payload of ${event.event_type} lacks ${missing}`);
      }
      return null;
    }
  }

  /** Verify whole lines at once. */
  async function verify(lines, { sessionId = null, expected = null, tail = false } = {}) {
    const chain = new Chain(sessionId, expected);
    await chain.take(lines.map(readEvent));
    return chain.end(tail);
  }

  /** Whether hashes can be computed here: browsers offer SHA-256 to pages loaded over https or from this machine only. */
  function canHash() {
    return typeof crypto === "object" && crypto.subtle !== undefined;
  }

  return Object.freeze({ Chain, Fault, REQUIRED, canHash, hashOf, readEvent, verify });
})();
