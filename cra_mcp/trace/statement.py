"""Whether a chain may go, and the statement of what went.

Rule: a chain that does not verify, or that contradicts a checkpoint kept beside it, does not go unasked: a statement must not
launder a cut. Source: specs/trace.md, "Retention".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

from cra_mcp.canonical import canonical_bytes, parse_json
from cra_mcp.errors import CRAError, TraceError
from cra_mcp.trace.checkpoint import Checkpoint, VerifierKey, decode, encode, parse_checkpoint
from cra_mcp.trace.event import Verification, format_timestamp, parse, verify
from cra_mcp.trace.keeping import STAMPED, KeptCheckpoints
from cra_mcp.trace.merkle import Frontier, leaf_hash
from cra_mcp.trace.segments import open_to_read

FORM = "cra.trace.pruned/1"
"""What a statement says it is."""

Sign = Callable[[bytes], Mapping[str, str]]
"""Signs the canonical form of a statement: what is put under its ``signature``."""

_COPY_BYTES = 1_048_576
MAX_BYTES = 16 * 1_048_576
"""Of a statement, which names each file of a chain."""
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pruning:
    """What became of one chain old enough to go.

    Attributes:
        statement: what went, or would go; None for a chain that stays.
        kept_because: ``live``, a verification's code, or that of what is wrong with the statement found; for a chain that stays.
    """

    session_id: str
    statement: Mapping[str, object] | None
    kept_because: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes: chains whose last event is ``keep_s`` seconds old; damaged ones only if ``damaged``."""

    keep_s: int
    damaged: bool = False
    dry_run: bool = False

    def until_ns(self, now_ns: int) -> int:
        """The first moment that stays, nanoseconds since the epoch."""
        return max(0, now_ns - self.keep_s * _NS)


@dataclass(frozen=True, slots=True)
class Beside:
    """The checkpoints kept beside a chain, unverified, the oldest first, and their files.

    Attributes:
        notes: checkpoints.
        stamped: those with a timestamp in them.
        paths: the files that hold them.
    """

    notes: Sequence[bytes] = ()
    stamped: Sequence[bytes] = ()
    paths: tuple[Path, ...] = ()

    @classmethod
    def of(cls, folder: Path, session_id: str) -> "Beside":
        """Those of a session in a folder of traces.

        Raises:
            TraceUnavailableError: they can't be read.
        """
        kept = KeptCheckpoints(folder), KeptCheckpoints(folder, STAMPED)
        notes, stamped = (each.read(session_id) for each in kept)
        return cls(notes, stamped, tuple(path for each in kept if (path := each.path(session_id)).exists()))


def judge(
    session_id: str,
    lines: Iterable[bytes],
    beside: Beside,
    rule: Rule,
    now_ns: int,
    *,
    tail: bytes = b"",
) -> Pruning | None:
    """What would be said of a chain, but for the files that hold it; None for one with events too young.

    Args:
        session_id: the chain.
        lines: all of it.
        beside: what is kept beside it.
        rule: what goes.
        now_ns: nanoseconds since the epoch.
        tail: what follows its last whole line.
    """
    watched = _Watched(lines, [*beside.notes, *beside.stamped])
    check = verify(watched, session_id=session_id, tail=tail)
    head = check.head
    if head is not None and head.timestamp >= format_timestamp(rule.until_ns(now_ns)):
        return None
    code = check.code or watched.fault(check)
    if code is not None and not rule.damaged:
        return Pruning(session_id, None, code)
    statement: dict[str, object] = {
        "statement": FORM,
        "session_id": session_id,
        "events": check.events,
        "first_sequence": None,
        "last_sequence": None,
        "first_timestamp": None,
        "last_timestamp": None,
        "head_hash": None,
        "root": encode(watched.tree.root()) if check.ok else None,
        "checkpoint": _last(beside.notes),
        "timestamped": _last(beside.stamped),
        "code": code,
        "keep_seconds": rule.keep_s,
        "pruned_at": format_timestamp(now_ns),
    }
    if head is not None:
        statement |= {"first_sequence": 0, "last_sequence": head.sequence, "head_hash": head.event_hash}
        statement |= {"first_timestamp": parse(watched.first).timestamp, "last_timestamp": head.timestamp}
    return Pruning(session_id, statement)


def _last(notes: Sequence[bytes]) -> str | None:
    return notes[-1].decode("utf-8", "replace") if notes else None


def with_signature(statement: Mapping[str, object], sign: Sign | None) -> dict[str, object]:
    """A statement as it is kept; ``signature`` is null where nothing signs."""
    return {**statement, "signature": dict(sign(canonical_bytes(dict(statement)))) if sign else None}


def fingerprint(name: str, parts: Iterable[bytes]) -> dict[str, object]:
    """``name``, ``bytes`` and ``sha256`` of what ``parts`` make together."""
    size, content = 0, sha256()
    for part in parts:
        size += len(part)
        content.update(part)
    return {"name": name, "bytes": size, "sha256": content.hexdigest()}


def fingerprint_of(directory: Path, path: Path) -> dict[str, object]:
    """The same of a file, named from ``directory`` on.

    Raises:
        OSError: it can't be read.
    """
    with open_to_read(path) as file:
        return fingerprint(path.relative_to(directory).as_posix(), iter(lambda: file.read(_COPY_BYTES), b""))


class _Watched:
    """Lines on their way to verification: of what they are the tree, and whether checkpoints say the same."""

    def __init__(self, lines: Iterable[bytes], notes: Sequence[bytes]) -> None:
        self._lines = lines
        self._signed: dict[int, list[bytes]] = {}
        self._fault: str | None = None
        self.tree = Frontier()
        self.first = b""
        for note in notes:
            try:
                checkpoint = parse_checkpoint(note).checkpoint
            except TraceError as error:
                self._fault = error.code
                continue
            self._signed.setdefault(checkpoint.size, []).append(checkpoint.root)

    def __iter__(self) -> Iterator[bytes]:
        self._compare(0)
        for number, line in enumerate(self._lines, 1):
            self.first = self.first or line
            self.tree.append(leaf_hash(line))
            self._compare(number)
            yield line

    def fault(self, check: Verification) -> str | None:
        """What the checkpoints contradict in a chain that holds."""
        if any(size > check.events for size in self._signed):
            return "truncated"
        return self._fault

    def _compare(self, size: int) -> None:
        roots = self._signed.get(size)
        if roots and any(root != self.tree.root() for root in roots):
            self._fault = "checkpoint_mismatch"


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signed statement says of a chain that went.

    Attributes:
        events: how many it had.
        head_hash: of the last; None where there was none.
        root: the RFC 6962 root over all of its lines; None of a chain that did not verify.
        code: what was wrong with it; None if nothing was.
        pruned_at: when it went.
        signer: name of the key that signed it.
    """

    events: int
    head_hash: str | None
    root: bytes | None
    code: str | None
    pruned_at: str
    signer: str

    def contradiction(self, checkpoints: Iterable[Checkpoint]) -> str | None:
        """How checkpoints of the chain contradict it: ``truncated``, ``checkpoint_mismatch``; None if none does."""
        for checkpoint in checkpoints:
            if checkpoint.size > self.events:
                return "truncated"
            if checkpoint.size == self.events and checkpoint.root != self.root:
                return "checkpoint_mismatch"
        return None


def fields_of(data: bytes, session_id: str) -> dict[str, object]:
    """What a kept statement of a session says, its signature included.

    Raises:
        TraceError: ``malformed_statement``: it has not the form of one, or is of another session.
    """
    try:
        fields = cast("dict[str, object]", parse_json(data, max_bytes=MAX_BYTES))
        texts = [fields[name] for name in ("head_hash", "root", "code", "pruned_at")]
        is_good = (
            (fields["statement"], fields["session_id"]) == (FORM, session_id)
            and type(fields["events"]) is int
            and all(text is None or isinstance(text, str) for text in texts)
            and all(_is_file(file) for file in cast("list[object]", fields["files"]))
            and (not fields["signature"] or isinstance(fields["signature"], dict))
        )
        if fields["root"] is not None:
            decode(cast("str", fields["root"]))
    except (CRAError, KeyError, TypeError, AttributeError, ValueError):
        is_good, fields = False, {}
    if not is_good:
        raise TraceError(
            "what stands in the place of a trace that was pruned is no statement of it",
            code="malformed_statement",
            hint="Move it away, or get it again from a copy of the traces.",
        )
    return fields


def _is_file(file: object) -> bool:
    if not isinstance(file, dict):
        return False
    fields = cast("dict[str, object]", file)
    return isinstance(fields["name"], str) and type(fields["bytes"]) is int and isinstance(fields["sha256"], str)


def signer_of(fields: Mapping[str, object], keys: Iterable[VerifierKey]) -> VerifierKey | None:
    """Which of ``keys`` signed a statement; None if none did."""
    signature = cast("dict[str, object]", fields["signature"] or {})
    said = FORM.encode() + b"\n" + canonical_bytes({name: fields[name] for name in fields if name != "signature"})
    try:
        signed = decode(cast("str", signature["ed25519"]))
    except (CRAError, KeyError, TypeError, AttributeError, ValueError):
        return None
    return next((key for key in keys if key.encode() == signature.get("vkey") and key.has_signed(said, signed)), None)


def says_the_same(fields: Mapping[str, object], judged: Mapping[str, object]) -> bool:
    """Whether judging a chain again gives what a statement says of it, whoever wrote that, and whenever."""
    own = {"signature", "pruned_at", "keep_seconds"}
    now, then = ({name: each[name] for name in each if name not in own} for each in (judged, fields))
    return now == then


def read_statement(data: bytes, session_id: str, keys: Iterable[VerifierKey]) -> Statement:
    """Read a kept statement, and check its signature.

    Raises:
        TraceError: ``malformed_statement``; ``statement_unsigned``: none of ``keys`` signed it.
    """
    fields = fields_of(data, session_id)
    signer = signer_of(fields, keys)
    if signer is None:
        raise TraceError(
            "the statement of what was pruned is not signed by a key that is trusted here",
            code="statement_unsigned",
            hint="Give the public key of whoever pruned it, with --key.",
        )
    root = cast("str | None", fields["root"])
    return Statement(
        cast("int", fields["events"]),
        cast("str | None", fields["head_hash"]),
        decode(root) if root is not None else None,
        cast("str | None", fields["code"]),
        str(fields["pruned_at"]),
        signer.name,
    )
