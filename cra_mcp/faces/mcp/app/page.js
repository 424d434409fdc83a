"use strict";

/*
 * The page: what arrives, what is shown, what keys and buttons do.
 *
 * Rule: the verdict is this page's own. What the server says of its chain is shown beside it, never in its place; where nothing could
 * be checked here, the page says so and shows no green.
 */
(() => {
  const MIN_HEIGHT = 300;
  const MAX_HEIGHT = 640;
  /** What a chain can't show by itself (specs/trace.md). */
  const LIMIT = "Whether its end was cut off, only a head kept elsewhere can tell: compare it.";
  const SIDE_BY_SIDE = 820; // below, an opened event covers the list
  const HOST_STYLE = /^--(?:color|font|border|shadow)-[a-z0-9-]{1,60}$/;
  const at = (id) => document.getElementById(id);

  const state = {
    entries: [],
    proof: null,
    opened: null,
    generation: 0,
    link: null,
    sessionId: null,
    claim: null, // what the server says of the chain
    rows: [], // the server's own summary, for hosts that let the page read nothing
  };

  const list = new EventList.List(at("viewport"), at("canvas"), (entry, opens) => {
    if (opens || state.opened !== null) open(entry);
  });
  const filter = new Filters.Filter(
    { toggles: at("toggles"), types: at("types"), search: at("search"), span: at("span-filter") },
    refilter,
  );

  // --- What is said at the top ---------------------------------------------------------------------------------------

  function say(phase, headline, explanation, progress = null) {
    at("app").dataset.state = phase;
    const seals = { ok: "shield", bad: "shield-broken" };
    at("seal").replaceChildren(Text.icon(seals[phase] ?? "shield-open"));
    at("headline").textContent = headline;
    at("explanation").textContent = explanation;
    at("progress").hidden = progress === null;
    at("verdict").ariaBusy = String(progress !== null); // read out when it stands, not at every step
    at("progress").value = progress ?? 0;
    at("goto-bad").hidden = !(phase === "bad" && state.entries[state.proof?.bad_index] !== undefined);
  }

  function pronounce(took) {
    const { proof, claim } = state;
    const total = Text.count(state.entries.length, "event");
    if (proof === null) {
      say("unchecked", "Not checked", `This host gives the page no SHA-256, so nothing could be verified here. ${claimed()}`);
    } else if (!proof.ok) {
      const place = proof.bad_index < state.entries.length ? `Tampered at event ${proof.bad_index}` : `Cut off after ${total}`;
      const after = state.entries.length - proof.bad_index - 1;
      const rest = after > 0 ? ` ${Text.count(after, "event")} after it ${after === 1 ? "is" : "are"} unproven.` : "";
      say("bad", `${place}: ${proof.code}`, `${sentence(proof.message)} ${Text.count(proof.events, "event")} before it ${proof.events === 1 ? "holds" : "hold"}.${rest}`);
    } else if (claim !== null && claim.ok === false) {
      const code = Text.visible(String(claim.code), 60);
      say("bad", `The server reports ${code}`, `The ${total} given to this page hold together, but the server found its stored trace damaged at event ${claim.bad_index}.`);
    } else if (state.entries.length === 0) {
      say("ok", "Empty trace", "Nothing was recorded.");
    } else {
      const checked = `${total}, each hashed and linked to the one before. Checked in this page in ${Text.duration(took)}.`;
      say("ok", "Chain intact", `${checked}${headOf(claim) === null ? ` ${LIMIT}` : ""}`);
    }
  }

  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

  function claimed() {
    const { claim } = state;
    if (claim === null || typeof claim.ok !== "boolean") return "";
    return claim.ok ? "The server says that the chain is intact." : `The server reports ${Text.visible(String(claim.code), 60)}.`;
  }

  function facts() {
    const events = state.entries.map((entry) => entry.event).filter((event) => event !== null);
    const started = events.find((event) => event.event_type === "session.started");
    const [first, last] = [events[0], events.at(-1)];
    const known = (name) => {
      const value = started?.payload.get(name);
      return typeof value === "string" && value !== "" ? Text.visible(value) : null;
    };
    const span = first === undefined ? null : Date.parse(last.timestamp) - Date.parse(first.timestamp);
    const head = state.proof?.head ?? null;
    const told = [
      ["Agent", known("agent_id"), ""],
      ["Goal", known("goal"), "wide"],
      ["Started", first === undefined ? null : `${first.timestamp.slice(0, 19).replace("T", " ")} UTC`, "optional"],
      ["Lasted", span === null || !Number.isFinite(span) ? null : Text.duration(Math.max(span, 0)), "optional"],
      ["Head", head, "head"],
    ].filter(([, value]) => value !== null);
    at("facts").replaceChildren(
      ...told.map(([name, value, className]) =>
        Text.element("div", { className }, Text.element("dt", { text: name }), Text.element("dd", { text: value, title: value })),
      ),
    );
    at("facts").hidden = told.length === 0;
    at("session").textContent = first === undefined ? "" : first.session_id;
  }

  // --- Taking in a trace ---------------------------------------------------------------------------------------------

  /** Show and prove lines; a later call takes over from an earlier one. */
  async function take(lines, { sessionId = null, expected = null, tail = false }) {
    state.generation += 1;
    if (AgentView.is(lines)) {
      presentView(lines);
      return;
    }
    const { generation } = state;
    const total = Text.count(lines.length);
    const begun = performance.now();
    const found = await Entries.prove(lines, { sessionId, expected, tail }, (done) => {
      if (generation !== state.generation) return false;
      say("checking", "Checking", `${Text.count(done)} of ${total} events hashed.`, done / lines.length);
      return true;
    });
    if (found === null || generation !== state.generation) return;
    const [entries, proof] = [found.entries, found.proof];
    present(entries, proof);
    pronounce(performance.now() - begun);
    if (proof !== null && !proof.ok) list.chooseIndex(proof.bad_index, hasRoom());
  }

  function present(entries, proof) {
    Object.assign(state, { entries, proof });
    close();
    for (const id of ["listing", "toolbar", "strip", "keys"]) at(id).hidden = false;
    at("opening").hidden = true;
    at("another").hidden = state.link !== null;
    facts();
    filter.offer(entries);
    refilter();
    Strip.draw(at("strip"), entries);
    resize();
  }

  /** A tool result of cra_trace: which session, what the server says of it, and some rows. */
  async function takeResult(result) {
    const given = result.structuredContent;
    const text = result.content?.find?.((part) => part?.type === "text")?.text;
    if (result.isError || given === null || typeof given !== "object" || typeof given.session_id !== "string") {
      say("failed", "No trace to show", Text.visible(typeof text === "string" ? text : "The tool gave no trace."));
      return;
    }
    state.sessionId = given.session_id;
    state.claim = given.verification ?? null;
    state.rows = Array.isArray(given.events) ? given.events : [];
    await readSession();
  }

  async function readSession() {
    say("checking", "Reading the trace", "Asking the host for the stored events.", 0);
    at("reload").hidden = true;
    let lines;
    try {
      lines = await TraceSource.readFromHost(state.link, state.sessionId, (count) =>
        say("checking", "Reading the trace", `${Text.count(count, "event")} so far.`, 0),
      );
    } catch (error) {
      presentRows(error);
      return;
    }
    at("reload").hidden = false;
    await take(lines, { sessionId: state.sessionId, expected: headOf(state.claim) });
  }

  /** The server's head of a sound chain: the lines must reach and hold it. */
  function headOf(claim) {
    const head = claim?.head;
    const whole = Number.isSafeInteger(head?.sequence) && typeof head.event_hash === "string";
    return whole ? { sequence: head.sequence, event_hash: head.event_hash } : null;
  }

  function presentRows(error) {
    present(state.rows.map((row, index) => Entries.entryOfRow(row ?? {}, index)), null);
    say("unchecked", "Not checked", `The stored events could not be read (${Text.visible(error.message, 160)}). ${claimed()}`);
  }

  function presentView(lines) {
    const { claim } = state;
    present(Entries.ofView(lines, claim), null);
    const why = "This is the view of an agent: what policy keeps from it is left out, so that no hash can be checked here.";
    if (claim?.ok === false) say("bad", `The server reports ${Text.visible(String(claim.code), 60)}`, `${why} ${claimed()}`);
    else say("unchecked", "Not checked here", `${why} ${claimed()}`);
  }

  async function takeBytes(bytes) {
    const { lines, tail } = TraceSource.splitBytes(bytes);
    state.claim = null;
    await take(lines, { tail });
  }

  // --- Showing -------------------------------------------------------------------------------------------------------

  function refilter() {
    const fitting = filter.isOpen() ? state.entries : state.entries.filter((entry) => filter.fits(entry));
    list.show(fitting);
    at("nothing").hidden = fitting.length > 0 || state.entries.length === 0;
  }

  function open(entry) {
    state.opened = entry;
    list.relate(entry.event?.span_id ?? null);
    at("detail").hidden = false;
    at("detail-number").textContent = `#${entry.index}`;
    at("detail-title").textContent = entry.type;
    at("detail-pill").replaceChildren(
      ...(entry.decision === null ? [] : [EventList.pill(entry.decision, entry.decision, EventList.WORDS[entry.decision])]),
    );
    at("only-call").hidden = entry.event === null || filter.span !== null;
    at("detail-body").scrollTop = 0;
    EventDetail.show(at("detail-body"), entry, () => state.opened === entry);
  }

  function close() {
    if (state.opened === null) return;
    state.opened = null;
    list.relate(null);
    at("detail").hidden = true;
    at("viewport").focus({ preventScroll: true });
  }

  const hasRoom = () => window.innerWidth > SIDE_BY_SIDE;

  function nextProblem(step) {
    const { entries } = state;
    const start = list.current()?.index ?? (step > 0 ? -1 : entries.length);
    for (let index = start + step; index >= 0 && index < entries.length; index += step) {
      if (Entries.isProblem(entries[index])) {
        goTo(index);
        return;
      }
    }
  }

  function goTo(index) {
    if (list.chooseIndex(index, true)) return;
    filter.clear();
    list.chooseIndex(index, true);
  }

  /** Tell a host that lets pages choose their height how much this one wants. */
  function resize() {
    const { link } = state;
    if (link === null) return;
    const root = document.documentElement;
    const box = link.context.containerDimensions ?? {};
    if (link.context.displayMode === "fullscreen" || typeof box.height === "number") {
      root.style.removeProperty("--page-height");
      return;
    }
    const most = typeof box.maxHeight === "number" && box.maxHeight > 0 ? box.maxHeight : MAX_HEIGHT;
    const chrome = at("app").clientHeight - at("main").clientHeight + 40;
    const wanted = state.entries.length === 0 ? 120 : chrome + Math.max(state.entries.length, 8) * list.rowHeight;
    const height = Math.round(Math.min(Math.max(wanted, MIN_HEIGHT), most, Math.max(MAX_HEIGHT, MIN_HEIGHT)));
    root.style.setProperty("--page-height", `${height}px`);
    link.notify("ui/notifications/size-changed", { height });
  }

  function dress(context) {
    const root = document.documentElement;
    if (context.theme === "light" || context.theme === "dark") root.style.colorScheme = context.theme;
    for (const [name, value] of Object.entries(context.styles?.variables ?? {})) {
      // A value that loads something would only be blocked; it is not even tried.
      if (HOST_STYLE.test(name) && typeof value === "string" && !/url|image|@/i.test(value)) root.style.setProperty(name, value);
    }
    at("expand").hidden = !state.link.canExpand();
    Strip.draw(at("strip"), state.entries);
    resize();
  }

  // --- Keys, buttons, files ------------------------------------------------------------------------------------------

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (state.opened !== null) close();
      else if (!filter.isOpen()) filter.clear();
      return;
    }
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    const actions = { "/": () => at("search").focus(), n: () => nextProblem(1), p: () => nextProblem(-1) };
    if (!Object.hasOwn(actions, event.key) || at("listing").hidden) return;
    event.preventDefault();
    actions[event.key]();
  }

  function listen() {
    document.addEventListener("keydown", pressed);
    at("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "ArrowDown") {
        event.preventDefault();
        at("viewport").focus();
      }
    });
    at("goto-bad").addEventListener("click", () => goTo(state.proof.bad_index));
    at("close").addEventListener("click", close);
    at("clear").addEventListener("click", () => filter.clear());
    at("only-call").addEventListener("click", () => filter.set({ span: state.opened.event.span_id }));
    at("reload").addEventListener("click", readSession);
    at("expand").addEventListener("click", () => state.link.expand().catch(() => undefined));
    at("strip").addEventListener("click", (event) => goTo(Strip.indexAt(at("strip"), state.entries, event.clientX)));
    window.addEventListener("resize", () => Strip.draw(at("strip"), state.entries));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Strip.draw(at("strip"), state.entries));
  }

  function listenForFiles() {
    const takeFile = async (file) => file && takeBytes(new Uint8Array(await file.arrayBuffer()));
    at("file").addEventListener("change", (event) => takeFile(event.target.files[0]));
    at("another").addEventListener("click", () => at("file").click());
    document.addEventListener("paste", (event) => {
      if (event.target instanceof HTMLInputElement) return;
      const text = event.clipboardData.getData("text/plain");
      if (text) takeBytes(new TextEncoder().encode(text.endsWith("\n") ? text : `${text}\n`));
    });
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      at("drop").classList.add("over");
    });
    document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      at("drop").classList.remove("over");
      takeFile(event.dataTransfer.files[0]);
    });
  }

  function standAlone() {
    say("waiting", "Trace", "Open a trace to see what was recorded and whether it is intact.");
    at("opening-icon").replaceChildren(Text.icon("shield"));
    at("opening").hidden = false;
    listenForFiles();
  }

  async function meetHost() {
    const link = new Host.Link(window.parent);
    state.link = link;
    say("waiting", "Trace", "Waiting for the host.");
    link.on("ui/notifications/context", dress);
    link.on("ui/notifications/tool-input", () => say("checking", "Reading the trace", "The tool is running.", 0));
    link.on("ui/notifications/tool-result", takeResult);
    link.on("ui/notifications/tool-cancelled", () => say("failed", "Cancelled", "The tool was cancelled, so there is no trace to show."));
    try {
      await link.connect();
    } catch (error) {
      state.link = null;
      standAlone();
      say("failed", "No host", `${Text.visible(error.message, 160)}. A trace can be opened from a file.`);
    }
  }

  listen();
  if (Host.isPresent()) meetHost();
  else standAlone();
})();
