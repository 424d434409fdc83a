"use strict";

/*
 * The list of events: only the rows in sight exist, so that ten thousand cost no more than thirty.
 *
 * Rule: it shows what it is given and says what was chosen; it knows nothing of filters or proofs.
 */
const EventList = (() => {
  const OVERSCAN = 8;
  /** How a row is laid out from which width on, in pixels, and how high it is then. */
  const LAYOUTS = [
    { name: "wide", from: 760, row: 36 },
    { name: "medium", from: 460, row: 36 },
    { name: "narrow", from: 0, row: 60 },
  ];
  const WORDS = { allow: "Allowed", deny: "Denied", approval: "Approval", error: "Error" };

  class List {
    /** viewport: the element that scrolls; canvas: its one child; onChoose(entry, opens): an event was chosen, or is to be opened. */
    constructor(viewport, canvas, onChoose) {
      this.viewport = viewport;
      this.canvas = canvas;
      this.onChoose = onChoose;
      this.entries = [];
      this.chosen = -1;
      this.span = null;
      this.due = false;
      this.rowHeight = LAYOUTS[0].row;
      viewport.addEventListener("scroll", () => this.draw(), { passive: true });
      viewport.addEventListener("keydown", (event) => this.pressed(event));
      canvas.addEventListener("click", (event) => this.clicked(event));
      new ResizeObserver(() => this.measure()).observe(viewport);
    }

    /** Show other entries; the chosen one stays chosen if it is among them. */
    show(entries) {
      const kept = this.entries[this.chosen];
      this.entries = entries;
      this.chosen = kept === undefined ? -1 : entries.indexOf(kept);
      this.measure();
    }

    measure() {
      const layout = LAYOUTS.find(({ from }) => this.viewport.clientWidth >= from);
      this.rowHeight = layout.row;
      this.viewport.parentElement.dataset.layout = layout.name;
      this.canvas.style.height = `${this.entries.length * this.rowHeight}px`;
      if (this.chosen >= 0) this.reveal();
      this.draw();
    }

    /** Mark the events of one call; null: of none. */
    relate(span) {
      this.span = span;
      this.draw();
    }

    /** Draw the rows in sight again, once, when what is under way is done. */
    draw() {
      if (this.due) return;
      this.due = true;
      queueMicrotask(() => {
        this.due = false;
        this.paint();
      });
    }

    paint() {
      const first = Math.max(0, Math.floor(this.viewport.scrollTop / this.rowHeight) - OVERSCAN);
      const seen = Math.ceil(this.viewport.clientHeight / this.rowHeight) + 2 * OVERSCAN;
      const last = Math.min(this.entries.length, first + seen);
      const rows = [];
      for (let place = first; place < last; place += 1) rows.push(this.row(place));
      this.canvas.replaceChildren(...rows);
      const active = placeId(this.chosen);
      if (this.chosen >= first && this.chosen < last) this.viewport.setAttribute("aria-activedescendant", active);
      else this.viewport.removeAttribute("aria-activedescendant");
    }

    row(place) {
      const entry = this.entries[place];
      const before = this.entries[place - 1];
      const classes = ["row", `is-${entry.tone}`];
      if (place === this.chosen) classes.push("chosen");
      if (entry.unproven) classes.push("unproven");
      if (this.span !== null && entry.event?.span_id === this.span) classes.push("related");
      if (before === undefined ? entry.index > 0 : before.index !== entry.index - 1) classes.push("gap");
      if (place === 0) classes.push("first");
      if (place === this.entries.length - 1) classes.push("last");
      const row = Text.element(
        "div",
        {
          className: classes.join(" "),
          id: placeId(place),
          role: "option",
          "aria-selected": String(place === this.chosen),
          "aria-setsize": String(this.entries.length),
          "aria-posinset": String(place + 1),
          "data-place": String(place),
          "data-index": String(entry.index),
        },
        Text.element("span", { className: "rail" }, Text.element("span", { className: "node" }, Text.icon(entry.icon))),
        Text.element("span", { className: "sequence", text: String(entry.index) }),
        Text.element("span", { className: "time", text: entry.time, title: entry.timestamp }),
        Text.element("span", { className: "type", text: entry.type }),
        Text.element("span", { className: "action", text: entry.action, title: entry.action }),
        outcome(entry),
        Text.element("span", { className: "policy", text: entry.note, title: entry.note }),
        Text.element("span", { className: "duration", text: Text.duration(entry.duration) }),
      );
      row.style.transform = `translateY(${place * this.rowHeight}px)`;
      row.style.height = `${this.rowHeight}px`;
      return row;
    }

    clicked(event) {
      const row = event.target.closest("[data-place]");
      if (row !== null) this.choose(Number(row.dataset.place), true);
    }

    /** Choose the entry at a place, and bring it into sight. */
    choose(place, opens) {
      if (this.entries.length === 0) return;
      this.chosen = Math.min(Math.max(place, 0), this.entries.length - 1);
      this.reveal();
      this.draw();
      this.onChoose(this.entries[this.chosen], opens);
    }

    /** Choose the entry of an event by its position in the chain; false if it is not among those shown. */
    chooseIndex(index, opens) {
      const place = this.entries.findIndex((entry) => entry.index === index);
      if (place < 0) return false;
      this.choose(place, opens);
      return true;
    }

    /** The chosen entry, if there is one. */
    current() {
      return this.entries[this.chosen];
    }

    /** Bring the chosen row into sight: a near one by as little as it takes, a far one with what is around it. */
    reveal() {
      const { clientHeight, scrollTop } = this.viewport;
      const top = this.chosen * this.rowHeight;
      const bottom = top + this.rowHeight;
      if (top >= scrollTop && bottom <= scrollTop + clientHeight) return;
      if (top < scrollTop - clientHeight || bottom > scrollTop + 2 * clientHeight) {
        this.viewport.scrollTop = top - (clientHeight - this.rowHeight) / 2;
      } else if (top < scrollTop) this.viewport.scrollTop = top - this.rowHeight;
      else this.viewport.scrollTop = bottom + this.rowHeight - clientHeight;
    }

    pressed(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const page = Math.max(1, Math.floor(this.viewport.clientHeight / this.rowHeight) - 1);
      const targets = {
        ArrowDown: this.chosen + 1,
        ArrowUp: Math.max(0, this.chosen - 1),
        PageDown: this.chosen + page,
        PageUp: Math.max(0, this.chosen - page),
        Home: 0,
        End: this.entries.length - 1,
      };
      if (event.key in targets) this.choose(targets[event.key], false);
      else if (event.key === "Enter" || event.key === " ") this.choose(Math.max(0, this.chosen), true);
      else return;
      event.preventDefault();
    }
  }

  /** The cell that says what was decided, or what is wrong with the event. */
  function outcome(entry) {
    if (entry.fault !== null) return Text.element("span", { className: "outcome" }, pill("bad", "broken", entry.fault));
    if (entry.decision === null) return Text.element("span", { className: "outcome" });
    return Text.element("span", { className: "outcome" }, pill(entry.decision, entry.decision, WORDS[entry.decision]));
  }

  /** A word in its colour, with its sign: the colour alone says nothing. */
  function pill(tone, sign, text) {
    return Text.element("span", { className: `pill tone-${tone}` }, Text.icon(sign), Text.element("span", { text }));
  }

  const placeId = (place) => `event-${place}`;

  return Object.freeze({ List, WORDS, pill });
})();
