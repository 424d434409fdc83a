"use strict";

/*
 * JSON read strictly, and its canonical form. Source: RFC 8259; RFC 8785; specs/trace.md, "Canonical JSON".
 *
 * Rule: whatever two readers could understand differently is refused (duplicate keys, lone surrogates, integers beyond
 * 2^53-1, numbers no double can hold, deep nesting). Objects become Maps, so that no key has a meaning of its own here.
 */
const StrictJson = (() => {
  const MAX_INTEGER_CHARS = 22; // a sign and 21 digits: what is longer RFC 8785 writes with an exponent
  const NUMBER = /-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)/y;
  const LONE_SURROGATE = /\p{Surrogate}/u;
  const WORDS = new Map([["t", ["true", true]], ["f", ["false", false]], ["n", ["null", null]]]);

  /** Text that is not JSON, or that has no canonical form. */
  class JsonError extends Error {}

  /** A number that is not an integer of the text: it has a fraction or an exponent, or is a whole double from 2^53 on. */
  class Double {
    constructor(value) {
      this.value = value;
    }
  }

  class Reader {
    constructor(text, maxDepth, wholeDoubles) {
      this.text = text;
      this.at = 0;
      this.room = maxDepth;
      this.wholeDoubles = wholeDoubles;
    }

    document() {
      const value = this.value();
      this.skipSpace();
      if (this.at !== this.text.length) throw this.fault("something follows the value");
      return value;
    }

    value() {
      this.skipSpace();
      const first = this.text[this.at];
      if (first === "{") return this.nested(() => this.object());
      if (first === "[") return this.nested(() => this.array());
      if (first === '"') return this.string();
      const [word, meaning] = WORDS.get(first) ?? [];
      if (word === undefined) return this.number();
      if (!this.text.startsWith(word, this.at)) throw this.fault("no such word");
      this.at += word.length;
      return meaning;
    }

    nested(read) {
      if (this.room === 0) throw this.fault("nested too deeply");
      this.room -= 1;
      this.at += 1;
      const value = read();
      this.room += 1;
      return value;
    }

    object() {
      const members = new Map();
      if (this.takes("}")) return members;
      do {
        this.skipSpace();
        if (this.text[this.at] !== '"') throw this.fault("a key must be a string");
        const key = this.string();
        if (members.has(key)) throw this.fault("a key occurs twice in one object");
        this.needs(":");
        members.set(key, this.value());
      } while (this.takes(","));
      this.needs("}");
      return members;
    }

    array() {
      const items = [];
      if (this.takes("]")) return items;
      do items.push(this.value());
      while (this.takes(","));
      this.needs("]");
      return items;
    }

    string() {
      const start = this.at;
      let plain = true;
      for (let at = start + 1; at < this.text.length; at += 1) {
        const unit = this.text.charCodeAt(at);
        if (unit === 0x22) {
          this.at = at + 1;
          return this.content(start, plain);
        }
        if (unit === 0x5c) at += 1;
        if (unit === 0x5c || unit < 0x20 || (unit >= 0xd800 && unit < 0xe000)) plain = false;
      }
      throw this.fault("a string does not end");
    }

    /** The string between the quotes at start and before the place; not plain: it holds escapes, controls or surrogates. */
    content(start, plain) {
      if (plain) return this.text.slice(start + 1, this.at - 1);
      let value;
      try {
        value = JSON.parse(this.text.slice(start, this.at));
      } catch {
        throw this.fault("a string holds a bad escape or a control character");
      }
      if (LONE_SURROGATE.test(value)) throw this.fault("a string holds a lone surrogate");
      return value;
    }

    number() {
      NUMBER.lastIndex = this.at;
      const found = NUMBER.exec(this.text);
      if (found === null) throw this.fault("a value is missing");
      this.at = NUMBER.lastIndex;
      const [token, notWhole] = found;
      const value = Number(token);
      if (notWhole === "" && Number.isSafeInteger(value)) return value;
      if (!Number.isFinite(value)) throw this.fault("a number that no double can hold");
      if (notWhole === "" && !this.isWholeDouble(token, value)) throw this.fault("an integer beyond 2^53-1");
      return new Double(value);
    }

    isWholeDouble(token, value) {
      return this.wholeDoubles && token.length <= MAX_INTEGER_CHARS && String(value) === token;
    }

    takes(mark) {
      this.skipSpace();
      if (this.text[this.at] !== mark) return false;
      this.at += 1;
      return true;
    }

    needs(mark) {
      if (!this.takes(mark)) throw this.fault(`${mark} is missing`);
    }

    skipSpace() {
      while (this.at < this.text.length && " \t\n\r".includes(this.text[this.at])) this.at += 1;
    }

    fault(reason) {
      return new JsonError(`${reason} at character ${this.at + 1}`);
    }
  }

  /**
   * Read one JSON text. With wholeDoubles an integer beyond 2^53-1 is read if it is exactly what RFC 8785 writes for a
   * double. Throws JsonError.
   */
  function parse(text, maxDepth, wholeDoubles) {
    return new Reader(text, maxDepth, wholeDoubles).document();
  }

  /** The RFC 8785 form of what parse gave. */
  function canonical(value) {
    if (value instanceof Map) {
      // The default order of sort is by UTF-16 code units, which is the order RFC 8785 wants.
      const members = [...value.keys()].sort().map((key) => `${JSON.stringify(key)}:${canonical(value.get(key))}`);
      return `{${members.join(",")}}`;
    }
    if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
    return JSON.stringify(value instanceof Double ? value.value : value);
  }

  return Object.freeze({ Double, JsonError, canonical, parse });
})();
