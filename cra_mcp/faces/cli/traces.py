"""``trace``: reading and following traces."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import SettingsError, TraceError, TraceUnavailableError
from cra_mcp.faces.cli.exits import CODES, NO, epilog
from cra_mcp.faces.cli.options import AsJson, DataDir, GroupHelp, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit, emit_json, emit_line, flush, paint, say, table
from cra_mcp.faces.cli.stores import find_session, open_traces
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.store import TraceInfo, TraceStore

app = typer.Typer(name="trace", no_args_is_help=True)

SessionId = Annotated[
    str,
    typer.Argument(metavar="SESSION", help="Id of the session, a beginning of it that no other has, or `latest`."),
]

_POLL_S = 0.2
_PREFIX_CHARS = len("01a1fbca-d011-720e")  # the time it began, and enough chance to tell it from others of that moment


@app.callback(epilog=CODES)
def _group(_help: GroupHelp = False) -> None:
    """Read, follow and verify traces."""


@app.command("list", epilog=epilog("cra-mcp trace list", "cra-mcp trace list --trace-dir ./traces --json"))
def list_traces(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="List at most so many; 0 lists all.")] = 50,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List traces, the last written first."""
    config = config_of(data_dir=data_dir, trace_dir=trace_dir, store=store)
    listed = _indexed(config, limit)
    entries, total = listed if listed is not None else _scanned(config, limit)
    if as_json:
        emit_json({"sessions": entries, "total": total})
    elif entries:
        rows = [
            (
                str(entry["session_id"]),
                str(entry["modified"])[:19] + "Z",
                "live" if entry["live"] else "",
                str(entry["agent_id"] or "?"),
                str(entry["goal"] or ""),
            )
            for entry in entries
        ]
        table(("SESSION", "LAST WRITTEN", "", "AGENT", "GOAL"), rows, colours={"live": "green"})
    else:
        say("no traces here yet; --data-dir and --trace-dir say where to look")
    if total > len(entries):
        say(f"{total - len(entries)} older ones not listed; --limit 0 lists all")


def _indexed(config: "RuntimeConfig", limit: int) -> "tuple[list[dict[str, object]], int] | None":
    """What the index says, and how many there are; None where there is no index to be had."""
    from cra_mcp.compose import open_index  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.trace_search import follow  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.search import count_sessions, list_sessions  # noqa: PLC0415 - not for --help

    index = open_index(config)
    if index is None:
        return None
    try:
        follow(index)
        with index.reading() as connection:
            listed, total = list_sessions(connection, limit=limit or -1), count_sessions(connection)
        entries: list[dict[str, object]] = [
            {
                "session_id": each.session_id,
                "modified": each.modified,
                "size_bytes": each.size_bytes,
                "live": index.is_live(each.session_id),
                "agent_id": each.agent_id,
                "goal": each.goal,
            }
            for each in listed
        ]
    except TraceUnavailableError:  # someone else's folder, or a full disk: the traces can be read all the same
        return None
    finally:
        index.close()
    return entries, total


def _scanned(config: "RuntimeConfig", limit: int) -> "tuple[list[dict[str, object]], int]":
    """What the traces themselves say, and how many there are."""
    from cra_mcp.compose import open_store  # noqa: PLC0415 - not for --help

    traces = open_store(config)
    found = traces.sessions()
    return [_entry(traces, info) for info in found[: limit or None]], len(found)


def _entry(store: "TraceStore", info: "TraceInfo") -> dict[str, object]:
    """A trace with what its first event says of it, if that can be read."""
    from cra_mcp.trace.event import parse  # noqa: PLC0415 - not for --help

    payload: Mapping[str, object] = {}
    with suppress(TraceError):
        for line in store.read(info.session_id, limit=1):
            payload = parse(line).payload
    return {
        "session_id": info.session_id,
        "modified": info.modified,
        "size_bytes": info.size_bytes,
        "live": info.live,
        "agent_id": payload.get("agent_id"),
        "goal": payload.get("goal"),
    }


@app.command(
    epilog=epilog(
        "cra-mcp trace show",
        "cra-mcp trace show 01a1fbca --events",
        "cra-mcp trace show 01a1fbca --json | jq .event_type",
    )
)
def show(
    session: SessionId = "latest",
    events: Annotated[bool, typer.Option("--events", help="A table of all events instead.")] = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Tell what happened in a session.

    What was asked for, and each call made under the answer: the decision and its policy, who approved, what became of it and how
    long it took; #3-6 are the events that say so. With --json: the stored lines, byte for byte as they were hashed. An event that
    can't be read is shown as such, with exit code 1; `verify` says what is wrong.
    """
    traces = open_traces(data_dir, trace_dir, store)
    session_id = find_session(traces, session)
    lines = traces.read(session_id)
    if as_json:
        for line in lines:
            emit_line(line)
        return
    unreadable = _table(lines) if events else _tell(session_id, lines, data_dir, trace_dir)
    if unreadable:
        complain(f"{count_of(unreadable, 'event')} can't be read", f"see `cra-mcp trace verify {session_id}`")
        raise typer.Exit(NO)


def _table(lines: Sequence[bytes]) -> int:
    """All events (stdout); how many can't be read."""
    from cra_mcp.faces.cli.events import COLOURS, HEAD, rows  # noqa: PLC0415 - not for --help

    cells = list(rows(lines))
    table(HEAD, cells, colours=COLOURS)
    return sum(row[0] == "?" for row in cells)


def _tell(session_id: str, lines: Sequence[bytes], data_dir: Path | None, trace_dir: Path | None) -> int:
    """The story (stdout); how many events can't be read."""
    from cra_mcp.faces.cli.kept_atlases import KeptAtlases  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.telling import print_story  # noqa: PLC0415 - not for --help

    return print_story(session_id, lines, KeptAtlases(config_of(data_dir=data_dir, trace_dir=trace_dir).trace_path))


@app.command(
    epilog=epilog("cra-mcp trace tail -f", "cra-mcp trace tail -f --all", "cra-mcp trace tail 01a1fbca -n 50 --json")
)
def tail(
    session: SessionId = "latest",
    all_traces: Annotated[
        bool, typer.Option("--all", help="Of all sessions in the folder, new ones too, by time.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more, until the session ends or Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last events to begin with.")] = 10,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show the last events, and with -f each new one.

    With --all: of all sessions, each event behind the beginning of its session's id.
    """
    if all_traces:
        if session != "latest":
            raise typer.BadParameter("goes without a session", param_hint="--all")
        _tail_all(config_of(data_dir=data_dir, trace_dir=trace_dir, store=store), lines, follow=follow, as_json=as_json)
        return
    traces = open_traces(data_dir, trace_dir, store)
    session_id = find_session(traces, session)
    fresh = traces.read(session_id)
    seen = len(fresh)
    _print(fresh[max(0, seen - lines) :], as_json=as_json)
    while follow and not _has_ended(fresh):
        time.sleep(_POLL_S)
        head = traces.head(session_id)  # reads the end of a file only
        fresh = traces.read(session_id, after=seen - 1) if head is not None and head.sequence >= seen else []
        seen += len(fresh)
        _print(fresh, as_json=as_json)


def _tail_all(config: "RuntimeConfig", lines: int, *, follow: bool, as_json: bool) -> None:
    from cra_mcp.faces.cli.events import text_of  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.following import Follower  # noqa: PLC0415 - not for --help

    if config.store != "file":
        raise SettingsError("only traces in files are followed together", hint="name a session, or unset CRA_STORE")
    follower = Follower(config.trace_path)
    grown = follower.last(lines)
    while True:
        for each in grown:
            if as_json:
                emit_line(each.line)
            else:
                emit(f"{paint(each.session_id[:_PREFIX_CHARS], 'dim')}  {text_of(each.line)}")
        if grown:
            flush()
        if not follow:
            return
        time.sleep(_POLL_S)
        grown = follower.poll()


def _print(lines: Sequence[bytes], *, as_json: bool) -> None:
    from cra_mcp.faces.cli.events import text_of  # noqa: PLC0415 - not for --help

    for line in lines:
        if as_json:
            emit_line(line)
        else:
            emit(text_of(line))
    flush()


def _has_ended(lines: Sequence[bytes]) -> bool:
    return bool(lines) and b'"event_type":"session.ended"' in lines[-1]


@app.command(epilog=epilog("cra-mcp trace recover 01a1fbca"))
def recover(
    session: SessionId,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Set aside what follows the longest valid prefix.

    For a trace whose last write was cut off. Nothing is deleted; a trace that is being written is left alone.
    """
    traces = open_traces(data_dir, trace_dir, store)
    done = traces.recover(find_session(traces, session))
    if as_json:
        emit_json(
            {
                "session_id": done.session_id,
                "kept": done.kept,
                "set_aside_bytes": done.set_aside_bytes,
                "set_aside_to": done.set_aside_to,
                "code": done.code,
            }
        )
    elif done.set_aside_to is None:
        say(f"nothing to do: {count_of(done.kept, 'event')}, all whole")
    else:
        say(
            f"kept {count_of(done.kept, 'event')}; {count_of(done.set_aside_bytes, 'byte')} set aside in {done.set_aside_to} "
            f"({done.code})"
        )
