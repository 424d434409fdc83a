"""What is particular to files: permissions, links, full disks, torn tails, other processes."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from cra_mcp.errors import TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace import claim as claim_module
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.disk import Disk
from cra_mcp.trace.event import Draft, verify
from cra_mcp.trace.file import FileStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
OTHER = "01980000-0000-7000-8000-00000000ab09"
TRACE = "01980000-0000-7000-8000-000000000004"
WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).parents[2]

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and /dev/full")
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions, links or signals")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "traces"


@pytest.fixture
def store(folder: Path):
    made = FileStore(folder, flush_interval_s=0.01)
    yield made
    made.close()


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / f"{SESSION}.trace.jsonl"


def start_writer(folder: Path, mode: str, session: str = SESSION) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(folder), session, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def ask_writer(folder: Path, mode: str) -> list[str]:
    with start_writer(folder, mode) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.decode().splitlines()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- form ----------------------------------------------------------------------------------------------------------


def test_nothing_is_created_before_the_first_chain_is_begun(store, folder):
    assert store.sessions() == []
    with pytest.raises(UnknownTraceError):
        store.read(SESSION)
    store.close()
    assert not folder.parent.exists()


@posix
def test_files_are_readable_by_their_owner_only(store, folder, path, draft):
    before = os.umask(0)
    try:
        store.begin(SESSION, TRACE)
    finally:
        os.umask(before)
    store.append(SESSION, [draft()])
    assert mode_of(folder) == mode_of(folder / ".locks") == 0o700
    assert {mode_of(file) for file in folder.rglob("*") if file.is_file()} == {0o600}


def test_the_file_holds_one_canonical_line_per_event(store, path, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft("ä"), draft()])
    assert path.read_bytes() == b"".join(line + b"\n" for line in store.read(SESSION))


def test_files_of_other_names_are_no_traces(store, folder, draft):
    store.begin(SESSION, TRACE)
    for name in ("notes.txt", "x.trace.jsonl", f"{OTHER}.torn-1", f"{OTHER.upper()}.trace.jsonl"):
        (folder / name).write_text("x")
    (folder / f"{OTHER}.trace.jsonl").mkdir()
    assert [info.session_id for info in store.sessions()] == [SESSION]


def test_a_page_is_read_from_a_chain_longer_than_any_buffer(store, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft("x" * 70_000) for _ in range(3)])
    head = store.head(SESSION)
    store.release(SESSION)
    assert store.head(SESSION) == head
    assert len(store.read(SESSION, after=1)) == 1


# --- what stands in the way ----------------------------------------------------------------------------------------


@posix
def test_a_symbolic_link_in_place_of_a_trace_is_not_followed(store, folder, path, tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    folder.mkdir(parents=True)
    path.symlink_to(target)
    for call in (lambda: store.begin(SESSION, TRACE), lambda: store.read(SESSION), lambda: store.recover(SESSION)):
        with pytest.raises(TraceUnavailableError) as caught:
            call()
        assert caught.value.hint
    assert target.read_text() == "precious"
    assert store.sessions() == []


@posix
def test_a_pipe_in_place_of_a_trace_is_refused_without_waiting(store, folder, path):
    folder.mkdir(parents=True)
    os.mkfifo(path)
    for call in (lambda: store.begin(SESSION, TRACE), lambda: store.read(SESSION)):
        with pytest.raises(TraceUnavailableError):
            call()
    path.unlink()
    store.begin(SESSION, TRACE)


def test_a_folder_in_place_of_a_trace_is_refused(store, path):
    path.mkdir(parents=True)
    for call in (lambda: store.begin(SESSION, TRACE), lambda: store.recover(SESSION)):
        with pytest.raises(TraceUnavailableError):
            call()


def test_a_file_in_place_of_the_folder_is_refused_with_advice(tmp_path):
    (tmp_path / "traces").write_text("")
    store = FileStore(tmp_path / "traces")
    for call in (lambda: store.begin(SESSION, TRACE), store.sessions):
        with pytest.raises(TraceUnavailableError) as caught:
            call()
        assert caught.value.hint is not None


@posix
def test_a_folder_that_may_not_be_written_is_refused_with_advice():
    with tempfile.TemporaryDirectory() as outside:  # whoever is not root can't enter the folders of pytest
        Path(outside).chmod(0o755)
        folder = Path(outside) / "traces"
        folder.mkdir(mode=0o555)
        assert ask_writer(folder, "unprivileged") == ["trace_unavailable True"]
        assert list(folder.iterdir()) == []


# --- full disks ----------------------------------------------------------------------------------------------------


@posix
def test_a_write_cut_short_is_taken_back_and_recording_goes_on_when_there_is_room(folder):
    answers = ask_writer(folder, "limited")
    assert answers == ["trace_unavailable True True 0", "trace_unavailable True True 0", "5"]
    reader = FileStore(folder)
    checked = verify(reader.read(SESSION), tail=reader.unfinished(SESSION))
    assert (checked.ok, checked.events) == (True, 6)


@linux
def test_a_full_disk_refuses_the_append_with_advice_and_leaves_the_chain(folder, draft):
    full = os.open("/dev/full", os.O_RDWR)

    class Full(Disk):
        is_full = False

        def write(self, fd: int, data: bytes) -> int:  # pyright: ignore
            return os.write(full if self.is_full else fd, data)

    disk = Full()
    store = FileStore(folder, disk=disk)
    try:
        store.begin(SESSION, TRACE)
        before = store.append(SESSION, [draft()])
        disk.is_full = True
        with pytest.raises(TraceUnavailableError) as caught:
            store.append(SESSION, [draft()])
        assert "space" in (caught.value.hint or "")
        assert store.head(SESSION) == before
        disk.is_full = False
        assert store.append(SESSION, [draft()]).sequence == 1
        assert verify(store.read(SESSION)).ok
    finally:
        store.close()
        os.close(full)


@posix
def test_a_durable_event_that_can_not_be_flushed_is_taken_back(store, folder, path, draft):
    store.begin(SESSION, TRACE)
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(TraceUnavailableError):
        store.append(SESSION, [draft()], durable=True)  # the folder's own entry for it can't be flushed
    assert store.head(SESSION) is None
    assert (moved / path.name).read_bytes() == b""
    with pytest.raises(TraceUnavailableError):
        store.append(SESSION, [draft()])
    moved.rename(folder)
    assert store.append(SESSION, [draft()], durable=True).sequence == 0
    assert verify(store.read(SESSION)).ok


def test_a_trace_deleted_while_it_is_written_takes_no_more_durable_events(store, path, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    path.unlink()
    for _ in range(2):
        with pytest.raises(TraceUnavailableError):
            store.append(SESSION, [draft()], durable=True)
    with pytest.raises(TraceUnavailableError):
        store.close()


@posix
def test_the_background_flush_finds_a_deleted_trace(store, path, draft):
    store.begin(SESSION, TRACE)
    path.unlink()
    with pytest.raises(TraceUnavailableError):  # noqa: PT012 - it takes as long as it takes, within bounds
        for _ in range(3_000):
            store.append(SESSION, [draft()])
            threading.Event().wait(0.01)
    with pytest.raises(TraceUnavailableError):
        store.close()


def test_an_interrupt_at_any_line_of_a_write_never_breaks_the_chain(folder, draft):
    """Ctrl-C raises wherever the main thread is; here at each line that writes, in turn."""
    store = FileStore(folder, flush_interval_s=60)
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    interrupted, step = 0, 0
    while interrupted == step:
        step += 1
        try:
            with _interrupt_at_line(step):
                store.append(SESSION, [draft(step)])
        except KeyboardInterrupt:
            interrupted += 1
        try:
            store.append(SESSION, [draft("after")])
        except TraceUnavailableError:  # interrupted while it was being taken back
            store.release(SESSION)
            store.begin(SESSION, TRACE)
        checked = verify(store.read(SESSION), session_id=SESSION)
        assert checked.ok, (step, checked)
        assert checked.head == store.head(SESSION)
    store.close()
    assert interrupted > 3


@contextmanager
def _interrupt_at_line(number: int) -> Iterator[None]:
    left = [number]

    def trace(frame: FrameType, event: str, _: object):
        if Path(frame.f_code.co_filename).name != "chainfile.py":
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


# --- flushing ------------------------------------------------------------------------------------------------------


def test_a_thread_runs_only_from_the_first_event_to_the_end(folder, draft):
    def running() -> int:
        return sum(thread.name == "cra-trace-flush" for thread in threading.enumerate())

    store = FileStore(folder)
    store.begin(SESSION, TRACE)
    assert running() == 0
    store.append(SESSION, [draft()])
    assert running() == 1
    store.close()
    assert running() == 0


# --- torn and damaged files ----------------------------------------------------------------------------------------


def recovered(folder: Path, path: Path, data: bytes):
    """Recover a trace of exactly ``data``; what was kept and what was set aside."""
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    for old in folder.glob("*.torn-*"):
        old.unlink()
    done = FileStore(folder).recover(SESSION)
    kept = path.read_bytes()
    aside = b"".join(file.read_bytes() for file in folder.glob("*.torn-*"))
    assert kept + aside == data, "nothing is lost"
    assert done.set_aside_bytes == len(aside)
    assert (done.set_aside_to is None) == (not aside) == (done.code is None)
    return done, kept


@pytest.fixture
def data(folder: Path, path: Path) -> bytes:
    """A good file of five events."""
    store = FileStore(folder)
    store.begin(SESSION, TRACE)
    for number in range(5):
        store.append(SESSION, [Draft("x.test.note", {"note": number}, OTHER)])
    store.close()
    return path.read_bytes()


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.long)])
def test_a_file_cut_anywhere_is_recovered_to_its_last_whole_event(folder, path, data, step):
    ends = [place + 1 for place, byte in enumerate(data) if byte == 0x0A]
    for cut in [*range(0, len(data), step), *ends]:
        whole = sum(end <= cut for end in ends)
        done, kept = recovered(folder, path, data[:cut])
        assert done.kept == whole
        assert kept == data[: [0, *ends][whole]]
        assert done.code == (None if len(kept) == cut else "truncated")


@pytest.mark.parametrize("tail", [b"\0" * 4_096, b"garbage", b"garbage\n", b"\n", b"{}\n{}\n", b"\xff" * 10 + b"\n"])
def test_what_follows_the_last_good_event_is_set_aside(folder, path, data, tail):
    done, kept = recovered(folder, path, data + tail)
    assert done.kept == 5
    assert kept == data


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.long)])
def test_a_flipped_bit_anywhere_ends_the_chain_before_its_event(folder, path, data, step):
    ends = [0, *(place + 1 for place, byte in enumerate(data) if byte == 0x0A)]
    for place in range(0, len(data), step):
        changed = bytearray(data)
        changed[place] ^= 4
        done, _ = recovered(folder, path, bytes(changed))
        event = sum(end <= place for end in ends) - 1
        assert done.kept == event, place


def test_a_trace_of_another_session_is_set_aside_whole(folder, path, data):
    other = data.replace(SESSION.encode(), OTHER.encode())
    done, kept = recovered(folder, path, other)
    assert (done.kept, kept) == (0, b"")


def test_beginning_a_torn_chain_recovers_and_continues_it(store, folder, path, data, draft):
    path.write_bytes(data[:-3])
    assert store.unfinished(SESSION) == data[:-3].rpartition(b"\n")[2]
    store.begin(SESSION, TRACE)
    assert store.unfinished(SESSION) == b""
    assert store.append(SESSION, [draft()]).sequence == 4
    assert verify(store.read(SESSION), session_id=SESSION).ok
    assert len(list(folder.glob(f"{SESSION}.torn-*"))) == 1


@posix
def test_each_torn_part_keeps_its_own_file(folder, path, data):
    for number in (1, 2, 3):
        path.write_bytes(data + f"torn {number}".encode())
        done = FileStore(folder).recover(SESSION)
        assert Path(done.set_aside_to or "").read_bytes() == f"torn {number}".encode()
        assert mode_of(Path(done.set_aside_to or "")) == 0o600
    assert len(list(folder.glob("*.torn-*"))) == 3


def test_the_head_of_a_damaged_chain_is_its_last_good_event(store, path, data):
    good = verify(data.splitlines()[:4]).head
    lines = data.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + b"garbage\n")
    assert store.head(SESSION) == good
    path.write_bytes(b"")
    assert store.head(SESSION) is None
    path.write_bytes(b"unfinished")
    assert store.head(SESSION) is None


def test_reading_leaves_out_an_unfinished_tail(store, path, data):
    path.write_bytes(data + b'{"event_hash":')
    assert len(store.read(SESSION)) == 5
    assert store.unfinished(SESSION) == b'{"event_hash":'


def test_reading_a_chain_being_written_stops_at_what_was_acknowledged(store, path, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    with path.open("ab") as file:
        file.write(b"a whole line that is about to be taken back\n")
    assert len(store.read(SESSION)) == 1


# --- other processes -----------------------------------------------------------------------------------------------


def test_two_stores_never_write_one_chain(store, folder, draft):
    store.begin(SESSION, TRACE)
    second = FileStore(folder)
    for call in (lambda: second.begin(SESSION, TRACE), lambda: second.recover(SESSION)):
        with pytest.raises(TraceLockedError) as caught:
            call()
        assert str(os.getpid()) in caught.value.message
    second.begin(OTHER, TRACE)
    assert {info.session_id: info.live for info in second.sessions()} == {SESSION: True, OTHER: True}
    store.release(SESSION)
    second.begin(SESSION, TRACE)
    second.close()


def test_a_chain_another_process_writes_is_locked_until_it_ends_even_by_a_kill(store, folder):
    process = start_writer(folder, "hold")
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        with pytest.raises(TraceLockedError) as caught:
            store.begin(SESSION, TRACE)
        assert f"process {process.pid} on {socket.gethostname()}" in caught.value.message
        assert [info.live for info in store.sessions()] == [True]
        assert len(store.read(SESSION)) == 1
        process.kill()
    assert [info.live for info in store.sessions()] == [False]
    store.begin(SESSION, TRACE)
    assert store.head(SESSION).sequence == 0


def _kill_a_writer(folder: Path, events: int) -> None:
    """Kill a process that writes flat out once it has acknowledged ``events``; nothing acknowledged may be missing."""
    process = start_writer(folder, "flat_out")
    with process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(events)]
        process.kill()
        rest = process.stdout.read()
    acknowledged += [int(line) for line in rest.split(b"\n")[:-1]]
    store = FileStore(folder)
    done = store.recover(SESSION)
    checked = verify(store.read(SESSION), session_id=SESSION, tail=store.unfinished(SESSION))
    assert checked.ok, checked
    assert done.kept == checked.events > acknowledged[-1]
    assert done.code in {None, "truncated"}


@posix
def test_a_killed_writer_loses_nothing_it_acknowledged(folder):
    for round_ in range(3):
        _kill_a_writer(folder, 20 + 111 * round_)


@pytest.mark.long
@posix
def test_fifty_killed_writers_lose_nothing_they_acknowledged(folder):
    for round_ in range(50):
        _kill_a_writer(folder, 1 + (round_ * 37) % 211)


@posix
def test_no_lock_is_left_behind_however_many_take_turns(folder, draft):
    """Eight threads with stores of their own fight over one chain: it is never written by two, and no file of its lock stays."""
    done: list[int] = []

    def write() -> None:
        for _ in range(10):
            store = FileStore(folder)
            while True:
                try:
                    store.begin(SESSION, TRACE)
                    break
                except TraceLockedError:
                    continue
            done.append(store.append(SESSION, [draft()]).sequence)
            store.close()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == list(range(80))
    assert verify(FileStore(folder).read(SESSION)).ok
    assert list((folder / ".locks").iterdir()) == []


@posix
def test_a_lock_whose_file_its_last_owner_removes_meanwhile_is_not_taken(tmp_path, monkeypatch):
    path = tmp_path / "some.lock"
    first = Claim.take(path, "it is used", "wait")
    seize = claim_module._seize

    def give_up_before(fd: int) -> None:
        first.give_up()  # between the opening of its file and the lock on it; later calls change nothing
        seize(fd)

    monkeypatch.setattr(claim_module, "_seize", give_up_before)
    second = Claim.take(path, "it is used", "wait")
    assert path.exists()
    assert Claim.is_taken(path)
    second.give_up()
    assert not path.exists()
    assert not Claim.is_taken(path)


@pytest.mark.parametrize("owner", [b"", b"\x1b[2J 1\n", b"12 host\nand more", b"-3 host\n", b"9" * 4_096])
def test_only_a_well_formed_owner_is_named(tmp_path, owner):
    path = tmp_path / "some.lock"
    claim = Claim.take(path, "it is used", "wait")
    path.write_bytes(owner)
    with pytest.raises(TraceLockedError) as caught:
        Claim.take(path, "it is used", "wait")
    assert caught.value.message == "it is used by another process"
    claim.give_up()


# --- damage of any size --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [b"\0" * 10, b"\0" * 70_000, b"\0" * 200_000])
def test_the_head_is_found_however_much_was_torn_after_it(store, folder, path, rest):
    store.begin(SESSION, TRACE)
    head = store.append(SESSION, [Draft("x.test.note", {}, OTHER)] * 3)
    store.release(SESSION)
    with path.open("ab") as file:
        file.write(rest)
    assert FileStore(folder).head(SESSION) == head


def test_a_recovery_the_disk_refuses_leaves_the_chain_and_nothing_beside_it(store, folder, path, monkeypatch):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [Draft("x.test.note", {}, OTHER)])
    store.release(SESSION)
    with path.open("ab") as file:
        file.write(b"torn")
    before = path.read_bytes()

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Disk, "sync", staticmethod(refuse))
        with pytest.raises(TraceUnavailableError):
            store.recover(SESSION)
    assert path.read_bytes() == before
    assert list(folder.glob("*.torn-*")) == []
    assert store.recover(SESSION).set_aside_bytes == 4
