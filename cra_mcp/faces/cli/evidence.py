"""Checkpoints and keys given on the command line, or found beside a trace: read, verified and sorted by session.

Rule: what can't be read or isn't signed by a trusted key is a fault of the traces it may be about, never left out in silence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from cra_mcp.errors import CRAError, SettingsError, TraceError
from cra_mcp.folders import read_regular

if TYPE_CHECKING:
    from cra_mcp.trace.checkpoint import Checkpoint, SignedCheckpoint, VerifierKey
    from cra_mcp.trace.diagnosis import Source

_MAX_KEYS_BYTES = 1_048_576
_SUFFIXES = {".checkpoint", ".checkpoints", ".timestamps"}
Fault = tuple[str, str]
"""A stable code, and the same for people."""


_NO_KEY = "there are checkpoints beside the trace, and the key that signed them is not known here; give --key"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What checkpoints say of one session.

    Attributes:
        signer: name of the key that signed them; None where there are none.
        fault: what is wrong with the checkpoints themselves.
        note: for people: why there are none.
        stamped: those that have a timestamp, which is not verified.
    """

    source: "Source"
    checkpoints: "tuple[Checkpoint, ...]" = ()
    signer: str | None = None
    fault: Fault | None = None
    note: str | None = None
    stamped: "tuple[SignedCheckpoint, ...]" = ()


@dataclass(slots=True)
class Pool:
    """Checkpoints of any sessions. A fault whose session can't be told counts for every one."""

    checkpoints: "dict[str, list[Checkpoint]]" = field(default_factory=dict[str, list["Checkpoint"]])
    stamped: "dict[str, list[SignedCheckpoint]]" = field(default_factory=dict[str, list["SignedCheckpoint"]])
    signers: dict[str, str] = field(default_factory=dict[str, str])
    faults: dict[str | None, Fault] = field(default_factory=dict[str | None, Fault])

    def take(self, note: bytes, keys: "Sequence[VerifierKey]", place: Path, session_id: str | None) -> None:
        """Add one note; ``session_id`` is the one its file is named after."""
        from cra_mcp.trace.checkpoint import parse_checkpoint  # noqa: PLC0415 - not for --help
        from cra_mcp.trace.timestamp import stamps_of  # noqa: PLC0415 - as said

        named = session_id
        try:
            signed = parse_checkpoint(note)
            named = session_id or signed.checkpoint.session_id
            signer = signed.verify(keys)
        except TraceError as error:
            self.faults.setdefault(named, (error.code, f"{place}: {error.message}"))
            return
        told = signed.checkpoint.session_id or ""
        if session_id not in {None, told}:
            self.faults.setdefault(
                session_id, ("checkpoint_origin", f"{place}: it holds a checkpoint of session {told}")
            )
        known = self.checkpoints.setdefault(told, [])
        stamped = bool(stamps_of(signed))
        if stamped:
            self.stamped.setdefault(told, []).append(signed)
        if not stamped or signed.checkpoint not in known:  # with a timestamp it is mostly one more copy
            known.append(signed.checkpoint)
        self.signers[told] = signer.name

    def of(self, session_id: str | None, source: "Source") -> Evidence:
        """What there is about one session."""
        fault = self.faults.get(session_id) or self.faults.get(None)
        found = tuple(self.checkpoints.get(session_id or "", ()))
        if not found and fault is None and source == "outside":
            fault = ("checkpoint_missing", "none of the checkpoints that were given is of this session")
        stamped = tuple(self.stamped.get(session_id or "", ()))
        signer = self.signers.get(session_id or "")
        return Evidence(source if found else "none", found, signer, fault, stamped=stamped)


def keys_of(given: Sequence[str] | None, folder: Path) -> "list[VerifierKey]":
    """The keys to trust: those given, as text or in files, or the data folder's own.

    Raises:
        SettingsError: one can't be used.
    """
    from cra_mcp.trace.checkpoint import VerifierKey  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.keyfile import KEY_FILE, public_key_of  # noqa: PLC0415 - as said

    if not given:
        own = public_key_of(folder / KEY_FILE)
        return [own] if own is not None else []
    keys: list[VerifierKey] = []
    for text in given:
        path = Path(text).expanduser()
        lines = read_regular(path, _MAX_KEYS_BYTES).decode("utf-8", "replace").split("\n") if _is_file(path) else [text]
        try:
            keys += [VerifierKey.decode(line) for line in lines if line.strip()]
        except TraceError as error:
            raise typer.BadParameter(error.message, param_hint="--key") from None
    if not keys:
        raise typer.BadParameter("holds no key", param_hint="--key")
    return keys


def gather(paths: Iterable[Path], keys: "Sequence[VerifierKey]") -> Pool:
    """The checkpoints in files and folders.

    Raises:
        SettingsError: there is no such file, or no key to check them with.
    """
    if not keys:
        raise SettingsError(
            "there is no key to check the checkpoints with",
            code="checkpoint_key",
            hint="Give --key: what `cra-mcp trace key` prints where the trace was written.",
        )
    pool = Pool()
    for path in paths:
        for file in _files(path):
            _read(pool, file, keys, finished=True)
    return pool


def beside(path: Path, session_id: str | None, keys: "Sequence[VerifierKey]", *, sure: bool) -> Evidence:
    """What the checkpoints beside a trace say of it, those with timestamps too. One that a crash left unfinished is none.

    Args:
        path: their file.
        session_id: the session.
        keys: whom to trust.
        sure: the keys were given. Else they are this machine's own, and a trace from elsewhere may be by another: that is no fault.
    """
    from cra_mcp.trace.keeping import STAMPED  # noqa: PLC0415 - not for --help

    files = [file for file in (path, path.with_suffix(STAMPED)) if file.exists()]
    if not files:
        return Evidence("none")
    if not keys:
        return Evidence("none", note=_NO_KEY)
    pool = Pool()
    for file in files:
        _read(pool, file, keys, finished=False)
    found = pool.of(session_id, "beside")
    if found.fault is not None and found.fault[0] == "checkpoint_unsigned" and not sure:
        return Evidence("none", note=_NO_KEY)
    return found


def _read(pool: Pool, path: Path, keys: "Sequence[VerifierKey]", *, finished: bool) -> None:
    from cra_mcp.trace.event import is_identifier  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.keeping import read_notes  # noqa: PLC0415 - as said

    name = path.name.partition(".")[0]
    session_id = name if is_identifier(name) else None
    try:
        notes, rest = read_notes(path)
    except (CRAError, OSError) as error:
        _unreadable(path, error)
    for note in notes:
        pool.take(note, keys, path, session_id)
    if rest and finished:
        pool.take(rest, keys, path, session_id)  # no whole note, and so a fault


def _files(path: Path) -> list[Path]:
    path = path.expanduser()
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long to be one
        return False


def _unreadable(path: Path, error: Exception) -> NoReturn:
    raise SettingsError(f"can't read {path}: {error}", code="checkpoint_unreadable", hint="check the path") from error
