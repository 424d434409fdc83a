"""``trace key``, ``trace prove`` and ``trace verify-proof``: the key of checkpoints, and what they prove."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import SettingsError, TraceError, UnknownTraceError
from cra_mcp.faces.cli.evidence import keys_of
from cra_mcp.faces.cli.exits import NO, epilog
from cra_mcp.faces.cli.finding import find_event
from cra_mcp.faces.cli.new_files import new_file
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit, emit_json, emit_line, paint, say
from cra_mcp.faces.cli.stores import find_session, open_traces
from cra_mcp.faces.cli.timestamps import Dates, TsaCa, authorities_of, dates_of
from cra_mcp.faces.cli.verifying import Keys, app
from cra_mcp.folders import read_regular
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.checkpoint import SignedCheckpoint, VerifierKey
    from cra_mcp.trace.proof import Consistency, Inclusion
    from cra_mcp.trace.store import TraceStore


_LONGEST_SEQUENCE = 17


@app.command(
    epilog=epilog(
        "cra-mcp trace key",
        "cra-mcp trace key --make",
        "cra-mcp trace key --make --file ~/keys/agents.key --name example.com/agents",
    )
)
def key(
    make: Annotated[bool, typer.Option("--make", help="Make a key if there is none.")] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --make: what the key is called; no spaces, no plus sign.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Key in this file, instead of the one in the data folder.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the public key that checkpoints are verified with.

    Keep what this prints where the traces are not: with it and a copy of a checkpoint, `trace verify` shows whether a trace was cut
    off or written anew. `serve` makes a key by itself on its first run. The private key is never printed.
    """
    from cra_mcp.trace.keyfile import KEY_FILE  # noqa: PLC0415 - not for --help

    path = file.expanduser() if file is not None else config_of(data_dir=data_dir).data_path / KEY_FILE
    if name is not None and not make:
        raise typer.BadParameter("goes with --make", param_hint="--name")
    public = _make(path, name) if make else _read(path)
    if as_json:
        emit_json({"name": public.name, "key_id": public.key_id.hex(), "vkey": public.encode(), "file": str(path)})
    else:
        emit(public.encode())


def _make(path: Path, name: str | None) -> "VerifierKey":
    from cra_mcp.trace.keyfile import make_key  # noqa: PLC0415 - not for --help

    known = path.exists()
    try:
        made = make_key(path, name).verifier
    except TraceError as error:
        raise typer.BadParameter(error.message, param_hint="--name") from None
    say(f"there is a key in {path}; it stays as it is" if known else f"made a key in {path}; nobody else may read it")
    return made


def _read(path: Path) -> "VerifierKey":
    from cra_mcp.trace.keyfile import public_key_of  # noqa: PLC0415 - not for --help

    found = public_key_of(path)
    if found is None:
        raise SettingsError(
            f"there is no key in {path}",
            code="checkpoint_key",
            hint="`cra-mcp trace key --make` makes one; `serve` does so too",
        )
    return found


@app.command(
    epilog=epilog(
        "cra-mcp trace prove 01a1fbca 4 --out denied.tlog-proof",
        "cra-mcp trace prove 01a1fbca-d011-720e-b030-f1034a65cba2 --checkpoint last.checkpoint",
        "cra-mcp trace prove 01a1fbca --consistency 1000 2000 --out growth.proof",
    )
)
def prove(
    session: Annotated[
        str,
        typer.Argument(metavar="SESSION|EVENT", help="Session as elsewhere; or, alone, the id or hash of an event."),
    ],
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="Sequence, id or hash of an event.")] = None,
    consistency: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="OLD NEW", help="Prove instead that the checkpoint of NEW events continues that of OLD."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Use these checkpoints, not those beside the trace. Can be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the proof to this new file instead of printing it.")
    ] = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
) -> None:
    """Print a proof that an event is in a signed trace.

    Who has the proof and the public key can check it without the trace and without this program: `verify-proof` does, and so does
    specs/verifiers/verify-proof.mjs. A proof carries the event itself, and nothing of the others but hashes; and the timestamp of
    the checkpoint, where there is one.
    """
    from cra_mcp.trace.proof import prove_consistency, prove_inclusion  # noqa: PLC0415 - not for --help

    if event is not None and consistency is not None:
        raise typer.BadParameter("give an event, or --consistency OLD NEW", param_hint="EVENT")
    config = config_of(data_dir=data_dir, trace_dir=trace_dir, store=store)
    traces = open_traces(data_dir, trace_dir, store)
    if event is None and consistency is None:
        session_id, index, lines = _event_alone(config, traces, session)
    else:
        session_id = find_session(traces, session)
        lines = traces.read(session_id)
        index = _index_of(lines, event) if event is not None else -1
    known = _checkpoints_of(session_id, checkpoint, config.trace_path)
    if consistency is not None:
        old, new = (_of_size(known, size) for size in consistency)
        proof = prove_consistency(lines, old, new)
    else:
        proof = prove_inclusion(lines, index, _covering(known, index))
    if out is None:
        emit_line(proof.removesuffix(b"\n"))
    else:
        with new_file(out) as write:
            write(proof)


def _event_alone(config: "RuntimeConfig", traces: "TraceStore", what: str) -> tuple[str, int, list[bytes]]:
    """As ``find_event``; where there is a session of that id instead, its event was forgotten."""
    try:
        return find_event(config, traces, what)
    except UnknownTraceError:
        with suppress(UnknownTraceError):
            traces.head(what)
            raise typer.BadParameter("give an event, or --consistency OLD NEW", param_hint="EVENT") from None
        raise


def _checkpoints_of(session_id: str, given: list[Path] | None, folder: Path) -> "list[SignedCheckpoint]":
    """Those of one session, by size, with a timestamp first. Whoever checks the proof checks their signatures."""
    from cra_mcp.trace.checkpoint import parse_checkpoint  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.keeping import STAMPED, SUFFIX, KeptCheckpoints, read_notes  # noqa: PLC0415 - as said
    from cra_mcp.trace.timestamp import stamps_of  # noqa: PLC0415 - as said

    if given:
        notes = [note for path in given for note in read_notes(path)[0]]
    else:
        notes = [note for suffix in (STAMPED, SUFFIX) for note in KeptCheckpoints(folder, suffix).read(session_id)]
    found = [signed for signed in map(parse_checkpoint, notes) if signed.checkpoint.session_id == session_id]
    if not found:
        raise SettingsError(
            f"there is no checkpoint of session {session_id}",
            code="checkpoint_missing",
            hint="One is made at the end of a session, and every so often before it (`serve --checkpoint-every`).",
        )
    return sorted(found, key=lambda signed: (signed.checkpoint.size, not stamps_of(signed)))


def _covering(known: "list[SignedCheckpoint]", index: int) -> "SignedCheckpoint":
    """The one to prove an event by: the first with a timestamp, as that is the earliest time it is known from; else the last."""
    from cra_mcp.trace.timestamp import stamps_of  # noqa: PLC0415 - not for --help

    stamped = (signed for signed in known if signed.checkpoint.size > index and stamps_of(signed))
    return next(stamped, known[-1])


def _of_size(known: "list[SignedCheckpoint]", size: int) -> "SignedCheckpoint":
    for signed in known:
        if signed.checkpoint.size == size:
            return signed
    sizes = ", ".join(str(signed.checkpoint.size) for signed in known)
    raise typer.BadParameter(
        f"no checkpoint is of {count_of(size, 'event')}; there are: {sizes}", param_hint="--consistency"
    )


def _index_of(lines: list[bytes], text: str) -> int:
    from cra_mcp.trace.event import parse  # noqa: PLC0415 - not for --help

    if text.isdecimal() and len(text) < _LONGEST_SEQUENCE:
        if int(text) < len(lines):
            return int(text)
        raise typer.BadParameter(f"the trace has {count_of(len(lines), 'event')}, counted from 0", param_hint="EVENT")
    for index, line in enumerate(lines):
        if f'"{text}"'.encode() in line:
            event = parse(line)
            if text in {event.event_id, event.event_hash}:
                return index
    raise typer.BadParameter("no event has this sequence, id or hash", param_hint="EVENT")


@app.command(
    "verify-proof",
    epilog=epilog(
        "cra-mcp trace verify-proof denied.tlog-proof --key agents.vkey",
        "cra-mcp trace verify-proof growth.proof --key agents.vkey --json",
        "cra-mcp trace verify-proof denied.tlog-proof --key agents.vkey --tsa-ca tsa-root.pem",
    ),
)
def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `prove` printed.")],
    key: Keys = None,
    tsa_ca: TsaCa = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof, without the trace.

    Prints the event that is proved. Without --key, the public key in the data folder is trusted. With --tsa-ca its timestamp is
    checked too, and there must be one. Exit code 1 if nothing is proved.
    """
    from cra_mcp.trace import proof  # noqa: PLC0415 - not for --help

    keys = keys_of(key, config_of(data_dir=data_dir).data_path)
    data = read_regular(file, proof.MAX_PROOF_BYTES + 1)
    authorities = authorities_of(tsa_ca)
    try:
        found = proof.verify_proof(data, keys)
        dates = dates_of([found.signed] if isinstance(found, proof.Inclusion) else [found.old, found.new], authorities)
        if dates.fault is not None:
            raise TraceError(dates.fault[1], code=dates.fault[0])
    except TraceError as error:
        if as_json:
            emit_json({"ok": False, "code": error.code, "message": error.message})
        complain(f"{error.message} [{error.code}]", error.hint)
        raise typer.Exit(NO) from None
    if isinstance(found, proof.Inclusion):
        _tell_inclusion(found, dates, as_json=as_json)
    else:
        _tell_consistency(found, dates, as_json=as_json)


def _tell_inclusion(found: "Inclusion", dates: Dates, *, as_json: bool) -> None:
    checkpoint, signer = found.signed.checkpoint, found.key.name
    if as_json:
        fields = {"kind": "inclusion", "signer": signer, "origin": checkpoint.origin, "size": checkpoint.size}
        more = {"timestamps": dates.to_dict()}
        emit_json({"ok": True, **fields, "index": found.index, "event": found.event.to_dict(), **more})
        return
    from cra_mcp.faces.cli.events import text_of  # noqa: PLC0415 - not for --help

    emit(text_of(found.line))
    where = f"event {found.index} of the {checkpoint.size} of {checkpoint.origin}"
    say(f"{paint('proved', 'green')}: {where}, signed by {signer}")
    _tell_dates(dates)


def _tell_consistency(found: "Consistency", dates: Dates, *, as_json: bool) -> None:
    old, new = found.old.checkpoint, found.new.checkpoint
    if as_json:
        fields = {"kind": "consistency", "signer": found.key.name, "origin": new.origin}
        emit_json({"ok": True, **fields, "old_size": old.size, "size": new.size, "timestamps": dates.to_dict()})
        return
    emit(f"{new.origin}: {count_of(new.size, 'event')}, of which the first {old.size} as signed before")
    say(f"{paint('proved', 'green')}, signed by {found.key.name}")
    _tell_dates(dates)


def _tell_dates(dates: Dates) -> None:
    for each in dates.dated:
        say(f"{paint('proved', 'green')}: the first {count_of(each.size, 'event')} existed on {each}")
    if dates.note is not None:
        say(f"note: {dates.note}")
