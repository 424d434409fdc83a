"""Traces as Markdown tables, for hosts that show text.

Rule: nothing a trace says can become markup, break its cell, or be invisible. What agents and tools wrote stands in code spans,
in which no Markdown, HTML or link exists; the characters that could leave one, and those nobody would see, are written
as escapes. Source: CommonMark 0.31, "Code spans"; GitHub Flavored Markdown, "Tables"; Unicode, general categories.
"""

from collections.abc import Iterable

from cra_mcp.trace.event import Verification
from cra_mcp.trace.summary import Summary
from cra_mcp.words import count_of, visible

_MAX_CELL = 80
_CUT = "…"
# The pipe ends a cell even in code, the backtick ends code, the backslash escapes either in some readers.
_MARKUP = frozenset("|`\\")

Fault = tuple[int, str]
"""Position of the first bad event, and its code."""


def table(rows: Iterable[Summary | str], *, start: int, fault: Fault | None = None) -> str:
    """Events as one table: sequence, time, event, action, decision, policy, duration.

    Args:
        rows: in order; text in place of an event says why it can't be read.
        start: position of the first row in its chain.
        fault: marks the row at that position.
    """
    lines = ["| # | time (UTC) | event | action | decision | policy | ms |", "|--:|---|---|---|---|---|--:|"]
    for position, row in enumerate(rows, start):
        bad = fault[1] if fault is not None and fault[0] == position else None
        lines.append(f"| {' | '.join(_cells(row, position, bad))} |")
    return "\n".join(lines) + "\n"


def verdict(check: Verification) -> str:
    """One line that says whether the chain holds."""
    events = count_of(check.events, "event")
    if check.ok:
        return f"Chain intact: {events}" + (f", head `{check.head.event_hash}`." if check.head is not None else ".")
    return f"**Chain broken at event {check.bad_index}: {check.code}** ({events} good before it)."


def code(text: str) -> str:
    """``text`` as a code span that fits a table cell; empty text stays empty."""
    shown = visible(text[: _MAX_CELL * 4], _MARKUP)
    if len(shown) > _MAX_CELL:
        shown = shown[: _MAX_CELL - 1] + _CUT
    # A code span gives up one space at each end; a text of spaces alone would vanish.
    return f"`{shown}`" if shown.strip() == shown else f"` {shown} `" if shown.strip() else ""


def _cells(row: Summary | str, position: int, bad: str | None) -> tuple[str, ...]:
    flag = f"✗ {bad}" if bad is not None else ""
    if isinstance(row, str):
        return (str(position), "", "unreadable", code(row), flag or "✗ malformed_event", "", "")
    duration = "" if row.duration_ms is None else f"{row.duration_ms:.10g}"
    return (
        str(row.sequence),
        row.timestamp.removesuffix("Z").replace("T", " "),
        code(row.event_type),
        code(row.action_id or ""),
        flag or row.decision or "",
        code(row.policy_id or ""),
        duration,
    )
