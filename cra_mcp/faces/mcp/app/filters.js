"use strict";

/*
 * Which events are shown: by decision, by type, by words, by call.
 *
 * Rule: counts are of the whole trace, so that a filter never hides how much there is.
 */
const Filters = (() => {
  const SEARCH_MS = 120;
  const DECISIONS = ["allow", "deny", "approval", "error"];

  class Filter {
    /** controls: {toggles, types, search, span}; onChange() is called whenever fits() may answer otherwise. */
    constructor(controls, onChange) {
      this.controls = controls;
      this.onChange = onChange;
      this.decisions = new Set();
      this.type = "";
      this.needle = "";
      this.span = null;
      this.buttons = new Map(DECISIONS.map((decision) => [decision, this.button(decision)]));
      controls.toggles.append(...this.buttons.values());
      controls.types.addEventListener("change", () => this.set({ type: controls.types.value }));
      controls.span.addEventListener("click", () => this.set({ span: null }));
      let timer = 0;
      controls.search.addEventListener("input", () => {
        clearTimeout(timer);
        timer = setTimeout(() => this.set({ needle: controls.search.value.trim().toLowerCase() }), SEARCH_MS);
      });
    }

    button(decision) {
      const made = Text.element(
        "button",
        { className: `toggle tone-${decision}`, type: "button", "aria-pressed": "false", "data-decision": decision },
        Text.icon(decision),
        Text.element("span", { className: "word", text: EventList.WORDS[decision] }),
        Text.element("b", { text: "0" }),
      );
      made.addEventListener("click", () => this.toggle(decision));
      return made;
    }

    toggle(decision) {
      if (!this.decisions.delete(decision)) this.decisions.add(decision);
      this.buttons.get(decision).setAttribute("aria-pressed", String(this.decisions.has(decision)));
      this.onChange();
    }

    set(change) {
      Object.assign(this, change);
      this.controls.span.hidden = this.span === null;
      this.controls.span.textContent = this.span === null ? "" : "One call only ✕";
      this.onChange();
    }

    clear() {
      this.decisions.clear();
      for (const button of this.buttons.values()) button.setAttribute("aria-pressed", "false");
      this.controls.search.value = "";
      this.controls.types.value = "";
      this.set({ type: "", needle: "", span: null });
    }

    isOpen() {
      return this.decisions.size === 0 && this.type === "" && this.needle === "" && this.span === null;
    }

    /** Offer what a trace has. */
    offer(entries) {
      const decisions = new Map();
      const types = new Map();
      for (const { decision, type } of entries) {
        decisions.set(decision, (decisions.get(decision) ?? 0) + 1);
        types.set(type, (types.get(type) ?? 0) + 1);
      }
      for (const [decision, button] of this.buttons) {
        const count = decisions.get(decision) ?? 0;
        button.querySelector("b").textContent = Text.count(count);
        button.disabled = count === 0;
      }
      const names = [...types.keys()].sort();
      this.controls.types.replaceChildren(
        Text.element("option", { value: "", text: "All events" }),
        ...names.map((name) => Text.element("option", { value: name, text: `${name} (${Text.count(types.get(name))})` })),
      );
      if (!types.has(this.type)) this.type = "";
      this.controls.types.value = this.type;
    }

    fits(entry) {
      return (
        (this.decisions.size === 0 || this.decisions.has(entry.decision)) &&
        (this.type === "" || entry.type === this.type) &&
        (this.span === null || entry.event?.span_id === this.span) &&
        (this.needle === "" || Entries.holds(entry, this.needle))
      );
    }
  }

  return Object.freeze({ Filter });
})();
