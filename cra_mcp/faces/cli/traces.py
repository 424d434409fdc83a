"""``trace``: reading, following and checking traces."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import orjson
import typer

from cra_mcp.errors import UnknownTraceError
from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of, reporting
from cra_mcp.faces.cli.output import NO, OK, complain, emit, emit_json, paint, printable, say, table

if TYPE_CHECKING:
    from cra_mcp.trace.event import Event, Verification
    from cra_mcp.trace.store import TraceStore

app = typer.Typer(name="trace", help="Read, follow and verify traces.", no_args_is_help=True)

Session = Annotated[str, typer.Argument(help="Session id, the unique beginning of one, or `latest`.")]
_COLOURS = {
    "action.denied": "red",
    "action.failed": "red",
    "policy.violated": "red",
    "approval.rejected": "red",
    "action.executed": "green",
    "approval.requested": "yellow",
    "approval.granted": "green",
}
_POLL_S = 0.2


@app.command("list")
def list_traces(data_dir: DataDir = None, trace_dir: TraceDir = None, as_json: AsJson = False) -> None:
    """List traces, the most recently written first.

    Examples:

      cra-mcp trace list

      cra-mcp trace list --trace-dir ./traces --json
    """
    with reporting():
        found = _store(data_dir, trace_dir).sessions()
    if as_json:
        emit_json(
            {
                "sessions": [
                    {"session_id": i.session_id, "modified": i.modified, "size_bytes": i.size_bytes, "live": i.live}
                    for i in found
                ]
            }
        )
        return
    rows = [(info.session_id, info.modified, str(info.size_bytes), "live" if info.live else "") for info in found]
    table(("SESSION", "LAST WRITTEN", "BYTES", ""), rows)
    if not found:
        say("no traces here yet")


@app.command()
def show(
    session: Session = "latest", data_dir: DataDir = None, trace_dir: TraceDir = None, as_json: AsJson = False
) -> None:
    """Show the events of a session. With --json: the stored lines, exactly as they were hashed.

    Examples:

      cra-mcp trace show latest

      cra-mcp trace show 01a1fbca --json
    """
    with reporting():
        store = _store(data_dir, trace_dir)
        lines = store.read(_find(store, session))
        if as_json:
            for line in lines:
                emit(line.decode())
            return
        print_trace(lines)


@app.command()
def tail(
    session: Session = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until interrupted.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last events to begin with.")] = 10,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the last events of a session, and with -f each new one.

    Examples:

      cra-mcp trace tail -f

      cra-mcp trace tail 01a1fbca -n 50 --json
    """
    with reporting():
        store = _store(data_dir, trace_dir)
        session_id = _find(store, session)
        found = store.read(session_id)
        after = len(found) - 1
        _print_events(found[max(0, len(found) - lines) :], as_json=as_json)
        while follow:
            time.sleep(_POLL_S)
            fresh = store.read(session_id, after=after)
            after += len(fresh)
            _print_events(fresh, as_json=as_json)
            if any(event.event_type == "session.ended" for event in _parsed(fresh)):
                return


@app.command("verify")
def verify_traces(
    sessions: Annotated[
        list[str] | None, typer.Argument(help="Session ids (or beginnings, or `latest`), or .trace.jsonl files.")
    ] = None,
    all_traces: Annotated[bool, typer.Option("--all", help="Every trace in the folder.")] = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Check hash chains; the first bad event is named. Exit code 1 if one does not hold.

    A chain that holds shows that nothing in it was edited, removed or moved. It can't show that its end was cut off or that all
    of it was written anew: compare the head with one kept elsewhere.

    Examples:

      cra-mcp trace verify latest

      cra-mcp trace verify --all --json

      cra-mcp trace verify ./copy.trace.jsonl
    """
    with reporting():
        store = _store(data_dir, trace_dir)
        names = [info.session_id for info in store.sessions()] if all_traces else list(sessions or ["latest"])
        checks = [(name, _verify(store, name)) for name in names]
    if as_json:
        emit_json(
            {"ok": all(check.ok for _, check in checks), "traces": [{"trace": n, **c.to_dict()} for n, c in checks]}
        )
    else:
        for name, check in checks:
            _tell(name, check)
    raise typer.Exit(OK if all(check.ok for _, check in checks) else NO)


@app.command()
def recover(session: Session, data_dir: DataDir = None, trace_dir: TraceDir = None, as_json: AsJson = False) -> None:
    """Keep the longest valid prefix of a trace that was cut off; what follows it is set aside, not deleted.

    Examples:

      cra-mcp trace recover 01a1fbca
    """
    with reporting():
        store = _store(data_dir, trace_dir)
        done = store.recover(_find(store, session))
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
        say(f"nothing to do: all {done.kept} events are whole")
    else:
        say(f"kept {done.kept} events; {done.set_aside_bytes} bytes set aside in {done.set_aside_to} ({done.code})")


def print_trace(lines: Iterable[bytes]) -> None:
    """Give the events of stored lines as a table."""
    table(("SEQ", "TIME", "EVENT", "ACTION", "DETAIL"), map(_row, _parsed(lines)), colours=_COLOURS)


def _parsed(lines: Iterable[bytes]) -> "Iterable[Event]":
    from cra_mcp.trace.event import parse  # noqa: PLC0415 - not for --help

    return map(parse, lines)


def _store(data_dir: Path | None, trace_dir: Path | None) -> "TraceStore":
    from cra_mcp.compose import open_store  # noqa: PLC0415 - not for --help

    return open_store(config_of(data_dir=data_dir, trace_dir=trace_dir))


def _find(store: "TraceStore", text: str) -> str:
    found = [info.session_id for info in store.sessions()]
    if text == "latest" and found:
        return found[0]
    matching = [session_id for session_id in found if session_id.startswith(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UnknownTraceError(f"{len(matching)} traces begin with {text}", hint="give more of the id")
    what = "there are no traces here" if text == "latest" else f"no trace begins with {text[:80]!r}"
    raise UnknownTraceError(what, hint="see `cra-mcp trace list`; --data-dir and --trace-dir say where to look")


def _verify(store: "TraceStore", name: str) -> "Verification":
    from cra_mcp.trace.event import split_lines, verify  # noqa: PLC0415 - not for --help

    path = Path(name)
    if name.endswith(".jsonl") or path.is_file():
        try:
            lines, rest = split_lines(path.read_bytes())
        except OSError as error:
            raise UnknownTraceError(f"can't read {name}: {error.strerror}") from None
        return verify(lines, tail=rest)
    session_id = _find(store, name)
    return verify(store.read(session_id), session_id=session_id, tail=store.unfinished(session_id))


def _tell(name: str, check: "Verification") -> None:
    if check.ok:
        head = check.head.event_hash if check.head is not None else "-"
        emit(f"{paint('ok', 'green')}  {name}  {check.events} events, head {head}")
        return
    emit(f"{paint('BROKEN', 'red')}  {name}  event {check.bad_index}: {check.code}")
    complain(f"{name}: {check.message} (event {check.bad_index}, {check.code})")


def _print_events(lines: Iterable[bytes], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            emit(line.decode())
            continue
        (cells,) = map(_row, _parsed([line]))
        emit("  ".join((cells[0].rjust(4), cells[1], cells[2].ljust(26), cells[3].ljust(20), cells[4])).rstrip())


def _row(event: "Event") -> tuple[str, str, str, str, str]:
    payload = cast("Mapping[str, Any]", event.payload)
    return (
        str(event.sequence),
        event.timestamp[11:23],
        event.event_type,
        printable(str(payload.get("action_id", "")))[:40],
        printable(_detail(event.event_type, payload))[:100],
    )


def _detail(event_type: str, payload: Mapping[str, Any]) -> str:
    """The part of an event a person looks for."""
    tell = _DETAILS.get(event_type)
    if tell is not None:
        return tell(payload)
    if event_type.startswith("approval."):
        by = f" by {payload['by']} over {payload['channel']} ({payload['grade']})" if payload.get("by") else ""
        return f"{payload.get('approval_id')}{by}"
    return next((str(payload[key]) for key in _TELLING if key in payload), "")


_TELLING = ("goal", "reason", "block_id", "error_code", "atlas_id", "digest")
_DETAILS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "action.requested": lambda payload: orjson.dumps(payload.get("parameters")).decode(),
    "policy.evaluated": lambda payload: f"{payload.get('result')} by {payload.get('policy_id')}",
    "policy.violated": lambda payload: f"{payload.get('policy_id')}: {payload.get('violation_type')}",
    "action.denied": lambda payload: f"{payload.get('policy_id')}: {payload.get('reason')}",
    "action.executed": lambda payload: f"{payload.get('duration_ms')} ms, {payload.get('result_bytes')} bytes",
    "action.failed": lambda payload: f"{payload.get('error_code')}: {payload.get('error_message')}",
    "carp.resolution.completed": lambda payload: (
        f"{payload.get('decision_type')}: {payload.get('allowed_count')} allowed, {payload.get('denied_count')} denied"
    ),
}
