// What the page's verifier makes of a conformance vector; the same text runs in Node and in the browser.
({
  async answer(StrictJson, TraceVerifier, { kind, input }) {
    if (kind === "canonical") {
      try {
        const canonical = StrictJson.canonical(StrictJson.parse(input.json, 128, false));
        const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(canonical));
        const sha256 = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
        return { canonical, sha256 };
      } catch (error) {
        if (error instanceof StrictJson.JsonError) return { error: "not_canonical" };
        throw error;
      }
    }
    const { message: _, ...found } = await TraceVerifier.verify(input.lines, {
      sessionId: input.session_id ?? null,
      expected: input.expect_head ?? null,
      tail: (input.tail ?? "") !== "",
    });
    return found;
  },
});
