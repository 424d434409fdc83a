"""The control tool ``cra_trace``: a trace for hosts that don't read resources, and the anchor of the trace page.

Rule: it reads, and records nothing. A model may be on the other end: it gets what its principal may see, like any reader.
Source: specs/mcp.md, "The tool cra_trace".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import mcp_types as t

from cra_mcp.errors import UnknownTraceError
from cra_mcp.faces.mcp import app, traces
from cra_mcp.faces.mcp.control_tool import ControlTool, Later
from cra_mcp.faces.mcp.sessions import Caller
from cra_mcp.trace.event import Verification
from cra_mcp.trace.summary import Summary

NAME = "cra_trace"
TITLE = "Show trace"
_DEFAULT_LIMIT = 20
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 0}

TOOL = t.Tool(
    name=NAME,
    title=TITLE,
    description=(
        "Show what was recorded in a governed session, and whether the record is intact: each call, what policy decided, "
        "and what became of it. Changes nothing."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "session_id": {"type": "string", "maxLength": 36, "description": "Which session. Default: this one."},
            "after": {
                "type": "integer",
                "minimum": -1,
                "maximum": 2**53 - 1,
                "description": "Show what follows this event; -1: from the start. Default: the newest events.",
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": traces.MAX_EVENTS,
                "description": f"How many events at most. Default: {_DEFAULT_LIMIT}.",
            },
            "format": {
                "type": "string",
                "enum": ["table", "jsonl"],
                "description": "A table (the default), or the events as JSON lines.",
            },
        },
        "required": [],
        "additionalProperties": False,
    },
    output_schema={
        "type": "object",
        "properties": {
            "session_id": {"type": "string"},
            "trace": {"type": "string", "description": "URI of the resource with all events."},
            "verification": {
                "type": "object",
                "description": "The server's, of the whole stored chain. bad_index and code name the first bad or missing event.",
                "properties": {
                    "ok": {"type": "boolean"},
                    "events": {**_COUNT, "description": "Good events from the start."},
                    "head": {
                        "type": ["object", "null"],
                        "properties": {"sequence": _COUNT, "event_hash": _HASH, "timestamp": {"type": "string"}},
                        "required": ["sequence", "event_hash", "timestamp"],
                    },
                    "bad_index": {"type": ["integer", "null"]},
                    "code": {"type": ["string", "null"]},
                    "message": {"type": ["string", "null"]},
                },
                "required": ["ok", "events", "head", "bad_index", "code", "message"],
            },
            "events": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "sequence": _COUNT,
                        "timestamp": {"type": ["string", "null"]},
                        "event_type": {"type": "string", "description": "unreadable where the line is no event"},
                        "action_id": {"type": ["string", "null"]},
                        "decision": {"type": ["string", "null"], "enum": ["allow", "deny", "approval", "error", None]},
                        "policy_id": {"type": ["string", "null"]},
                        "duration_ms": {"type": ["number", "null"]},
                    },
                    "required": [
                        "sequence",
                        "timestamp",
                        "event_type",
                        "action_id",
                        "decision",
                        "policy_id",
                        "duration_ms",
                    ],
                },
            },
            "next": {
                "type": ["integer", "null"],
                "description": "`after` for the events that follow; null at the end.",
            },
        },
        "required": ["session_id", "trace", "verification", "events", "next"],
    },
    annotations=t.ToolAnnotations(
        title=TITLE, read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    ),
    _meta={"ui": {"resourceUri": app.URI, "visibility": ["model", "app"]}},
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A call of the tool that may be answered; ``answer`` reads and verifies, which takes long for a long trace."""

    source: traces.TraceSource
    session_id: str
    after: int | None
    limit: int
    as_lines: bool

    def answer(self) -> t.CallToolResult:
        """The trace that was asked for.

        Raises:
            UnknownTraceError: there is no such trace for the caller.
        """
        if self.after is None and not self.as_lines:
            page = traces.last_page(self.source, self.session_id, limit=self.limit)
        else:
            after = -1 if self.after is None else self.after
            page = traces.read_page(self.source, self.session_id, after=after, limit=self.limit)
        check = self.source.verify_chain(self.session_id)
        rows = traces.summaries(page)
        return t.CallToolResult(
            content=_lines(page) if self.as_lines else [t.TextContent(type="text", text=_table(page, check, rows))],
            structured_content=_structured(page, check, rows),
        )


def trace_tool() -> ControlTool:
    """The tool of this module."""
    return ControlTool(TOOL, _run, "read_own")


def _run(caller: Caller, arguments: Mapping[str, Any]) -> Later:
    """What was asked for; the arguments fit ``TOOL.input_schema``.

    Raises:
        UnknownTraceError: no session was named, and none is active.
    """
    reading = Reading(
        source=caller.access,
        session_id=cast("str", arguments.get("session_id") or _current(caller)),
        after=cast("int | None", arguments.get("after")),
        limit=cast("int", arguments.get("limit", _DEFAULT_LIMIT)),
        as_lines=arguments.get("format") == "jsonl",
    )
    return Later(reading.answer, reads=True)


def _current(caller: Caller) -> str:
    session = caller.sessions.active()
    if session is None:
        raise UnknownTraceError("no session is active", hint="give session_id; cra://sessions lists those there are")
    return session.session_id


def _table(page: traces.Page, check: Verification, rows: Sequence[Summary | str]) -> str:
    rest = None
    if page.more:
        rest = f"More: call {NAME} with after {page.last}, session_id {page.session_id}."
    elif page.start:
        rest = f"The newest {len(page.lines)}; from the start: call {NAME} with after -1."
    return traces.as_markdown(page, check, rows, rest=rest)


def _lines(page: traces.Page) -> list[t.ContentBlock]:
    content = traces.jsonl(page, f"cra://trace/{page.session_id}")
    if isinstance(content, t.TextResourceContents):
        return [t.TextContent(type="text", text=content.text)]
    return [t.EmbeddedResource(type="resource", resource=content)]


def _structured(page: traces.Page, check: Verification, rows: Sequence[Summary | str]) -> dict[str, Any]:
    return {
        "session_id": page.session_id,
        "trace": f"cra://trace/{page.session_id}",
        "verification": check.to_dict(),
        "events": [_row(row, position) for position, row in enumerate(rows, page.start)],
        "next": page.last if page.more else None,
    }


def _row(row: Summary | str, position: int) -> dict[str, object]:
    if isinstance(row, Summary):
        return asdict(row)
    return {
        "sequence": position,
        "timestamp": None,
        "event_type": "unreadable",
        "action_id": None,
        "decision": None,
        "policy_id": None,
        "duration_ms": None,
    }
