"""A small MCP Apps host in a real browser: it reads the page from a real server, shows it in a sandbox, and talks its protocol.

What the page asks goes to the server process; what the browser refuses or loads is written down.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, FrameLocator, Locator, Page

from tests.faces.mcp.app.made import SESSION
from tests.faces.mcp.conftest import Wire

HERE = Path(__file__).resolve().parent
SETTLED = ", ".join(f"#app[data-state={state}]" for state in ("ok", "bad", "unchecked", "failed"))
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]


def policy_of(meta: dict[str, Any]) -> str:
    """The policy a host makes of a resource's declaration (SEP-1865, "Content Security Policy Enforcement")."""
    csp = meta.get("ui", {}).get("csp", {})
    resources = "".join(f" {origin}" for origin in csp.get("resourceDomains", []))
    connect = " ".join(csp.get("connectDomains", [])) or "'none'"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'unsafe-inline'{resources}",
            f"style-src 'self' 'unsafe-inline'{resources}",
            f"connect-src {connect}",
            f"img-src 'self' data:{resources}",
            f"font-src 'self'{resources}",
            f"media-src 'self' data:{resources}",
            "frame-src 'none'",
            "object-src 'none'",
            "base-uri 'self'",
        )
    )


class Site:
    """Serves the host's page and the view, each with its policy, and counts what else is asked for.

    With ``npm``, a folder of node_modules, its scripts are served under ``/npm/``, for hosts that are made of them.
    """

    def __init__(self, view: str, policy: str, *, host: str = "host.html", npm: Path | None = None) -> None:
        pages = {"/": ((HERE / host).read_bytes(), None), "/view": (view.encode(), policy)}
        asked: list[str] = []

        def script(path: str) -> bytes:
            file = (
                (npm / path.removeprefix("/npm/")).resolve() if npm is not None and path.startswith("/npm/") else None
            )
            return (
                file.read_bytes() if file is not None and file.is_file() and file.is_relative_to(npm or HERE) else b""
            )

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                body, csp = pages.get(self.path) or (script(self.path), None)
                self.send_response(200 if body else 404)
                kind = "text/html" if self.path in pages else "text/javascript"
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                if csp is not None:
                    self.send_header("Content-Security-Policy", csp)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Shown:
    """The page in its host."""

    page: Page
    view: FrameLocator
    site: Site
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settled(self) -> Locator:
        app = self.view.locator(SETTLED)
        app.wait_for(timeout=60_000)
        return app

    @property
    def state(self) -> str | None:
        return self.settled().get_attribute("data-state")

    def text(self, selector: str) -> str:
        return self.view.locator(selector).inner_text()

    def row(self, index: int) -> Locator:
        return self.view.locator(f"[data-index='{index}']")

    def run(self, script: str, argument: object = None) -> Any:
        """Evaluate in the view."""
        return self.page.frames[-1].evaluate(script, argument)

    def said(self) -> list[dict[str, Any]]:
        """What the view told the host."""
        return self.page.evaluate("log")

    def tell(self, message: dict[str, Any]) -> None:
        self.page.evaluate("message => send(message)", message)

    def harm(self) -> list[str]:
        """What must never happen: refused loads, errors, requests beyond the two pages."""
        violations = [found for frame in self.page.frames for found in frame.evaluate("window.violations")]
        allowed = {self.site.url, f"{self.site.url}view", "data:,"}
        beyond = [url for url in self.requests if url not in allowed and not url.startswith(f"{self.site.url}npm/")]
        return [*violations, *self.errors, *beyond]


def ask(wire: Wire) -> Answer:
    """Ask the real server, as a host does for its page."""

    def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
        found = wire.request(method, params)
        return {key: found[key] for key in ("result", "error") if key in found}

    return answer


@contextmanager
def shown(
    browser: Browser,
    wire: Wire,
    *,
    answer: Answer | None = None,
    arguments: dict[str, Any] | None = None,
    capabilities: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    width: int = 1100,
    height: int = 760,
    npm: Path | None = None,
    as_document: bool = False,
) -> Iterator[Shown]:
    """Open the page that ``cra_trace`` names, in a sandbox, and call the tool for it.

    The host is the one of host.html; with ``npm``, a folder of node_modules, the reference implementation's.
    ``as_document``: the page is not loaded from an address but written into its frame, as some hosts do.
    """
    tools = wire.request("tools/list")["result"]["tools"]
    uri = next(tool for tool in tools if tool["name"] == "cra_trace")["_meta"]["ui"]["resourceUri"]
    (content,) = wire.request("resources/read", {"uri": uri})["result"]["contents"]
    host = "host.html" if npm is None else "reference_host.html"
    site = Site(content["text"], policy_of(content["_meta"]), host=host, npm=npm)
    own = browser.new_context(viewport={"width": width, "height": height})
    try:
        page = own.new_page()
        found = Shown(page, page.frame_locator("iframe"), site)
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: (found.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.add_init_script(_WATCH)
        page.expose_function("answer", answer or ask(wire))
        page.goto(site.url)
        options = {
            "arguments": {"session_id": SESSION} if arguments is None else arguments,
            "capabilities": {"serverResources": {}, "serverTools": {}} if capabilities is None else capabilities,
            "context": {"theme": "light", **(context or {})},
            "html": content["text"] if as_document else None,
        }
        page.wait_for_function("typeof show === 'function'")
        page.evaluate("options => show(options)", options)
        yield found
    finally:
        own.close()
        site.close()
