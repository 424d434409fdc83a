"""``trace verify``: chains, and checkpoints of them, are checked; what was done to one is named."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import SettingsError, TraceError, UnknownTraceError
from cra_mcp.faces.cli.evidence import Evidence, Fault, Pool, beside, gather, keys_of
from cra_mcp.faces.cli.exits import NO, OK, epilog
from cra_mcp.faces.cli.missing import misnamed_file, signed_and_gone, unlisted
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit, emit_json, paint, printable, say
from cra_mcp.faces.cli.stores import check_any, find_session, open_traces
from cra_mcp.faces.cli.timestamps import Dates, TsaCa, authorities_of, dates_of
from cra_mcp.faces.cli.traces import app
from cra_mcp.folders import read_regular
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from cra_mcp.trace.checkpoint import SignedCheckpoint, VerifierKey
    from cra_mcp.trace.diagnosis import Diagnosis
    from cra_mcp.trace.event import Head, Verification
    from cra_mcp.trace.statement import Statement
    from cra_mcp.trace.store import TraceStore

Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="VKEY|FILE", help="Public key to trust, or a file of them. Can be repeated."),
]

_HEAD_CHARS = 64
_PARALLEL_BYTES = 33_554_432
_TURNS = 4  # parts a worker takes, so that none waits long for the slowest
_SOURCES = {
    "outside": "agree with checkpoints kept elsewhere",
    "beside": "agree with the checkpoints beside them",
    "none": "hold by their chain alone",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one trace, and its stored lines; or the statement that stays of one that was pruned."""

    name: str
    check: "Verification"
    diagnosis: "Diagnosis"
    evidence: Evidence
    guarantee: str | None
    lines: "Sequence[bytes]" = ()
    dates: Dates = Dates()  # noqa: RUF009 - frozen
    pruned: "Statement | None" = None

    @property
    def ok(self) -> bool:
        """Nothing is wrong with the chain, nor with the checkpoints and their timestamps."""
        return self.diagnosis.ok and self.fault is None

    @property
    def fault(self) -> Fault | None:
        """What is wrong with the checkpoints, or else with their timestamps."""
        return self.evidence.fault or self.dates.fault

    def to_dict(self) -> dict[str, object]:
        """For ``--json``: the fields of a chain's verification, and what the checkpoints add."""
        found, evidence = self.diagnosis, self.evidence
        fault_code, fault_message = self.fault or (None, None)
        return {
            "trace": self.name,
            **self.check.to_dict(),
            "ok": self.ok,
            "events": found.events,
            "bad_index": found.bad_index,
            "code": found.code or fault_code,
            "kind": found.kind,
            "message": found.message or fault_message,
            "checkpoints": {
                "source": evidence.source,
                "signer": evidence.signer,
                "agreeing": found.checkpoints,
                "covered": found.covered,
                "ended": found.ended,
            },
            "timestamps": self.dates.to_dict(),
            "guarantee": self.guarantee,
            "pruned": _statement(self.pruned),
        }


def _statement(pruned: "Statement | None") -> dict[str, object] | None:
    if pruned is None:
        return None
    names = ("events", "head_hash", "code", "pruned_at", "signer")
    return {name: getattr(pruned, name) for name in names}


@app.command(
    epilog=epilog(
        "cra-mcp trace verify",
        "cra-mcp trace verify --all --json",
        "cra-mcp trace verify ./copy.trace.jsonl",
        f"cra-mcp trace verify 01a1fbca --expect 24:4dcb1f0e{'0' * 56}",
        "cra-mcp trace verify 01a1fbca --checkpoint /mnt/worm --key agents.vkey",
        "cra-mcp trace verify 01a1fbca --tsa-ca tsa-root.pem",
    )
)
def verify(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION|FILE]...", help="Session ids (or beginnings, or `latest`), or .trace.jsonl files."
        ),
    ] = None,
    all_traces: Annotated[
        bool, typer.Option("--all", help="Every trace in the folder, and those it should have.")
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(metavar="SEQUENCE:HASH", help="An event known from a receipt: the chain must hold it."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE|DIR", help="Checkpoints kept elsewhere: the chain must agree. Can be repeated."),
    ] = None,
    key: Keys = None,
    tsa_ca: TsaCa = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Check traces; name the first bad event, and what was done.

    A chain that holds shows that nothing in it was edited, removed or moved. Alone it can't show that its end was cut off or that
    all of it was written anew; checkpoints kept elsewhere (--checkpoint) can, and so does an event hash from a receipt (--expect).
    Without --checkpoint, those beside the trace are used; without --key, the public key in the data folder is trusted. With
    --tsa-ca the timestamps of checkpoints are checked: they show that events existed at a time. What has been shown, and what not,
    is said on stderr.
    """
    job = _Job(data_dir, trace_dir, store, tuple(checkpoint or ()), tuple(key or ()), tsa_ca)
    checker = _Checker(job)
    infos = checker.store.sessions() if all_traces else []
    names = [info.session_id for info in infos] if all_traces else list(sessions or ["latest"])
    head = _expected(expect, len(names))
    if sum(info.size_bytes for info in infos) > _PARALLEL_BYTES:
        found = _examine_in_parallel(job, names)
    else:
        found = [checker.listed(name) if all_traces else checker.examine(name, head) for name in names]
    evidence = checker.look.pool
    if all_traces and evidence is not None:
        gone = sorted(evidence.checkpoints.keys() - set(names))
        found += [checker.gone(session_id, evidence.of(session_id, "outside")) for session_id in gone]
        names += gone
    if all_traces:
        found += [*checker.unaccounted(names), *checker.unlisted()]
        check_any(found, checker.config, "verified")
    ok = all(each.ok for each in found)
    if as_json:
        emit_json({"ok": ok, "traces": [each.to_dict() for each in found]})
    else:
        for each in found:
            _tell(each)
        _tell_how_far(found)
    raise typer.Exit(OK if ok else NO)


def _expected(text: str | None, traces: int) -> "Head | None":
    if text is None:
        return None
    from cra_mcp.trace.event import Head  # noqa: PLC0415 - not for --help

    sequence, _, event_hash = text.partition(":")
    if traces != 1:
        raise typer.BadParameter("goes with one trace", param_hint="--expect")
    if not sequence.isdecimal() or len(event_hash) != _HEAD_CHARS:
        raise typer.BadParameter("must be the sequence of an event, a colon, and its hash", param_hint="--expect")
    return Head(int(sequence), event_hash.lower(), "")


@dataclass(frozen=True, slots=True)
class Look:
    """Where checkpoints are looked for: in what was given, or else beside the trace."""

    pool: Pool | None
    keys: "Sequence[VerifierKey]"
    sure: bool
    authorities: "tuple[Certificate, ...] | None" = None

    def of(self, session_id: str | None, kept: Path) -> Evidence:
        """What there is about a session; ``kept`` is the file of the checkpoints beside its trace."""
        if self.pool is None:
            return beside(kept, session_id, self.keys, sure=self.sure)
        found = self.pool.of(session_id, "outside")
        if self.authorities is None:
            return found
        stamped: Sequence[SignedCheckpoint] = ()
        with suppress(SettingsError):  # what lies beside the trace can't be in the way of what was given
            stamped = beside(kept, session_id, self.keys, sure=self.sure).stamped
        known = [each for each in stamped if each.checkpoint in found.checkpoints]  # a timestamp proves itself
        return replace(found, stamped=(*found.stamped, *known))


@dataclass(frozen=True, slots=True)
class _Job:
    """What the traces of one command are checked by: plain values, so that another process can take some of them over."""

    data_dir: Path | None
    trace_dir: Path | None
    store: str | None
    checkpoint: tuple[Path, ...]
    key: tuple[str, ...]
    tsa_ca: Path | None


class _Checker:
    """Checks traces, one after another."""

    def __init__(self, job: _Job) -> None:
        config = config_of(data_dir=job.data_dir, trace_dir=job.trace_dir, store=job.store)
        keys = keys_of(list(job.key), config.data_path)
        pool = gather(job.checkpoint, keys) if job.checkpoint else None
        self.store = open_traces(job.data_dir, job.trace_dir, job.store)
        self.look = Look(pool, keys, sure=bool(job.key), authorities=authorities_of(job.tsa_ca))
        self.config = config

    def examine(self, name: str, head: "Head | None" = None) -> Found:
        """One trace, without its lines: of all traces at once they are too many to keep."""
        found = replace(examine(self.store, name, head, self.look, self.config.trace_path), lines=())
        fault = misnamed_file(self.config, self.store, name) if found.ok else None
        return found if fault is None else replace(found, evidence=replace(found.evidence, fault=fault), guarantee=None)

    def listed(self, name: str) -> Found:
        """One of all traces: whatever is wrong with it, the others are checked all the same."""
        try:
            return self.examine(name)
        except (TraceError, SettingsError) as error:  # its checkpoints may be what can't be read
            return self._broken(name, error.code, error.message)

    def unlisted(self) -> list[Found]:
        """What a store holds of sessions that it does not list."""
        return [self._broken(name, code, message) for name, code, message in unlisted(self.config)]

    def _broken(self, name: str, code: str, message: str) -> Found:
        from cra_mcp.trace.diagnosis import Diagnosis  # noqa: PLC0415 - not for --help
        from cra_mcp.trace.event import verify as verify_lines  # noqa: PLC0415 - as said

        nothing = Diagnosis(ok=True, events=0, covered=0, checkpoints=0)
        return Found(printable(name), verify_lines(()), nothing, Evidence("none", fault=(code, message)), None)

    def unaccounted(self, names: Sequence[str]) -> list[Found]:
        """The sessions besides ``names`` whose checkpoints are beside where their traces should be."""
        from cra_mcp.trace.keeping import SUFFIX  # noqa: PLC0415 - as said

        folder, look = self.config.trace_path, self.look
        return [
            self.gone(session_id, beside(folder / f"{session_id}{SUFFIX}", session_id, look.keys, sure=look.sure))
            for session_id in signed_and_gone(self.config, names)
        ]

    def gone(self, session_id: str, evidence: Evidence) -> Found:
        """A session that was signed, and of which there is no trace here: a statement may account for it."""
        from cra_mcp.faces.cli.pruned import accounted, shown  # noqa: PLC0415 - only where a trace is gone
        from cra_mcp.trace.diagnosis import Diagnosis, diagnose  # noqa: PLC0415 - not for --help
        from cra_mcp.trace.event import verify as verify_lines  # noqa: PLC0415 - as said
        from cra_mcp.trace.statement import Statement  # noqa: PLC0415 - as said

        check = verify_lines(())
        statement = accounted(self.config, session_id, evidence.checkpoints, self.look.keys)
        if isinstance(statement, Statement):
            covered = max((checkpoint.size for checkpoint in evidence.checkpoints), default=0)
            found = Diagnosis(ok=True, events=0, covered=0, checkpoints=0)
            return Found(session_id, check, found, evidence, shown(statement, covered), pruned=statement)
        found = diagnose((), check, evidence.checkpoints)
        if statement is not None:
            message = "a statement says that it was pruned, and a checkpoint contradicts it"
            found = replace(found, code=statement, message=message)
        elif found.ok:  # checkpoints that can't be checked
            message = "there are checkpoints of it, and none of its events"
            found = replace(found, ok=False, bad_index=0, code="truncated", kind="truncated", message=message)
        return Found(session_id, check, found, evidence, None)


def _examine_in_parallel(job: _Job, names: Sequence[str]) -> list[Found]:
    """As many at once as there are processors: chains don't depend on each other."""
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - only where there is much to do

    workers = os.cpu_count() or 1
    size = max(1, len(names) // (workers * _TURNS))
    parts = [names[start : start + size] for start in range(0, len(names), size)]
    with ProcessPoolExecutor(workers) as processes:
        return [found for part in processes.map(_examine_part, repeat(job), parts) for found in part]


def _examine_part(job: _Job, names: Sequence[str]) -> list[Found]:
    checker = _Checker(job)
    return [checker.listed(name) for name in names]


def examine(store: "TraceStore", name: str, head: "Head | None", look: Look, folder: Path) -> Found:
    """One trace, by its chain and by checkpoints, which are read before it grows on."""
    from cra_mcp.trace.diagnosis import diagnose, guarantee  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.event import verify as verify_lines  # noqa: PLC0415 - as said
    from cra_mcp.trace.keeping import SUFFIX  # noqa: PLC0415 - as said

    if name.endswith(".jsonl") or Path(name).is_file():
        path = Path(name)
        lines, rest, session_id = _read(path)
        evidence = look.of(session_id, path.with_name(path.name.removesuffix(".jsonl").removesuffix(".trace") + SUFFIX))
    else:
        session_id = find_session(store, name)
        evidence = look.of(session_id, folder / f"{session_id}{SUFFIX}")
        rest = store.unfinished(session_id)
        lines = store.read(session_id)
    check = verify_lines(lines, session_id=session_id, expect_head=head, tail=rest)
    found = diagnose(lines, check, evidence.checkpoints)
    shown = guarantee(found, evidence.source, evidence.signer) if found.ok and evidence.fault is None else None
    return Found(name, check, found, evidence, shown, lines, dates_of(evidence.stamped, look.authorities, lines))


def verify_file(path: Path, head: "Head | None" = None) -> "Verification":
    """Check the chain of a trace in a file. A file named by a session must hold the trace of that session.

    Raises:
        UnknownTraceError: it can't be read.
    """
    from cra_mcp.trace.event import verify as verify_lines  # noqa: PLC0415 - not for --help

    lines, rest, session_id = _read(path)
    return verify_lines(lines, session_id=session_id, expect_head=head, tail=rest)


def _read(path: Path) -> tuple[list[bytes], bytes, str | None]:
    """Lines, unfinished rest, and the session: the one the file is named by, or else that of its first event."""
    from cra_mcp.trace.event import is_identifier, parse, split_lines  # noqa: PLC0415 - not for --help

    try:
        lines, rest = split_lines(read_regular(path))
    except OSError as error:
        raise UnknownTraceError(f"can't read {path}: {error.strerror}", hint="check the path") from None
    name = path.name.partition(".")[0]
    if is_identifier(name):
        return lines, rest, name
    with suppress(TraceError, IndexError):
        return lines, rest, parse(lines[0]).session_id
    return lines, rest, None


def _tell(found: Found) -> None:
    name, diagnosis, evidence = printable(found.name), found.diagnosis, found.evidence
    if not diagnosis.ok:
        emit(f"{paint('BROKEN', 'red')}  {name}  event {diagnosis.bad_index}: {diagnosis.code} ({diagnosis.kind})")
        complain(f"{name}: event {diagnosis.bad_index}: {diagnosis.message} [{diagnosis.code}]")
    elif found.fault is not None:
        emit(f"{paint('BROKEN', 'red')}  {name}  {found.fault[0]}")
    elif found.pruned is not None:
        emit(f"{paint('pruned', 'yellow')}  {name}  {found.pruned.events} events, head {found.pruned.head_hash or '-'}")
    else:
        head = found.check.head.event_hash if found.check.head is not None else "-"
        signed = f", {diagnosis.covered} signed" if diagnosis.checkpoints else ""
        emit(f"{paint('ok', 'green')}  {name}  {count_of(diagnosis.events, 'event')}{signed}, head {head}")
    if found.fault is not None:
        complain(f"{name}: {found.fault[1]} [{found.fault[0]}]")
    for note in (evidence.note, found.dates.note):
        if note is not None:
            say(f"note: {note}")


def _tell_how_far(found: Sequence[Found]) -> None:
    """What was shown of one trace; of several, what they were compared with."""
    if len(found) == 1:
        if found[0].guarantee is not None:
            say(found[0].guarantee)
            _tell_when(found[0])
        return
    sources = Counter(each.evidence.source for each in found if each.ok and each.pruned is None)
    pruned = sum(each.pruned is not None for each in found)
    if pruned:
        say(f"{pruned} were pruned, and statements signed by a trusted key account for them")
    parts = [f"{sources[source]} {text}" for source, text in _SOURCES.items() if sources[source]]
    if parts:
        say(f"{', '.join(parts)}; verify one by itself to be told what that shows")


def _tell_when(found: Found) -> None:
    """When the events existed, by the last timestamp that holds."""
    if not found.dates.dated:
        return
    last = found.dates.dated[-1]
    own = f" The runtime itself dated the last of them {last.recorded}." if last.recorded is not None else ""
    say(f"The first {count_of(last.size, 'event')} existed on {last}.{own}")
