"""``trace stats``: how many calls, decisions, denials, approvals and errors there were, and how long calls took."""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.faces.cli.moments import moment_of
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import emit, emit_json, say, table
from cra_mcp.faces.cli.stores import check_any, find_session, open_traces
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.statistics import Figures, Statistics
    from cra_mcp.trace.store import TraceStore

EXAMPLES = (
    "cra-mcp trace stats --all --since 7d",
    "cra-mcp trace stats --all --by hour",
    "cra-mcp trace stats 01a1fbca --by policy --json",
)

_BAR_CHARS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_PAGE = 5_000
_EVERY = 16
_MAX_KEY = 48


def stats(
    sessions: Annotated[
        list[str] | None, typer.Argument(metavar="[SESSION]...", help="Session ids, or beginnings, or `latest`.")
    ] = None,
    all_traces: Annotated[bool, typer.Option("--all", help="Every trace in the folder.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Events from then on: 24h, 7d, 2026-11-21 or 2026-11-21T08:00Z.")
    ] = None,
    by: Annotated[
        Literal["action", "agent", "policy", "decision", "hour"], typer.Option("--by", help="What to count by.")
    ] = "action",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Show at most so many groups; 0 shows all.")] = 50,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Count calls, decisions, denials, approvals and errors.

    ASKED, GRANTED and REFUSED are approvals; P50 and P95 are how long calls that were carried out took. By policy, calls are not
    counted but decisions, which name one. Counts come from the index where traces are in files; nothing is verified.
    """
    from cra_mcp.trace.statistics import Statistics  # noqa: PLC0415 - not for --help

    if all_traces and sessions:
        raise typer.BadParameter("goes without sessions", param_hint="--all")
    config = config_of(data_dir=data_dir, trace_dir=trace_dir, store=store)
    first = moment_of(since, "--since")
    chosen: list[str] | None = None
    if not all_traces:
        opened = open_traces(data_dir, trace_dir, store)
        chosen = [find_session(opened, name) for name in sessions or ["latest"]]
    counted = Statistics(by)
    if not _by_index(counted, config, chosen, first):
        counted = Statistics(by)
        _by_lines(counted, open_traces(data_dir, trace_dir, store), chosen, first)
    if all_traces and not counted.sessions:
        check_any(open_traces(data_dir, trace_dir, store).sessions(), config, "counted")
    groups = counted.groups()
    if as_json:
        emit_json(
            {
                "sessions": counted.sessions,
                "unreadable": counted.unreadable,
                "since": first,
                "by": by,
                "total": counted.total.to_dict(),
                "groups": [group.to_dict() for group in groups],
            }
        )
    else:
        shown = groups
        if limit:
            shown = groups[-limit:] if by == "hour" else groups[:limit]
        _print(counted, by, shown)
        if len(shown) < len(groups):
            say(f"{len(groups) - len(shown)} more not shown; --limit 0 shows all")


def _by_index(counted: "Statistics", config: "RuntimeConfig", chosen: Sequence[str] | None, first: str | None) -> bool:
    """Count by the index; False where there is none to be had."""
    from cra_mcp.compose import open_index  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.trace_search import follow  # noqa: PLC0415 - not for --help

    index = open_index(config)
    if index is None:
        return False
    try:
        follow(index)
        with index.reading() as connection:
            counted.count_index(connection, sessions=chosen, since=first)
    except TraceUnavailableError:  # someone else's folder, or a full disk: the traces can be read all the same
        return False
    finally:
        index.close()
    return True


def _by_lines(counted: "Statistics", store: "TraceStore", chosen: Sequence[str] | None, first: str | None) -> None:
    names = chosen if chosen is not None else [info.session_id for info in store.sessions()]
    shown = sys.stderr.isatty() and len(names) > _EVERY
    for number, name in enumerate(names):
        if shown and not number % _EVERY:
            sys.stderr.write(f"\r{number} of {len(names)} traces")
            sys.stderr.flush()
        counted.count_lines(_pages(store, name), since=first)
    if shown:
        sys.stderr.write("\r\x1b[K")


def _pages(store: "TraceStore", session_id: str) -> Iterator[bytes]:
    after = -1
    while lines := store.read(session_id, after=after, limit=_PAGE):
        yield from lines
        after += len(lines)


def _print(counted: "Statistics", by: str, groups: "Sequence[Figures]") -> None:
    from cra_mcp.trace.statistics import weight  # noqa: PLC0415 - not for --help

    total = counted.total
    emit(
        f"{count_of(counted.sessions, 'session')}, {count_of(total.events, 'event')}, {count_of(total.calls or 0, 'call')}: "
        f"{total.executed} executed, "
        f"{total.failed} failed, {total.denied} denied; {count_of(total.errors, 'error')}"
    )
    emit(f"approvals: {total.asked} asked for, {total.granted} granted, {total.refused} rejected or expired")
    emit(f"carried out in: {_ms(total.p50_ms) or '-'} (p50), {_ms(total.p95_ms) or '-'} (p95)")
    if counted.unreadable:
        emit(f"{count_of(counted.unreadable, 'line')} can't be read as events: see `cra-mcp trace verify --all`")
    if not groups:
        return
    emit("")
    most = max(map(weight, groups))
    head = (
        by.upper(),
        "CALLS",
        "DECIDED",
        "EXECUTED",
        "FAILED",
        "DENIED",
        "ASKED",
        "GRANTED",
        "REFUSED",
        "P50",
        "P95",
        "",
    )
    rows = [(*_cells(group), bar(weight(group), most)) for group in groups]
    told = [column for column in range(len(head)) if any(row[column] for row in rows)]
    table([head[column] for column in told], [[row[column] for column in told] for row in rows])


def _cells(group: "Figures") -> tuple[str, ...]:
    numbers = (
        group.calls,
        group.decided,
        group.executed,
        group.failed,
        group.denied,
        group.asked,
        group.granted,
        group.refused,
    )
    key = group.key or ""
    name = key if len(key) <= _MAX_KEY else f"{key[:_MAX_KEY]}…"
    return name, *("" if number is None else str(number) for number in numbers), _ms(group.p50_ms), _ms(group.p95_ms)


def bar(value: int, most: int) -> str:
    """A bar as long as ``value`` is beside ``most``: of blocks on a terminal that can show them, else of number signs."""
    if not most or not value:
        return ""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return "#" * max(1, round(_BAR_CHARS * value / most))
    whole, part = divmod(max(1, round(_BAR_CHARS * 8 * value / most)), 8)
    return "█" * whole + _EIGHTHS[part].strip()


def _ms(value: float | None) -> str:
    from cra_mcp.faces.cli.wording import duration  # noqa: PLC0415 - not for --help

    return "" if value is None else duration(value)
