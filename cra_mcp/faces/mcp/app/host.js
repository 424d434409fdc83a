"use strict";

/*
 * The conversation with the host that shows this page. Source: SEP-1865 (MCP Apps), 2026-01-26.
 *
 * Rule: only messages of the parent window count, and nothing that arrives is more than data. Without a host the page works on
 * files.
 */
const Host = (() => {
  const PROTOCOL_VERSION = "2026-01-26";
  const HANDSHAKE_MS = 10_000;
  const REQUEST_MS = 60_000;
  const METHOD_NOT_FOUND = -32601;
  const MODES = ["inline", "fullscreen"];

  class HostError extends Error {}

  class Link {
    constructor(peer) {
      this.peer = peer;
      this.pending = new Map();
      this.listeners = new Map();
      this.lastId = 0;
      this.capabilities = {};
      this.context = {};
      window.addEventListener("message", (message) => this.receive(message));
    }

    /** Introduce the page. Listeners must be in place: the host may send what it has right after. Throws HostError. */
    async connect() {
      const answer = await this.request(
        "ui/initialize",
        {
          protocolVersion: PROTOCOL_VERSION,
          appInfo: { name: "cra-trace", title: "CRA trace", version: "1.0.0" },
          appCapabilities: { availableDisplayModes: MODES },
        },
        HANDSHAKE_MS,
      );
      this.capabilities = record(answer?.hostCapabilities);
      this.context = record(answer?.hostContext);
      this.notify("ui/notifications/initialized", {});
      this.tell("ui/notifications/context", this.context);
    }

    on(method, listener) {
      this.listeners.set(method, listener);
    }

    /** Ask the host; its answer, or HostError where it refuses or stays silent. */
    request(method, params, timeout = REQUEST_MS) {
      this.lastId += 1;
      const id = this.lastId;
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          this.pending.delete(id);
          reject(new HostError(`the host does not answer ${method}`));
        }, timeout);
        this.pending.set(id, { method, reject, resolve, timer });
        this.send({ id, method, params });
      });
    }

    notify(method, params) {
      this.send({ method, params });
    }

    send(message) {
      // The host's origin is not known to a page in a sandbox; what is sent is for whoever shows it.
      this.peer.postMessage({ jsonrpc: "2.0", ...message }, "*");
    }

    receive({ data, source }) {
      if (source !== this.peer || data === null || typeof data !== "object" || data.jsonrpc !== "2.0") return;
      if (typeof data.method === "string") {
        if (data.id === undefined) this.notified(data.method, record(data.params));
        else this.asked(data.id, data.method);
        return;
      }
      const waiting = this.pending.get(data.id);
      if (waiting === undefined) return;
      this.pending.delete(data.id);
      clearTimeout(waiting.timer);
      if (data.error === undefined) waiting.resolve(data.result);
      else waiting.reject(new HostError(`the host refuses ${waiting.method}: ${data.error?.message ?? "no reason given"}`));
    }

    notified(method, params) {
      if (method === "ui/notifications/host-context-changed") {
        this.context = { ...this.context, ...params };
        this.tell("ui/notifications/context", this.context);
        return;
      }
      this.tell(method, params);
    }

    /** There is nothing to put away before the page goes, so a teardown is answered like a ping. */
    asked(id, method) {
      if (method === "ping" || method === "ui/resource-teardown") this.send({ id, result: {} });
      else this.send({ id, error: { code: METHOD_NOT_FOUND, message: "Method not found" } });
    }

    tell(method, params) {
      this.listeners.get(method)?.(params);
    }

    /** Whether the host can show the page larger, and does not already. */
    canExpand() {
      const modes = this.context.availableDisplayModes;
      return Array.isArray(modes) && modes.includes("fullscreen") && this.context.displayMode !== "fullscreen";
    }

    async expand() {
      const answer = await this.request("ui/request-display-mode", { mode: "fullscreen" });
      if (typeof answer?.mode === "string") this.notified("ui/notifications/host-context-changed", { displayMode: answer.mode });
    }
  }

  const record = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});

  /** Whether somebody shows this page inside another. */
  function isPresent() {
    return window.parent !== window;
  }

  return Object.freeze({ HostError, Link, isPresent });
})();
