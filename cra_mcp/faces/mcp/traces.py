"""Traces as MCP content: one page of stored lines, as JSON lines or as a table.

Rule: JSON lines are the stored bytes, or the view of an agent; where they are not text, they travel as a blob, since a replaced
character would make another trace of it. One answer stays under 512 KiB.
Source: specs/mcp.md, "Resources" and "The tool cra_trace".
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio.lowlevel
import anyio.to_thread
import mcp_types as t

from cra_mcp.errors import TraceError
from cra_mcp.faces.mcp import markdown, names
from cra_mcp.gate.attempt import limiter_of_loop
from cra_mcp.trace.event import Verification, parse
from cra_mcp.trace.summary import Summary, summarise
from cra_mcp.trace.view import read_view

MAX_ANSWER_BYTES = 524_288
MAX_EVENTS = 1_000
_MAX_READERS = 2
_KINDS = {
    (True, False): names.TRACE_JSONL,
    (True, True): names.TRACE_JSON,
    (False, False): names.TRACE_VIEW_JSONL,
    (False, True): names.TRACE_VIEW_JSON,
}
_readers: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_trace_readers")

T = TypeVar("T")


async def off_loop(read: Callable[[], T]) -> T:
    """Run what reads or verifies a whole trace in a worker, few at a time: a long trace must not hold up everybody's requests."""
    limiter = limiter_of_loop(_readers, _MAX_READERS)
    return await anyio.to_thread.run_sync(read, limiter=limiter, abandon_on_cancel=True)


class TraceSource(Protocol):
    """Who answers for traces: what one principal may see of the runtime."""

    @property
    def sees_all(self) -> bool:
        """Whether lines are as they are stored."""
        ...

    def read_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """Lines; raises UnknownTraceError."""
        ...

    def verify_chain(self, session_id: str) -> Verification:
        """The check of a whole chain; raises UnknownTraceError."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive stored lines of a chain.

    Attributes:
        start: position of the first line.
        more: whether the chain goes on after them.
        whole: they are as they are stored; otherwise the view of an agent.
    """

    session_id: str
    start: int
    lines: tuple[bytes, ...]
    more: bool
    whole: bool = True

    @property
    def last(self) -> int:
        """Position of the last line: ``after`` of the page that follows."""
        return self.start + len(self.lines) - 1


def read_page(source: TraceSource, session_id: str, *, after: int, limit: int) -> Page:
    """At most ``limit`` lines after a position, as many as one answer holds, and one at least if there is one.

    Raises:
        UnknownTraceError: there is no such trace.
    """
    limit = min(limit, MAX_EVENTS)
    lines = source.read_trace(session_id, after=after, limit=limit + 1)
    kept = _fitting(lines[:limit])
    return Page(session_id, max(after + 1, 0), kept, more=len(kept) < len(lines), whole=source.sees_all)


def last_page(source: TraceSource, session_id: str, *, limit: int) -> Page:
    """The newest lines. Raises as ``read_page``."""
    lines = source.read_trace(session_id)
    kept = _fitting(lines[::-1][: min(limit, MAX_EVENTS)])[::-1]
    return Page(session_id, len(lines) - len(kept), kept, more=False, whole=source.sees_all)


def _fitting(lines: Sequence[bytes]) -> tuple[bytes, ...]:
    size = 0
    for count, line in enumerate(lines):
        size += len(line) + 1
        if size > MAX_ANSWER_BYTES and count:
            return tuple(lines[:count])
    return tuple(lines)


def jsonl(
    page: Page, uri: str, meta: dict[str, Any] | None = None, *, one: bool = False
) -> t.TextResourceContents | t.BlobResourceContents:
    """The lines, each with its line feed; ``one``: a single line without."""
    end = b"" if one else b"\n"
    kind = _KINDS[page.whole, one]
    data = b"".join(line + end for line in page.lines)
    try:
        return t.TextResourceContents(uri=uri, mime_type=kind, text=data.decode(), _meta=meta)
    except UnicodeDecodeError:
        return t.BlobResourceContents(uri=uri, mime_type=kind, blob=base64.b64encode(data).decode(), _meta=meta)


def summaries(page: Page) -> list[Summary | str]:
    """What each line says; text where it is no event."""
    found: list[Summary | str] = []
    for line in page.lines:
        try:
            found.append(summarise(parse(line) if page.whole else read_view(line)))
        except TraceError as error:
            found.append(error.message)
    return found


def as_markdown(page: Page, check: Verification, rows: Sequence[Summary | str], *, rest: str | None) -> str:
    """A page as a table under its verdict; ``rest`` says how to get what follows."""
    fault = (check.bad_index, check.code) if check.bad_index is not None and check.code is not None else None
    parts = [f"Trace `{page.session_id}`. {markdown.verdict(check)}"]
    if rows:
        parts.append(markdown.table(rows, start=page.start, fault=fault).rstrip())
    if rest is not None:
        parts.append(rest)
    return "\n\n".join(parts) + "\n"
