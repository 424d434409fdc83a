"""The trace page: an MCP App that draws a trace and verifies it in the reader's browser.

Rule: one self-contained document, the same bytes every time, that loads nothing and talks to nobody but its host. Its own
policy names its scripts and its style by hash, so that nothing a trace could smuggle in would run even where the host's
policy is loose. Source: SEP-1865 (MCP Apps), 2026-01-26; Content Security Policy Level 3; specs/mcp.md, "The trace page".
"""

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files

URI = "ui://cra/trace"
MIME_TYPE = "text/html;profile=mcp-app"
EXTENSION = "io.modelcontextprotocol/ui"

SCRIPTS = (
    "json.js",
    "verifier.js",
    "view.js",
    "summary.js",
    "text.js",
    "host.js",
    "source.js",
    "list.js",
    "detail.js",
    "entries.js",
    "filters.js",
    "strip.js",
    "page.js",
)
"""In the order in which they run: each uses only what those before it define."""

_STYLE = "page.css"
_DOCUMENT = "page.html"


@lru_cache(maxsize=1)
def page() -> str:
    """The document."""
    style = _read(_STYLE)
    scripts = [_read(name) for name in SCRIPTS]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(_source(script) for script in scripts)}",
            f"style-src {_source(style)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        _read(_DOCUMENT)
        .replace("{{policy}}", policy)
        .replace("{{style}}", style)
        .replace("{{scripts}}", "\n".join(f"<script>{script}</script>" for script in scripts))
    )


def resource_meta() -> dict[str, object]:
    """What the host is told of the page: it needs no other origin and no permission."""
    return {"ui": {"csp": {"connectDomains": [], "resourceDomains": []}, "prefersBorder": True}}


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _source(text: str) -> str:
    """How a policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
