"""Traces that a person can pick in a host: most hosts show the resources that are listed, and no templates.

Rule: order and titles depend on how sessions began, so that a host that looks again and again sees the same list
until another session begins. Titles are foreign text: nothing in them steers a reader or is unseen.
Source: specs/mcp.md, "Resources".
"""

from typing import Final

import mcp_types as t

from cra_mcp.access import Access
from cra_mcp.errors import TraceError
from cra_mcp.faces.mcp import names
from cra_mcp.trace.event import parse
from cra_mcp.trace.view import read_view
from cra_mcp.words import visible

CURRENT: Final = "cra://trace/current"
"""The trace of the session that a request belongs to."""

NEWEST: Final = 10
_MAX_GOAL: Final = 60
_NOTHING: Final = "No session has begun yet: one begins with the first call of a tool.\n"


def current(access: Access) -> list[t.Resource]:
    """The trace of the current session, whether there is one yet or not."""
    return [
        t.Resource(
            uri=CURRENT,
            name="trace-current",
            title="Trace of the current session",
            description="What was asked, decided and done in it so far, as JSON lines.",
            mime_type=_kind(access),
        ),
        t.Resource(
            uri=f"{CURRENT}/table",
            name="trace-current-table",
            title="Trace of the current session, as a table",
            description="The same as a Markdown table, with the verdict on the chain.",
            mime_type=names.MARKDOWN,
        ),
    ]


def newest(access: Access) -> list[t.Resource]:
    """The traces of the sessions that began last, of those the caller may read. It reads files."""
    return [
        t.Resource(
            uri=f"cra://trace/{session_id}/table",
            name=f"trace:{session_id}",
            title=_title(access, session_id),
            description="Trace of a session as a Markdown table, with the verdict on the chain.",
            mime_type=names.MARKDOWN,
        )
        for session_id in access.newest_traces(NEWEST)
    ]


def meant(uri: str, session_id: str) -> str:
    """The URI that one of the current trace stands for."""
    return f"cra://trace/{session_id}{uri.removeprefix(CURRENT)}"


def is_current(uri: str) -> bool:
    """Whether a URI names the trace of the current session, or a part of it."""
    return uri == CURRENT or uri.startswith((f"{CURRENT}/", f"{CURRENT}?"))


def nothing(access: Access, uri: str) -> t.ReadResourceResult:
    """The current trace where no session has begun."""
    is_table = uri.removeprefix(CURRENT).startswith("/table")
    kind, text = (names.MARKDOWN, _NOTHING) if is_table else (_kind(access), "")
    return t.ReadResourceResult(contents=[t.TextResourceContents(uri=uri, mime_type=kind, text=text)])


def _kind(access: Access) -> str:
    return names.TRACE_JSONL if access.sees_all else names.TRACE_VIEW_JSONL


def _title(access: Access, session_id: str) -> str:
    try:
        (line,) = access.read_trace(session_id, limit=1)
        begun = parse(line) if access.sees_all else read_view(line)
    except (TraceError, ValueError):  # gone meanwhile, or damaged
        return f"Trace {session_id}"
    goal = begun.payload.get("goal")
    shown = " ".join(visible(goal if isinstance(goal, str) else "").split())
    shown = f"{shown[: _MAX_GOAL - 1]}…" if len(shown) > _MAX_GOAL else shown
    return f"{shown or 'Session'} ({begun.timestamp[:16].replace('T', ' ')} UTC)"
