"use strict";

/*
 * Text of a trace, as it may be shown.
 *
 * Rule: what agents and tools wrote becomes text nodes and nothing else; characters that steer a reader (bidirectional
 * overrides), that nobody sees, or that pile up over other lines are written as escapes.
 */
const Text = (() => {
  const UNSEEN = new RegExp(
    "[\\p{Cc}\\p{Cf}\\p{Cn}\\p{Co}\\p{Cs}\\p{Zl}\\p{Zp}]" +
      "|(?! )\\p{Zs}" +
      // Shown as nothing although they count as letters, marks or symbols; then the variation selectors.
      "|[\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u2800\\u3164\\uffa0\\ufe00-\\ufe0f]|[\\u{e0100}-\\u{e01ef}]" +
      "|(?<=\\p{M}{4})\\p{M}",
    "gu",
  );

  /** The text with everything unseen written as \u{…}, cut after a number of characters. */
  function visible(text, most = 400) {
    const cut = text.length > most ? `${text.slice(0, most)}…` : text;
    return cut.replace(UNSEEN, (part) => `\\u{${part.codePointAt(0).toString(16)}}`);
  }

  /** A new element: properties are set, children that are strings become text. */
  function element(tag, { className, text, title, ...attributes } = {}, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    if (title !== undefined) made.title = title;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** One of the drawings at the end of the page. */
  function icon(name) {
    const space = "http://www.w3.org/2000/svg";
    const drawing = document.createElementNS(space, "svg");
    drawing.setAttribute("class", "icon");
    drawing.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(space, "use");
    use.setAttribute("href", `#icon-${name}`);
    drawing.append(use);
    return drawing;
  }

  /** Milliseconds for people. */
  function duration(ms) {
    if (ms === null) return "";
    if (ms < 1000) return `${ms < 10 ? Number(ms.toFixed(1)) : Math.round(ms)} ms`;
    if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
    const minutes = Math.floor(ms / 60_000);
    return minutes < 60
      ? `${minutes} min ${Math.floor((ms % 60_000) / 1000)} s`
      : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  /** Whole numbers with thousands apart, in the same form everywhere. */
  function count(number, noun) {
    const digits = String(number).replace(/\B(?=(\d{3})+$)/g, "\u2009");
    return noun === undefined ? digits : `${digits} ${noun}${number === 1 ? "" : "s"}`;
  }

  return Object.freeze({ count, duration, element, icon, visible });
})();
