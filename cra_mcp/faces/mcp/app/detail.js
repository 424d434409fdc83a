"use strict";

/*
 * One event in full: its fields, its payload, and its link to the chain, computed again on the spot.
 *
 * Rule: everything an event says is written as text; its hash is shown next to the one computed here.
 */
const EventDetail = (() => {
  const MAX_NODES = 4000;
  const MAX_TEXT = 20_000;
  const FIELDS = ["event_id", "span_id", "parent_span_id", "trace_id", "session_id", "trace_version"];

  /** Fill a panel with an entry. */
  async function show(panel, entry, isCurrent) {
    panel.replaceChildren(...opening(entry));
    if (entry.event === null) {
      panel.append(section("Stored line", Text.element("pre", { text: shortened(entry.line ?? "not UTF-8") })));
      return;
    }
    panel.append(section("Payload", payload(entry.event.payload)), section("Event", fields(entry)));
    if (entry.event.event_hash === undefined) return; // of an agent's view
    const computed = TraceVerifier.canHash() ? await TraceVerifier.hashOf(entry.event) : null;
    if (isCurrent()) panel.append(section("Chain", chain(entry, computed)));
  }

  function opening(entry) {
    const parts = [];
    if (entry.fault !== null) {
      parts.push(
        Text.element(
          "div",
          { className: "notice tone-bad", role: "alert" },
          Text.icon("broken"),
          Text.element(
            "div",
            {},
            Text.element("strong", { text: entry.fault }),
            Text.element("span", { text: ` ${Text.visible(entry.faultMessage)}` }),
          ),
        ),
      );
    } else if (entry.unproven) {
      parts.push(
        Text.element(
          "div",
          { className: "notice tone-quiet" },
          Text.icon("event"),
          Text.element("div", { text: "Unproven: the chain is broken before this event." }),
        ),
      );
    }
    if (entry.detail) parts.push(Text.element("p", { className: "lead", text: entry.detail }));
    return parts;
  }

  function section(title, ...children) {
    return Text.element("section", {}, Text.element("h3", { text: title }), ...children);
  }

  function fields(entry) {
    const { event } = entry;
    const rows = [["timestamp", event.timestamp], ...FIELDS.filter((name) => event[name] !== undefined).map((name) => [name, event[name] ?? "null"])];
    return definitions(rows);
  }

  function chain(entry, computed) {
    const { event } = entry;
    const rows = [["previous_event_hash", event.previous_event_hash], ["event_hash", event.event_hash]];
    const list = definitions(rows);
    if (computed === null) {
      list.append(Text.element("dt", { text: "computed here" }), Text.element("dd", { text: "SHA-256 is not available to this page" }));
      return list;
    }
    const same = computed === event.event_hash;
    list.append(
      Text.element("dt", { text: "computed here" }),
      Text.element(
        "dd",
        { className: same ? "match" : "mismatch" },
        Text.element("code", { text: computed }),
        Text.element("span", { className: "mark" }, Text.icon(same ? "allow" : "deny"), same ? "the same" : "not the same"),
      ),
    );
    return list;
  }

  function definitions(rows) {
    const list = Text.element("dl");
    for (const [name, value] of rows) {
      list.append(Text.element("dt", { text: name }), Text.element("dd", {}, Text.element("code", { text: value })));
    }
    return list;
  }

  /** A payload, indented and coloured. Very large ones are cut, and say so. */
  function payload(value) {
    const writer = new Writer();
    writer.value(value, 0);
    const shown = Text.element("pre", { className: "json", tabindex: "0", "aria-label": "Payload" }, writer.fragment);
    if (!writer.cut) return shown;
    return Text.element("div", {}, shown, Text.element("p", { className: "note", text: "Cut here: the payload is larger than this page shows." }));
  }

  class Writer {
    constructor() {
      this.fragment = document.createDocumentFragment();
      this.nodes = 0;
      this.cut = false;
    }

    value(value, depth) {
      if (this.nodes > MAX_NODES) this.cut = true;
      if (this.cut) return;
      if (value instanceof Map) this.members([...value], "{", "}", depth, ([key, item]) => [`${quoted(key)}`, item]);
      else if (Array.isArray(value)) this.members(value, "[", "]", depth, (item) => [null, item]);
      else if (typeof value === "string") this.write("string", quoted(value));
      else this.write("literal", StrictJson.canonical(value));
    }

    members(items, open, close, depth, split) {
      if (items.length === 0) {
        this.write("mark", open + close);
        return;
      }
      this.write("mark", open);
      for (const [place, member] of items.entries()) {
        if (this.cut) return;
        const [key, item] = split(member);
        this.write("space", `\n${"  ".repeat(depth + 1)}`);
        if (key !== null) {
          this.write("key", key);
          this.write("mark", ": ");
        }
        this.value(item, depth + 1);
        if (place < items.length - 1) this.write("mark", ",");
      }
      this.write("space", `\n${"  ".repeat(depth)}`);
      this.write("mark", close);
    }

    write(className, text) {
      this.nodes += 1;
      if (className === "space" || className === "mark") this.fragment.append(text);
      else this.fragment.append(Text.element("span", { className, text }));
    }
  }

  const shortened = (text) => Text.visible(text, MAX_TEXT);
  const quoted = (text) => Text.visible(JSON.stringify(text), MAX_TEXT);

  return Object.freeze({ show });
})();
