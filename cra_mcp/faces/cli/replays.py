"""``replay`` and ``trace diff``: past decisions made again, by the same policies or by others."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cra_mcp.errors import TraceError
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit, emit_json, paint, printable, say, table
from cra_mcp.faces.cli.stores import check_any, find_session, open_traces
from cra_mcp.folders import read_regular
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.atlas.model import Atlas
    from cra_mcp.atlas.overlay import Overlay
    from cra_mcp.atlas.registry import Catalogue
    from cra_mcp.replay.again import Replayed
    from cra_mcp.replay.library import Source
    from cra_mcp.replay.recorded import RecordedSession
    from cra_mcp.replay.whatif import Changed, Tally
    from cra_mcp.trace.store import TraceStore

REPLAY_EXAMPLES = (
    "cra-mcp replay latest",
    "cra-mcp replay --all --json",
    "cra-mcp replay --all --policy ./my-atlas-with-other-policies",
)
DIFF_EXAMPLES = (
    "cra-mcp trace diff 01a1fbca 01a1fbd0",
    "cra-mcp trace diff before.trace.jsonl after.trace.jsonl --json",
)

T = TypeVar("T")

_SHOWN = 20
_EVERY = 16
_UUID_TIME_CHARS = 13


def replay(
    traces: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SESSION|FILE]...", help="Session ids (or beginnings, or `latest`), or files."),
    ] = None,
    all_traces: Annotated[bool, typer.Option("--all", help="Every trace in the folder.")] = False,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="PATH",
            help="An atlas, to decide by in the place of the one of its id; or an operator's policy file. Can be repeated.",
        ),
    ] = None,
    atlases: Annotated[
        list[str] | None,
        typer.Option(
            "--atlas", metavar="PATH", help="An atlas that a trace names, where no copy was kept. Can be repeated."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Show at most so many calls; 0 shows all.")
    ] = _SHOWN,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make past decisions again, and say where they differ.

    Without --policy: by the atlases a trace names, which are kept beside it; the first event that says otherwise is named. With
    --policy: which past calls would now be decided otherwise. Exit code 1 if anything differs.
    """
    opened = open_traces(data_dir, trace_dir, store)
    names = [info.session_id for info in opened.sessions()] if all_traces else list(traces or ["latest"])
    config = config_of(data_dir=data_dir, trace_dir=trace_dir, store=store)
    check_any(names, config, "replayed")
    source = _Given(config.trace_path, atlases or [])
    if policies:
        raise typer.Exit(_what_if(opened, names, source, policies, limit, as_json=as_json))
    raise typer.Exit(_again(opened, names, source, as_json=as_json))


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A session id, a beginning of one, `latest`, or a file.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same.")],
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two traces.

    Ids, times and durations don't count. A difference in what was asked, decided or done is breaking; others are minor. Exit
    code 1 if there is a breaking one.
    """
    from cra_mcp.replay.diff import diff as differences  # noqa: PLC0415 - not for --help

    opened = open_traces(data_dir, trace_dir, store)
    found = differences(_lines(opened, old), _lines(opened, new))
    breaking = sum(each.weight == "breaking" for each in found)
    if as_json:
        emit_json(
            {"breaking": breaking, "minor": len(found) - breaking, "differences": [each.to_dict() for each in found]}
        )
    else:
        rows = [
            (
                each.weight,
                _place(each.old_sequence),
                _place(each.new_sequence),
                each.step,
                each.what,
                _short(each.old),
                _short(each.new),
            )
            for each in found
        ]
        if rows:
            table(("", "OLD", "NEW", "STEP", "WHAT", "WAS", "IS"), rows, colours={"breaking": "red", "minor": "dim"})
        say(f"{breaking} breaking, {len(found) - breaking} minor")
    raise typer.Exit(NO if breaking else OK)


def _again(store: "TraceStore", names: Sequence[str], source: "Source", *, as_json: bool) -> int:
    from cra_mcp.replay.again import replay as again  # noqa: PLC0415 - not for --help
    from cra_mcp.replay.library import Library  # noqa: PLC0415 - not for --help

    library = Library(source)
    results: list[tuple[str, Replayed | TraceError]] = []
    for name in _progress(names):
        try:
            results.append((name, again(_session(store, name, checked=True), library)))
        except TraceError as error:
            results.append((name, error))
    ok = all(not isinstance(result, TraceError) and result.ok for _, result in results)
    if as_json:
        emit_json({"ok": ok, "traces": [_as_json(name, result) for name, result in results]})
    else:
        for name, result in results:
            _tell(name, result)
    return OK if ok else NO


def _as_json(name: str, result: "Replayed | TraceError") -> dict[str, object]:
    if isinstance(result, TraceError):
        return {"trace": name, "ok": False, "error": {"code": result.code, "message": result.message}}
    return {"trace": name, **result.to_dict()}


def _tell(name: str, result: "Replayed | TraceError") -> None:
    name = printable(name)
    if isinstance(result, TraceError):
        emit(f"{paint('not replayed', 'red')}  {name}")
        complain(f"{name}: {result.message} [{result.code}]", result.hint)
        return
    counts = f"{count_of(result.resolutions, 'resolution')}, {count_of(result.decisions, 'decision')}"
    if result.assumed:
        counts += f", {result.assumed} of them resting on limits that other sessions share"
    if result.undetermined:
        counts += f"; {result.undetermined} read arguments that the trace doesn't hold"
    if result.ok:
        emit(f"{paint('same', 'green')}  {name}  {counts}")
        return
    emit(f"{paint('DIFFERENT', 'red')}  {name}  {counts}")
    first = result.divergences[0]
    what = f"the call of {first.action_id}" if first.action_id is not None else "a resolution"
    complain(
        f"{name}: event {first.sequence}: {what} was recorded as {_short(first.recorded)}, and is {_short(first.recomputed)}"
        + (f"; {len(result.divergences) - 1} more" if len(result.divergences) > 1 else "")
    )


def _what_if(
    store: "TraceStore", names: Sequence[str], source: "Source", policies: Sequence[str], limit: int, *, as_json: bool
) -> int:
    from cra_mcp.replay.library import Library  # noqa: PLC0415 - not for --help
    from cra_mcp.replay.whatif import Tally, what_if  # noqa: PLC0415 - not for --help

    tally = Tally()
    sources = _sources(store, names)
    changes: list[Changed] = []
    for change in what_if(sources, Library(source, _reviser(policies)), tally):
        if not limit or len(changes) < limit:
            changes.append(change)
    if as_json:
        emit_json({**tally.to_dict(), "calls_changed": [change.to_dict() for change in changes]})
    else:
        _tell_changes(changes, tally)
    return NO if tally.changed else OK


def _tell_changes(changes: "Sequence[Changed]", tally: "Tally") -> None:
    rows = [
        (
            change.session_id,
            str(change.sequence),
            change.agent_id,
            change.action_id,
            f"{change.was} -> {change.now}",
            change.now_policy,
        )
        for change in changes
    ]
    if rows:
        table(("SESSION", "EVENT", "AGENT", "ACTION", "CHANGE", "POLICY"), rows)
    if tally.changed > len(changes):
        say(f"{tally.changed - len(changes)} more not shown; --limit 0 shows all")
    for title, counts in (("change", tally.by_change), ("policy", tally.by_policy), ("agent", tally.by_agent)):
        for name, count in counts.most_common(_SHOWN):
            say(f"by {title}: {printable(name)}: {count}")
    say(
        f"{tally.changed} of {count_of(tally.calls, 'call')} in {count_of(tally.sessions, 'session')} would be decided otherwise"
        + (f"; {tally.undetermined} read arguments that their trace doesn't hold" if tally.undetermined else "")
    )


def _sources(store: "TraceStore", names: Sequence[str]) -> "Iterator[tuple[int, Callable[[], RecordedSession]]]":
    """Traces by the time in their id, which is before their first event, so that only those that overlap are read at once."""
    timed = sorted(
        (_born_us(name), name) for name in (name if _is_file(name) else find_session(store, name) for name in names)
    )
    for born_us, name in _progress(timed):
        yield born_us, lambda name=name: _session(store, name, checked=False)


def _born_us(name: str) -> int:
    """Microseconds since the epoch in a UUIDv7; 0 for a file, which is read at once."""
    if _is_file(name):
        return 0
    return int(name[:_UUID_TIME_CHARS].replace("-", ""), 16) * 1_000


def _session(store: "TraceStore", name: str, *, checked: bool) -> "RecordedSession":
    """A trace as it was recorded; ``checked``: only if its chain holds.

    Raises:
        TraceError: it can't be read, doesn't hold, or can't be replayed.
    """
    from cra_mcp.replay.reading import read_session  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.event import verify  # noqa: PLC0415 - not for --help

    lines = _lines(store, name)
    if checked:
        check = verify(lines)
        if not check.ok:
            raise TraceError(
                f"event {check.bad_index}: {check.message}",
                code=check.code or "malformed_event",
                hint="see `cra-mcp trace verify`",
            )
    return read_session(lines)


def _lines(store: "TraceStore", name: str) -> list[bytes]:
    from cra_mcp.trace.event import split_lines  # noqa: PLC0415 - not for --help

    return split_lines(read_regular(Path(name)))[0] if _is_file(name) else store.read(find_session(store, name))


def _is_file(name: str) -> bool:
    return name.endswith(".jsonl") or Path(name).is_file()


class _Given:
    """Atlases and policy files named on the command line, then those kept beside the traces."""

    def __init__(self, trace_path: Path, paths: Sequence[str]) -> None:
        from cra_mcp.atlas.archive import FOLDER, AtlasArchive  # noqa: PLC0415 - not for --help
        from cra_mcp.atlas.overlay import Overlay  # noqa: PLC0415 - likewise

        loaded = [_load(text) for text in paths]
        self._overlays = {each.digest: each for each in loaded if isinstance(each, Overlay)}
        self._atlases = {each.digest: each for each in loaded if not isinstance(each, Overlay)}
        self._archive = AtlasArchive(trace_path / FOLDER)

    def load(self, digest: str) -> "Atlas | None":
        """See ``Source``."""
        return self._atlases.get(digest) or self._archive.load(digest)

    def load_overlay(self, digest: str) -> "Overlay | None":
        """See ``Source``."""
        return self._overlays.get(digest) or self._archive.load_overlay(digest)


def _reviser(policies: Sequence[str]) -> "Callable[[Catalogue], Catalogue]":
    from cra_mcp.atlas.overlay import Overlay  # noqa: PLC0415 - not for --help

    revised = [_load(text) for text in policies]

    def revise(catalogue: "Catalogue") -> "Catalogue":
        for each in revised:
            if isinstance(each, Overlay):
                catalogue = catalogue.with_replaced_overlay(each)
            elif catalogue.get(each.atlas_id) is not None:
                catalogue = catalogue.with_replaced(each.atlas_id, each)
        return catalogue

    return revise


def _load(text: str) -> "Atlas | Overlay":
    """An atlas, or the overlay that an overlay atlas or a policy file is."""
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - not for --help
    from cra_mcp.atlas.overlay import MAX_FILE_BYTES  # noqa: PLC0415 - likewise
    from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file  # noqa: PLC0415 - likewise
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - likewise

    path = Path(text)
    if path.is_file() and (
        path.suffix in {".yaml", ".yml"} or b'"atlas_version"' not in read_regular(path, MAX_FILE_BYTES)
    ):
        return load_policy_file(path)
    atlas = load_atlas(atlas_path(text))
    return load_overlay_atlas(atlas_path(text)) if atlas.overlay else atlas


def _progress(items: Sequence[T]) -> Iterator[T]:
    """Tell a terminal how far it is."""
    shown = sys.stderr.isatty() and len(items) > _EVERY
    for number, item in enumerate(items):
        if shown and not number % _EVERY:
            sys.stderr.write(f"\r{number} of {len(items)} traces")
            sys.stderr.flush()
        yield item
    if shown:
        sys.stderr.write("\r\x1b[K")


def _place(sequence: int | None) -> str:
    return "" if sequence is None else str(sequence)


def _short(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value[:60]
    import orjson  # noqa: PLC0415 - not for --help

    return orjson.dumps(value).decode()[:120]
