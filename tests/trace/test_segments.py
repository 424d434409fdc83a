"""A chain over several files reads, verifies and recovers as one."""

import os
from pathlib import Path

import pytest

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.event import Draft, parse, verify
from cra_mcp.trace.file import FileStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
TRACE = "01980000-0000-7000-8000-000000000004"
NOTE = Draft("x.test.note", {"note": "a" * 40}, TRACE)
START_NS = 1_767_323_045_000_000_000
DAY_NS = 86_400_000_000_000


def files_of(folder: Path) -> list[Path]:
    return [folder / f"{SESSION}.trace.jsonl", *sorted((folder / f"{SESSION}.trace.d").glob("*"))]


def make(folder: Path, events: int = 9, *, per_file: int = 2) -> list[bytes]:
    """A chain of small files; the bytes of each."""
    store = FileStore(folder, bounds=Bounds(segment_bytes=(per_file - 1) * 900 + 1))
    store.begin(SESSION, TRACE)
    for _ in range(events):
        store.append(SESSION, [NOTE])
    store.close()
    return [path.read_bytes() for path in files_of(folder)]


def test_files_follow_each_other_named_by_their_first_sequence_and_only_their_owner_reads_them(tmp_path):
    parts = make(tmp_path)
    assert [path.name for path in files_of(tmp_path)[1:]] == [f"{number:016d}.jsonl" for number in (2, 4, 6, 8)]
    assert [part.count(b"\n") for part in parts] == [2, 2, 2, 2, 1]
    if os.name != "nt":
        assert {path.stat().st_mode & 0o777 for path in files_of(tmp_path)} == {0o600}
        assert (tmp_path / f"{SESSION}.trace.d").stat().st_mode & 0o777 == 0o700


def test_all_files_are_read_as_one_chain(tmp_path):
    whole = b"".join(make(tmp_path))
    for store in (FileStore(tmp_path), FileStore(tmp_path)):
        lines = store.read(SESSION)
        assert b"".join(line + b"\n" for line in lines) == whole
        checked = verify(lines, session_id=SESSION)
        assert (checked.ok, checked.events) == (True, 9)
        assert store.head(SESSION) == checked.head
        assert [info.size_bytes for info in store.sessions()] == [len(whole)]
        for after in range(-1, 10):
            assert store.read(SESSION, after=after) == lines[after + 1 :]
            assert store.read(SESSION, after=after, limit=3) == lines[after + 1 : after + 4]
        store.begin(SESSION, TRACE)
        assert store.read(SESSION) == lines
        assert store.head(SESSION) == checked.head
        store.close()


def test_a_page_opens_no_file_it_does_not_need(tmp_path):
    make(tmp_path)
    for path in files_of(tmp_path)[:3]:
        first, *middle, last = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(first + b"can't be read\n" * (len(middle) + 9) + last)
    assert [parse(line).sequence for line in FileStore(tmp_path).read(SESSION, after=6)] == [7, 8]


def test_a_chain_goes_on_in_another_file_when_its_first_event_is_old(tmp_path):
    now = [START_NS]
    bounds = Bounds(segment_age_s=86_400)
    for _ in range(3):
        store = FileStore(tmp_path, clock_ns=lambda: now[0], bounds=bounds)
        store.begin(SESSION, TRACE)
        store.append(SESSION, [NOTE])
        now[0] += DAY_NS // 2
        store.append(SESSION, [NOTE])
        store.close()
    assert [path.read_bytes().count(b"\n") for path in files_of(tmp_path)] == [3, 3]
    assert verify(FileStore(tmp_path).read(SESSION)).ok


def test_events_stored_together_are_in_one_file(tmp_path):
    store = FileStore(tmp_path, bounds=Bounds(segment_bytes=600))
    store.begin(SESSION, TRACE)
    for _ in range(3):
        store.append(SESSION, [NOTE] * 4)
    store.close()
    assert [path.read_bytes().count(b"\n") for path in files_of(tmp_path)] == [4, 4, 4]


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("number", range(5))
def test_a_file_cut_anywhere_ends_the_chain_there_and_what_follows_is_set_aside_whole(tmp_path, number, step):
    parts = make(tmp_path)
    events = [part.count(b"\n") for part in parts]
    ends = [place + 1 for place, byte in enumerate(parts[number]) if byte == 0x0A]
    for cut in sorted({*range(0, len(parts[number]), step), *ends, *(end - 1 for end in ends)}):
        files_of(tmp_path)[0].write_bytes(parts[0])
        for part, first in zip(parts[1:], (2, 4, 6, 8), strict=True):
            (tmp_path / f"{SESSION}.trace.d" / f"{first:016d}.jsonl").write_bytes(part)
        os.truncate(files_of(tmp_path)[number], cut)
        all_left = b"".join(path.read_bytes() for path in files_of(tmp_path))
        store = FileStore(tmp_path)
        before = verify(store.read(SESSION), session_id=SESSION, tail=store.unfinished(SESSION))
        done = store.recover(SESSION)
        good = sum(events[:number]) + sum(end <= cut for end in ends)
        if cut == len(parts[number]):
            good = sum(events)
        assert done.kept == good
        assert before.events == good
        kept = b"".join(path.read_bytes() for path in files_of(tmp_path))
        asides = sorted(tmp_path.glob("*.torn-*"))
        assert kept + b"".join(path.read_bytes() for path in asides) == all_left, "nothing is lost"
        assert bool(asides) == (not before.ok)
        store.begin(SESSION, TRACE)
        assert store.append(SESSION, [NOTE]).sequence == good
        assert verify(store.read(SESSION), session_id=SESSION).ok
        store.close()
        for path in asides:
            path.unlink()


@pytest.mark.parametrize("damage", [b"\0" * 300, b"garbage\n", b"\n", b"{}\n"])
@pytest.mark.parametrize("number", range(5))
def test_damage_between_files_is_found_and_set_aside(tmp_path, number, damage):
    parts = make(tmp_path)
    with files_of(tmp_path)[number].open("ab") as file:
        file.write(damage)
    store = FileStore(tmp_path)
    checked = verify(store.read(SESSION), session_id=SESSION, tail=store.unfinished(SESSION))
    good = sum(part.count(b"\n") for part in parts[: number + 1])
    assert (checked.ok, checked.events) == (False, good)
    done = store.recover(SESSION)
    assert done.kept == good
    assert Path(done.set_aside_to or "").read_bytes() == damage + b"".join(parts[number + 1 :])
    assert Path(done.set_aside_to or "").parent == tmp_path


@pytest.mark.parametrize("number", range(4))
def test_a_missing_file_is_a_gap_and_not_an_end(tmp_path, number):
    parts = make(tmp_path)
    files_of(tmp_path)[number].unlink()
    store = FileStore(tmp_path)
    checked = verify(store.read(SESSION), session_id=SESSION)
    assert (checked.ok, checked.events) == (False, 2 * number)
    assert store.recover(SESSION).kept == 2 * number
    aside = next(tmp_path.glob("*.torn-*"))
    assert aside.read_bytes() == b"".join(parts[number + 1 :])
    store.begin(SESSION, TRACE)
    assert store.append(SESSION, [NOTE]).sequence == 2 * number
    assert verify(FileStore(tmp_path).read(SESSION)).ok
    store.close()


def test_an_empty_file_at_the_end_is_used(tmp_path):
    make(tmp_path, 4)
    folder = tmp_path / f"{SESSION}.trace.d"
    (folder / f"{4:016d}.jsonl").touch(0o600)
    store = FileStore(tmp_path)
    assert store.recover(SESSION).set_aside_to is None
    assert store.head(SESSION).sequence == 3
    store.begin(SESSION, TRACE)
    assert store.append(SESSION, [NOTE]).sequence == 4
    assert (folder / f"{4:016d}.jsonl").stat().st_size
    assert verify(store.read(SESSION)).ok
    store.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such links")
def test_a_link_in_place_of_the_folder_of_files_is_not_followed(tmp_path):
    make(tmp_path / "other")
    folder = tmp_path / "traces"
    make(folder, 1)
    (folder / f"{SESSION}.trace.d").symlink_to(tmp_path / "other" / f"{SESSION}.trace.d")
    store = FileStore(folder, bounds=Bounds(segment_bytes=10))
    for call in (lambda: store.read(SESSION), lambda: store.begin(SESSION, TRACE)):
        with pytest.raises(TraceUnavailableError):
            call()


def test_a_file_that_is_there_already_stops_the_chain_rather_than_being_written_into(tmp_path):
    store = FileStore(tmp_path, bounds=Bounds(segment_bytes=10))
    store.begin(SESSION, TRACE)
    store.append(SESSION, [NOTE])
    folder = tmp_path / f"{SESSION}.trace.d"
    folder.mkdir()
    (folder / f"{1:016d}.jsonl").write_text("precious")
    for _ in range(2):
        with pytest.raises(TraceUnavailableError):
            store.append(SESSION, [NOTE])
    (folder / f"{1:016d}.jsonl").unlink()
    assert store.append(SESSION, [NOTE]).sequence == 1
    store.close()
