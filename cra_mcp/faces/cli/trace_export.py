"""``trace export``: traces of the past in the forms other systems take in."""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cra_mcp.errors import TraceError, UnknownTraceError
from cra_mcp.faces.cli.exits import NO
from cra_mcp.faces.cli.moments import moment_of
from cra_mcp.faces.cli.new_files import new_file
from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit_bytes, emit_json, flush, say
from cra_mcp.faces.cli.stores import check_any, find_session, open_traces
from cra_mcp.folders import open_regular
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cra_mcp.trace.export.format import Format
    from cra_mcp.trace.store import TraceStore

EXAMPLES = (
    "cra-mcp trace export latest --format csv > trace.csv",
    "cra-mcp trace export --all --since 24h --format ocsf --output events.jsonl",
    "cra-mcp trace export --all --format otlp-logs --output logs.otlp.jsonl --json",
)

_PAGE = 5_000
_TOLD_EVERY = 50_000


def export(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION|FILE]...", help="Session ids (or beginnings, or `latest`), or .trace.jsonl files."
        ),
    ] = None,
    all_traces: Annotated[bool, typer.Option("--all", help="Every trace in the folder.")] = False,
    format_name: Annotated[
        Literal["jsonl", "csv", "otlp-logs", "otlp-spans", "ocsf", "cef", "leef", "syslog"],
        typer.Option("--format", "-f", help="The form. jsonl gives the stored lines as they are."),
    ] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this new file, for its owner only; not to stdout.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Events from then on: 24h, 7d, 2026-11-21 or 2026-11-21T08:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Events before then; the same forms.")] = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Export traces for spreadsheets, log collectors and SIEMs.

    What was hidden when it was recorded stays hidden. An event that can't be read is left out and told, with exit code 1; chains
    are not verified (see `verify`). With --json, and --output: a summary on stdout.
    """
    from cra_mcp.trace.export.format import format_of  # noqa: PLC0415 - not for --help

    if as_json and output is None:
        raise typer.BadParameter("goes with --output, since the export itself is on stdout", param_hint="--json")
    if all_traces and sessions:
        raise typer.BadParameter("goes without sessions", param_hint="--all")
    if all_traces:
        check_any(
            open_traces(data_dir, trace_dir).sessions(), config_of(data_dir=data_dir, trace_dir=trace_dir), "exported"
        )
    span = (moment_of(since, "--since"), moment_of(until, "--until"))
    sources = _sources(list(sessions or ["latest"]), all_traces, span[0], data_dir, trace_dir)
    with opened_output(output) as write:
        counts = _Export(format_of(format_name), write, span).run(sources)
    if as_json:
        emit_json({"format": format_name, "output": str(output), **counts})
    elif output is not None:
        say(f"{count_of(counts['events'], 'event')} of {count_of(counts['sessions'], 'session')} in {output}")
    if counts["unreadable"]:
        complain(f"{count_of(counts['unreadable'], 'event')} left out that can't be read", "see `cra-mcp trace verify`")
        raise typer.Exit(NO)


class _Export:
    """One run over all sources."""

    def __init__(self, form: "Format", write: "Callable[[bytes], object]", span: tuple[str | None, str | None]) -> None:
        from cra_mcp.trace.export.record import Recorder  # noqa: PLC0415 - not for --help

        self._format = form
        self._write = write
        self._since, self._until = span
        self._recorder = Recorder()
        self._counts = {"events": 0, "sessions": 0, "unreadable": 0}

    def run(self, sources: "Iterator[Iterator[bytes]]") -> dict[str, int]:
        self._write(self._format.begin())
        for lines in sources:
            before = self._counts["events"]
            for line in lines:
                self._one(line)
            self._counts["sessions"] += self._counts["events"] > before
        for piece in self._format.finish():
            self._write(piece)
        return self._counts

    def _one(self, line: bytes) -> None:
        try:
            record = self._recorder.record(line)
        except TraceError:
            self._counts["unreadable"] += 1
            return
        moment = record.event.timestamp
        if (self._since is not None and moment < self._since) or (self._until is not None and moment >= self._until):
            return
        for piece in self._format.feed(record):
            self._write(piece)
        self._counts["events"] += 1
        if self._counts["events"] % _TOLD_EVERY == 0 and sys.stderr.isatty():
            say(f"{self._counts['events']} events so far")


def _sources(
    names: list[str], all_traces: bool, since: str | None, data_dir: Path | None, trace_dir: Path | None
) -> "Iterator[Iterator[bytes]]":
    """The lines of each trace; sessions in the order in which they were begun."""
    store = open_traces(data_dir, trace_dir)
    if all_traces:
        names = sorted(info.session_id for info in store.sessions() if since is None or info.modified >= since)
    for name in names:
        if not all_traces and (name.endswith(".jsonl") or Path(name).is_file()):
            yield _lines_of(Path(name))
        else:
            yield _pages(store, name if all_traces else find_session(store, name))


def _pages(store: "TraceStore", session_id: str) -> Iterator[bytes]:
    after = -1
    while lines := store.read(session_id, after=after, limit=_PAGE):
        yield from lines
        after += len(lines)


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as file:
            for line in file:
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise UnknownTraceError(f"can't read {path}: {error.strerror}", hint="check the path") from None


@contextmanager
def opened_output(output: Path | None) -> "Generator[Callable[[bytes], object]]":
    """Where pieces go. A file is there whole, or not at all."""
    if output is None:
        yield emit_bytes
        flush()
        return
    with new_file(output) as write:
        yield write
