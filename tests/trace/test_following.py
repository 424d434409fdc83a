"""Following all traces of a folder: what is added is given once, whole, and nothing else is read."""

from pathlib import Path

import pytest

from cra_mcp.trace import following
from cra_mcp.trace.event import parse
from cra_mcp.trace.following import Follower
from tests.faces.mcp.app import made

FIRST, SECOND = made.identifier(0x5E55), made.identifier(0x5E56)


def lines(session_id: str, count: int = 8, step_ns: int = 7_300_000) -> list[bytes]:
    return made.chain(
        [made.opening(), *[("x.note", {"n": number}, 0) for number in range(1, count)]],
        session_id=session_id,
        step_ns=step_ns,
    )


def add(path: Path, *added: bytes, end: bytes = b"\n") -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(line + end for line in added))


def given(follower: Follower) -> list[bytes]:
    return [grown.line for grown in follower.poll()]


def test_what_is_added_to_any_session_is_given_once_by_time(tmp_path: Path) -> None:
    a, b = lines(FIRST), lines(SECOND, step_ns=5_000_000)
    one, two = (tmp_path / f"{name}.trace.jsonl" for name in (FIRST, SECOND))
    add(one, *a[:2])
    follower = Follower(tmp_path)
    assert given(follower) == []
    add(one, *a[2:5])
    add(two, *b[:4])  # a session that has just begun
    found = follower.poll()
    assert {grown.session_id for grown in found} == {FIRST, SECOND}
    times = [parse(grown.line).timestamp for grown in found]
    assert (times, len(found)) == (sorted(times), 7)
    assert given(follower) == []
    add(two, b[4])
    assert given(follower) == [b[4]]


def test_a_line_is_given_when_it_is_whole(tmp_path: Path) -> None:
    one = tmp_path / f"{FIRST}.trace.jsonl"
    whole = lines(FIRST)
    add(one, whole[0])
    add(one, whole[1][:40], end=b"")
    follower = Follower(tmp_path)
    assert given(follower) == []
    add(one, whole[1][40:90], end=b"")
    assert given(follower) == []
    add(one, whole[1][90:])
    assert given(follower) == [whole[1]]


def test_the_end_of_what_was_there_is_told_by_time(tmp_path: Path) -> None:
    a, b = lines(FIRST), lines(SECOND, step_ns=5_000_000)
    add(tmp_path / f"{FIRST}.trace.jsonl", *a)
    add(tmp_path / f"{SECOND}.trace.jsonl", *b)
    follower = Follower(tmp_path)
    expected = sorted([*a, *b], key=lambda line: parse(line).timestamp)[-3:]
    assert [grown.line for grown in follower.last(3)] == expected
    assert (follower.last(0), len(follower.last(100))) == ([], 16)


def test_a_session_that_goes_on_in_another_file_is_followed_there(tmp_path: Path) -> None:
    whole = lines(FIRST)
    add(tmp_path / f"{FIRST}.trace.jsonl", *whole[:2])
    follower = Follower(tmp_path)
    later = tmp_path / f"{FIRST}.trace.d"
    add(later / f"{2:016d}.jsonl", whole[2])
    assert given(follower) == [whole[2]]
    add(later / f"{3:016d}.jsonl", *whole[3:5])
    assert given(follower) == whole[3:5]
    again = Follower(tmp_path)
    add(later / f"{3:016d}.jsonl", whole[5])
    assert given(again) == [whole[5]]


def test_only_growth_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lines(FIRST)
    add(tmp_path / f"{FIRST}.trace.jsonl", *whole[:7])
    add(tmp_path / f"{SECOND}.trace.jsonl", *lines(SECOND))
    follower = Follower(tmp_path)
    read: list[int] = []
    real = following._read
    monkeypatch.setattr(following, "_read", lambda path, start, end: read.append(end - start) or real(path, start, end))
    assert given(follower) == []
    assert read == []
    add(tmp_path / f"{FIRST}.trace.jsonl", whole[7])
    assert given(follower) == [whole[7]]
    assert read == [len(whole[7]) + 1]


def test_a_trace_that_is_cut_back_or_gone_or_no_file_stops_nothing(tmp_path: Path) -> None:
    whole = lines(FIRST)
    one, two = (tmp_path / f"{name}.trace.jsonl" for name in (FIRST, SECOND))
    add(one, *whole)
    add(two, *lines(SECOND))
    follower = Follower(tmp_path)
    one.write_bytes(b"".join(line + b"\n" for line in whole[:3]))
    two.unlink()
    (tmp_path / f"{made.identifier(3)}.trace.jsonl").symlink_to("/etc/passwd")
    (tmp_path / "notes.trace.jsonl").write_text("no trace\n")
    assert given(follower) == []
    add(one, whole[3])
    assert given(follower) == [whole[3]]


def test_more_files_than_one_round_looks_at_are_looked_at_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LOOKS", 3)
    names = [made.identifier(number) for number in range(10)]
    for name in names:
        add(tmp_path / f"{name}.trace.jsonl", lines(name)[0])
    follower = Follower(tmp_path)
    for name in names:
        add(tmp_path / f"{name}.trace.jsonl", lines(name)[1])
    rounds = [given(follower) for _ in range(4)]
    assert max(map(len, rounds)) <= 6
    assert sorted(line for found in rounds for line in found) == sorted(lines(name)[1] for name in names)


def test_a_folder_that_is_not_there_yet_is_followed_once_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    follower = Follower(folder)
    assert given(follower) == []
    add(folder / f"{FIRST}.trace.jsonl", *lines(FIRST)[:1])
    assert given(follower) == lines(FIRST)[:1]
