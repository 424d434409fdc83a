"""The attack table of specs/trace.md: what each attack on a trace looks like, by its chain alone and against a checkpoint.

``TABLE`` is the table: a test a row, and one that compares it with the page.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.trace.checkpoint import Checkpoint
from cra_mcp.trace.diagnosis import diagnose, guarantee
from cra_mcp.trace.event import Draft, Head, format_timestamp, link, parse, verify
from cra_mcp.trace.merkle import leaf_hash, root_of

SPEC = Path(__file__).resolve().parents[2] / "specs" / "trace.md"
EVENTS = 12
Lines = list[bytes]


def identifier(number: int) -> str:
    return f"01980000-0000-7000-8000-{number:012x}"


SESSION = identifier(1)


def chain(events: int = EVENTS, *, session: int = 1, note: str = "event", after: Lines | None = None) -> Lines:
    """A good chain, or ``after`` continued."""
    lines = list(after or ())
    head: Head | None = None
    if lines:
        last = parse(lines[-1])
        head = Head(last.sequence, last.event_hash, last.timestamp)
    for number in range(len(lines), events):
        head, line = link(
            head,
            Draft("x.test.note", {"note": f"{note} {number}"}, identifier(2)),
            session_id=identifier(session),
            trace_id=identifier(4),
            event_id=identifier(100 + number),
            timestamp=format_timestamp(1_760_000_000_000_000_000 + number * 1_000),
        )
        lines.append(line)
    return lines


def checkpoint(lines: Lines, size: int | None = None, session: int = 1) -> Checkpoint:
    size = len(lines) if size is None else size
    return Checkpoint(
        f"example.com/agents/{identifier(session)}", size, root_of([leaf_hash(line) for line in lines[:size]])
    )


GOOD = chain()
SIGNED = [checkpoint(GOOD, 4), checkpoint(GOOD, 8), checkpoint(GOOD)]


def edited(lines: Lines) -> Lines:
    return [*lines[:5], lines[5].replace(b"event 5", b"event 9"), *lines[6:]]


def edited_with_its_hash(lines: Lines) -> Lines:
    return [*chain(6, note="forged", after=lines[:5]), *lines[6:]]


def edited_and_relinked(lines: Lines) -> Lines:
    return chain(note="forged", after=lines[:5])


def removed(lines: Lines) -> Lines:
    return [*lines[:5], *lines[7:]]


def inserted(lines: Lines) -> Lines:
    return [*chain(6, note="forged", after=lines[:5]), *lines[5:]]


def repeated(lines: Lines) -> Lines:
    return [*lines[:6], lines[2], *lines[6:]]


def reordered(lines: Lines) -> Lines:
    return [*lines[:5], lines[6], lines[5], *lines[7:]]


def truncated(lines: Lines) -> Lines:
    return lines[:9]


def rewritten(lines: Lines) -> Lines:
    return chain(note="forged")


def swapped(lines: Lines) -> Lines:
    return chain(session=7)


@dataclass(frozen=True)
class Row:
    """One attack; ``alone`` and ``signed`` are kind, code and the event named, without and with checkpoints."""

    attack: str
    do: Callable[[Lines], Lines]
    alone: tuple[str, str, int] | None
    signed: tuple[str, str, int]


TABLE = (
    Row("edit", edited, ("edited", "hash_mismatch", 5), ("edited", "hash_mismatch", 5)),
    Row("edit, with its hash", edited_with_its_hash, ("edited", "chain_broken", 6), ("edited", "chain_broken", 6)),
    Row("edit, with all later hashes", edited_and_relinked, None, ("forked", "checkpoint_mismatch", 4)),
    Row("delete", removed, ("removed", "chain_broken", 5), ("removed", "chain_broken", 5)),
    Row("insert", inserted, ("inserted", "chain_broken", 6), ("inserted", "chain_broken", 6)),
    Row("repeat", repeated, ("inserted", "chain_broken", 6), ("inserted", "chain_broken", 6)),
    Row("reorder", reordered, ("reordered", "chain_broken", 5), ("reordered", "chain_broken", 5)),
    Row("truncate", truncated, None, ("truncated", "truncated", 9)),
    Row("rewrite everything", rewritten, None, ("rewritten", "checkpoint_mismatch", 0)),
    Row("swap sessions", swapped, ("swapped", "session_mismatch", 0), ("swapped", "session_mismatch", 0)),
)


def examined(lines: Lines, checkpoints=()):
    return diagnose(lines, verify(lines, session_id=SESSION), checkpoints)


def told(found) -> tuple[str, str, int] | None:
    return None if found.ok else (found.kind, found.code, found.bad_index)


def test_a_good_chain_agrees_with_every_checkpoint_of_it():
    found = examined(GOOD, reversed(SIGNED))
    assert (found.ok, found.events, found.covered, found.checkpoints) == (True, EVENTS, EVENTS, 3)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.attack)
def test_an_attack_is_convicted_given_a_checkpoint_and_as_the_table_says_without(row):
    lines = row.do(GOOD)
    assert told(examined(lines)) == row.alone
    assert told(examined(lines, SIGNED)) == row.signed
    assert not examined(lines, SIGNED[2:]).ok  # one is enough


def test_the_page_says_the_same_of_every_attack():
    page = SPEC.read_text().partition("### What was done to it")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| ([a-z, ]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE))
    for row in TABLE:
        expected = f"`{row.alone[0]}`" if row.alone else "**not seen**"
        assert rows[row.attack].strip() == expected, row.attack


def test_a_fork_of_the_signer_is_seen_whichever_branch_is_shown():
    branch = chain(note="other", after=GOOD[:4])
    for lines in (GOOD, branch):
        found = examined(lines, [SIGNED[0], checkpoint(GOOD, 10), checkpoint(branch, 10)])
        assert (found.ok, found.kind, found.code) == (False, "forked", "checkpoint_mismatch")
        assert "two different histories of 10 events" in str(found.message)
        assert not examined(lines, [checkpoint(GOOD, 9), checkpoint(branch, 10)]).ok


def test_an_old_checkpoint_played_again_does_not_hide_that_a_newer_one_exists():
    """Beside the trace an attacker leaves the old one; elsewhere the newer one was kept."""
    cut = GOOD[:8]
    assert examined(cut, [SIGNED[1]]).ok  # all it has is the old one
    assert told(examined(cut, [SIGNED[1], SIGNED[2]])) == ("truncated", "truncated", 8)


def test_what_an_old_checkpoint_does_not_cover_is_said():
    found = examined(GOOD, [SIGNED[1]])
    assert (found.ok, found.covered) == (True, 8)
    assert "For the last 4 only the chain speaks" in guarantee(found, "outside", "example.com/agents")


def test_cut_off_and_written_anew_is_not_taken_for_one_of_them_only():
    found = examined(chain(6, note="forged"), SIGNED)
    assert told(found) == ("rewritten", "checkpoint_mismatch", 0)
    assert "none of it could be compared" in str(examined(GOOD[:2], SIGNED).message)


def test_a_checkpoint_of_more_events_never_agrees_whatever_root_it_has():
    boasting = Checkpoint(f"example.com/agents/{SESSION}", EVENTS + 5, checkpoint(GOOD).root)
    assert told(examined(GOOD, [boasting])) == ("truncated", "truncated", EVENTS)


def test_an_empty_file_is_truncated_where_something_was_signed():
    assert told(examined([], SIGNED)) == ("truncated", "truncated", 0)
    assert examined([]).ok


def test_a_torn_last_line_is_truncated():
    found = diagnose(GOOD, verify(GOOD, tail=b'{"a'), SIGNED[:1])
    assert (found.kind, found.code, found.covered) == ("truncated", "truncated", 4)


def test_a_chain_with_fitting_hashes_that_no_writer_writes_is_rewritten():
    backwards = chain(3)
    last = parse(backwards[2])
    head = Head(last.sequence, last.event_hash, "")
    _, early = link(
        head,
        Draft("x.test.note", {}, identifier(2)),
        session_id=SESSION,
        trace_id=identifier(4),
        event_id=identifier(9),
        timestamp=format_timestamp(1_000_000_000),
    )
    assert told(examined([*backwards, early])) == ("rewritten", "timestamp_regression", 3)
    found = diagnose(GOOD, verify(GOOD, expect_head=Head(5, "0" * 64, "")))
    assert told(found) == ("rewritten", "chain_broken", 5)


def test_the_guarantee_says_how_far_the_evidence_goes():
    alone = guarantee(examined(GOOD), "none")
    assert "cut off" in alone
    assert "--checkpoint" in alone
    beside = guarantee(examined(GOOD, SIGNED), "beside", "example.com/agents")
    assert "could have made both anew" in beside
    outside = guarantee(examined(GOOD, SIGNED), "outside", "example.com/agents")
    assert "signed by example.com/agents" in outside
    assert "made both anew" not in outside
    assert "no end in it" in outside
    _, end = link(
        Head(parse(GOOD[-1]).sequence, parse(GOOD[-1]).event_hash, ""),
        Draft("session.ended", {"reason": "completed", "duration_ms": 1}, identifier(2)),
        session_id=SESSION,
        trace_id=identifier(4),
        event_id=identifier(9),
        timestamp=parse(GOOD[-1]).timestamp,
    )
    whole = [*GOOD, end]
    assert "nothing is missing" in guarantee(examined(whole, [checkpoint(whole)]), "outside", "x")


def cut(lines: Lines, place: int, _other: int, _data: st.DataObject) -> Lines:
    return lines[:place]


def drop(lines: Lines, place: int, _other: int, _data: st.DataObject) -> Lines:
    return [*lines[:place], *lines[place + 1 :]]


def repeat(lines: Lines, place: int, other: int, _data: st.DataObject) -> Lines:
    return [*lines[:place], lines[other], *lines[place:]]


def swap(lines: Lines, place: int, other: int, _data: st.DataObject) -> Lines:
    changed = list(lines)
    changed[place], changed[other] = lines[other], lines[place]
    return changed


def flip(lines: Lines, place: int, _other: int, data: st.DataObject) -> Lines:
    line = bytearray(lines[place])
    line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
    return [*lines[:place], bytes(line), *lines[place + 1 :]]


def relink(lines: Lines, place: int, _other: int, _data: st.DataObject) -> Lines:
    return chain(len(lines), note="forged", after=lines[:place]) if verify(lines[:place]).ok else lines


def foreign(lines: Lines, place: int, _other: int, _data: st.DataObject) -> Lines:
    return [*lines[:place], chain(session=9)[min(place, EVENTS - 1)], *lines[place + 1 :]]


def junk(lines: Lines, place: int, _other: int, _data: st.DataObject) -> Lines:
    return [*lines[:place], b"junk", *lines[place + 1 :]]


@settings(max_examples=60)
@given(data=st.data())
def test_no_mixture_of_attacks_gets_past_a_checkpoint_and_none_is_too_much_for_the_diagnosis(data):
    """Whatever is done, to whichever events: either the bytes are those that were signed, or it is convicted."""
    lines = list(GOOD)
    for _ in range(data.draw(st.integers(0, 4))):
        if lines:
            places = st.integers(0, len(lines) - 1)
            do = data.draw(st.sampled_from([cut, drop, repeat, swap, flip, relink, foreign, junk]))
            lines = do(lines, data.draw(places), data.draw(places), data)
    found = examined(lines, SIGNED)
    assert found.ok == (lines == GOOD)
    if not found.ok:
        assert found.kind
        assert found.code
        assert found.message
        assert lines[: found.covered] == GOOD[: found.covered]
