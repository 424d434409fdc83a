"""What was done to a chain: the finding of ``event.verify`` in words, and against checkpoints kept elsewhere.

Rule: pure. A finding only says what the evidence shows; ``guarantee`` says how far that goes, in words.
Source: specs/trace.md, "What was done to it" and "Checkpoints".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cra_mcp.errors import TraceError
from cra_mcp.trace.checkpoint import Checkpoint
from cra_mcp.trace.event import GENESIS_HASH, Event, Verification, parse
from cra_mcp.trace.merkle import Frontier, leaf_hash

Kind = Literal["edited", "removed", "inserted", "reordered", "truncated", "rewritten", "forked", "swapped"]
"""What was done to a chain, as far as it can be told (specs/trace.md)."""

Source = Literal["outside", "beside", "none"]
"""Where the checkpoints come from that a chain was compared with."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A chain compared with what is known of it.

    Attributes:
        ok: nothing is wrong.
        events: how many events from the start are good, by the chain and by the checkpoints.
        covered: how many of them a checkpoint says were there.
        checkpoints: how many checkpoints agree.
        ended: the session's end is among the covered events.
        bad_index: position, from 0, of the first event that is bad, missing or may be another; None if ``ok``.
        code: specs/trace.md, "Verification"; None if ``ok``.
        kind: what was done; None if ``ok``.
        message: the same for people; None if ``ok``.
    """

    ok: bool
    events: int
    covered: int = 0
    checkpoints: int = 0
    ended: bool = False
    bad_index: int | None = None
    code: str | None = None
    kind: Kind | None = None
    message: str | None = None


def diagnose(lines: Sequence[bytes], check: Verification, checkpoints: Iterable[Checkpoint] = ()) -> Diagnosis:
    """Say what was done to a chain.

    Args:
        lines: its stored lines.
        check: what ``event.verify`` found in them.
        checkpoints: of this session, their signatures verified, in any order.
    """
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.size)
    agreeing, covered, other = _compare(lines, ordered)
    ended = check.ok and 0 < covered == len(lines) and b'"event_type":"session.ended"' in lines[-1]
    if not check.ok:
        return Diagnosis(
            ok=False,
            events=check.events,
            covered=min(covered, check.events),
            checkpoints=agreeing,
            bad_index=check.bad_index,
            code=check.code,
            kind=classify(lines, check),
            message=check.message,
        )
    if other is None:
        return Diagnosis(ok=True, events=check.events, covered=covered, checkpoints=agreeing, ended=ended)
    code, kind, message = _contradiction(ordered, other, covered=covered, events=len(lines))
    return Diagnosis(
        ok=False,
        events=covered if code == "checkpoint_mismatch" else check.events,
        covered=covered,
        checkpoints=agreeing,
        bad_index=covered if code == "checkpoint_mismatch" else len(lines),
        code=code,
        kind=kind,
        message=message,
    )


def classify(lines: Sequence[bytes], check: Verification) -> Kind | None:
    """What was done to a chain that is broken by itself; None if it isn't."""
    index = check.bad_index
    if index is None:
        return None
    if check.code == "truncated" or index >= len(lines):
        return "truncated"
    if check.code == "session_mismatch" and index == 0:
        return "swapped"
    last_hash = check.head.event_hash if check.head is not None else GENESIS_HASH
    bad = _intact(lines[index])
    if bad is not None and bad.previous_event_hash == last_hash:
        return "rewritten"  # hashes and links fit, and yet no writer of this protocol wrote it
    return _moved(lines, index, bad, _successor(lines, index, last_hash))


def guarantee(found: Diagnosis, source: Source, signer: str | None = None) -> str:
    """What a chain in which nothing is wrong has been shown to be, and what not."""
    if source == "none" or not found.checkpoints:
        return (
            "By its chain alone: nothing inside it was edited, removed, inserted or moved. That its end was not cut off, and "
            "that it was not written anew as a whole, is not shown: that takes a checkpoint (--checkpoint) or a receipt (--expect) "
            "kept elsewhere."
        )
    parts = [
        f"The first {found.covered} events are byte for byte those that were signed by {signer}: "
        "none was changed, removed, added or moved since."
    ]
    if source == "beside":
        parts.append(
            "The checkpoints lie beside the trace: whoever can write here and holds that key could have made both anew. "
            "Only a copy kept elsewhere (--checkpoint) rules that out."
        )
    rest = found.events - found.covered
    if rest:
        parts.append(f"For the last {rest} only the chain speaks: they could be cut off or replaced unnoticed.")
    elif found.ended:
        parts.append("The end of the session is among them: nothing is missing.")
    else:
        parts.append("The session has no end in it: that more was recorded later, and cut off, is not ruled out.")
    return " ".join(parts)


def _compare(lines: Sequence[bytes], ordered: Sequence[Checkpoint]) -> tuple[int, int, Checkpoint | None]:
    """How many checkpoints agree, the size of the largest that does, and the first that does not."""
    tree, agreeing, covered = Frontier(), 0, 0
    for checkpoint in ordered:
        if checkpoint.size > len(lines):
            return agreeing, covered, checkpoint
        for line in lines[tree.size : checkpoint.size]:
            tree.append(leaf_hash(line))
        if tree.root() != checkpoint.root:
            return agreeing, covered, checkpoint
        agreeing, covered = agreeing + 1, checkpoint.size
    return agreeing, covered, None


def _contradiction(
    ordered: Sequence[Checkpoint], other: Checkpoint, *, covered: int, events: int
) -> tuple[str, Kind, str]:
    """Code, kind and message where the chain holds and ``other`` is the first checkpoint that speaks against it."""
    roots: dict[int, set[bytes]] = {}
    for checkpoint in ordered:
        roots.setdefault(checkpoint.size, set()).add(checkpoint.root)
    double = next((size for size in sorted(roots) if len(roots[size]) > 1), None)
    if double is not None:
        return (
            "checkpoint_mismatch",
            "forked",
            f"two different histories of {double} events were signed with the same key",
        )
    if other.size > events:
        known = f"its first {covered} events are those that were signed" if covered else "none of it could be compared"
        return (
            "truncated",
            "truncated",
            f"the chain ends after {events} events, and {other.size} were there when a checkpoint was signed; {known}",
        )
    if covered:
        return (
            "checkpoint_mismatch",
            "forked",
            f"the first {covered} events are those that were signed; of what follows, up to event {other.size - 1}, "
            "another history was signed",
        )
    return (
        "checkpoint_mismatch",
        "rewritten",
        f"the chain holds, but its first {other.size} events are not those that were signed: it was written anew",
    )


def _intact(line: bytes) -> Event | None:
    """The event of a line, if its content has the hash it states."""
    try:
        event = parse(line)
    except TraceError:
        return None
    return event if event.event_hash == event.compute_hash() else None


def _moved(lines: Sequence[bytes], index: int, bad: Event | None, successor: int | None) -> Kind:
    """What was done where the event at ``index`` doesn't follow the one before it; ``successor`` is where the one is that would."""
    if successor is not None:
        return "reordered" if _belong_later(lines, index, successor) else "inserted"
    if bad is None or bad.sequence == index:
        return "edited"
    return "removed" if bad.sequence > index else "inserted"


def _successor(lines: Sequence[bytes], index: int, last_hash: str) -> int | None:
    """Where, after ``index``, the event is that should be there."""
    link = f'"{last_hash}"'.encode()
    for place in range(index + 1, len(lines)):
        if link in lines[place]:
            event = _intact(lines[place])
            if event is not None and event.previous_event_hash == last_hash and event.sequence == index:
                return place
    return None


def _belong_later(lines: Sequence[bytes], index: int, successor: int) -> bool:
    """Whether all that is in front of the right event is missing further on."""
    later = set(lines[successor + 1 :])
    for line in lines[index:successor]:
        event = _intact(line)
        if event is None or event.sequence <= index or line in later:
            return False
    return True
