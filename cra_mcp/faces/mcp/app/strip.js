"use strict";

/*
 * The whole chain in one strip: where the refusals, the questions and the break are. A click goes there.
 */
const Strip = (() => {
  /** What wins where several events share a place. */
  const RANK = ["quiet", "allow", "approval", "deny", "error", "bad"];
  const HEIGHT = 18;
  const LOW = { quiet: 0.34, allow: 0.5 };

  /** Draw entries on a canvas. */
  function draw(canvas, entries) {
    const width = canvas.clientWidth;
    if (width === 0 || entries.length === 0) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(HEIGHT * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const colours = coloursOf(canvas);
    const slots = Math.max(1, Math.min(entries.length, Math.floor(width / 3)));
    const step = width / slots;
    for (let slot = 0; slot < slots; slot += 1) {
      const from = Math.floor((slot * entries.length) / slots);
      const to = Math.max(from + 1, Math.floor(((slot + 1) * entries.length) / slots));
      const tone = strongest(entries, from, to);
      const height = tone === "bad" ? HEIGHT : (HEIGHT - 6) * (LOW[tone] ?? 1);
      pen.globalAlpha = entries[from].unproven && tone !== "bad" ? 0.4 : 1;
      pen.fillStyle = colours.get(tone);
      const gap = Math.min(2, Math.floor(step / 4));
      const bar = tone === "bad" ? Math.max(step - gap, 4) : step - gap;
      pen.beginPath();
      pen.roundRect(slot * step + (step - bar) / 2, (HEIGHT - height) / 2, bar, height, Math.min(2, bar / 3));
      pen.fill();
    }
  }

  function strongest(entries, from, to) {
    let rank = 0;
    for (let place = from; place < to; place += 1) rank = Math.max(rank, RANK.indexOf(entries[place].tone));
    return RANK[rank];
  }

  /** A canvas knows no variables: the colours are read off elements that use them. */
  function coloursOf(canvas) {
    const probe = document.createElement("span");
    canvas.after(probe);
    const found = new Map();
    for (const tone of RANK) {
      probe.style.color = `var(--${tone})`;
      found.set(tone, getComputedStyle(probe).color);
    }
    probe.remove();
    return found;
  }

  /** Position in the chain under a click. */
  function indexAt(canvas, entries, clientX) {
    const box = canvas.getBoundingClientRect();
    const place = Math.floor(((clientX - box.left) / box.width) * entries.length);
    return Math.min(Math.max(place, 0), entries.length - 1);
  }

  return Object.freeze({ draw, indexAt });
})();
