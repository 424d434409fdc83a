"""What is particular to files: permissions, links, full disks, torn tails, other processes."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cra_mcp.errors import TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace import chainfile
from cra_mcp.trace.event import Draft, Head, verify
from cra_mcp.trace.file import FileStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
OTHER = "01980000-0000-7000-8000-00000000ab09"
TRACE = "01980000-0000-7000-8000-000000000004"
WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).parents[2]

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
        assert "symbolic link" in (caught.value.hint or "")
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
def test_a_folder_that_may_not_be_written_is_refused_with_advice(tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    folder.chmod(0o555)
    for parent in tmp_path.parents:  # someone else must at least reach it
        if os.geteuid() == 0 and parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
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


@pytest.fixture
def full() -> int:
    """A descriptor that has no space."""
    return os.open("/dev/full", os.O_RDWR)


@posix
def test_a_full_disk_refuses_the_append_with_advice_and_leaves_the_chain(store, path, draft, full):
    store.begin(SESSION, TRACE)
    before = store.append(SESSION, [draft()])
    file = store._chains[SESSION].file
    own, file._fd = file._fd, full
    try:
        with pytest.raises(TraceUnavailableError) as caught:
            store.append(SESSION, [draft()])
        assert "space" in (caught.value.hint or "")
        assert store.head(SESSION) == before
        # /dev/full can't be cut either: what it holds now is unknown.
        file._fd = own
        with pytest.raises(TraceUnavailableError):
            store.append(SESSION, [draft()])
    finally:
        file._fd = own
        os.close(full)
    store.release(SESSION)
    store.begin(SESSION, TRACE)
    assert store.append(SESSION, [draft()]).sequence == 1
    assert verify(store.read(SESSION)).ok


@posix
def test_a_flush_the_disk_refuses_takes_the_event_back_and_ends_the_recording(store, path, draft):
    store.begin(SESSION, TRACE)
    before = store.append(SESSION, [draft()], durable=True)
    size = path.stat().st_size
    file = store._chains[SESSION].file
    failing = FailingFile(file)
    with pytest.raises(TraceUnavailableError):
        failing.append(store, draft)
    assert store.head(SESSION) == before
    assert path.stat().st_size == size
    with pytest.raises(TraceUnavailableError) as caught:
        store.append(SESSION, [draft()])
    assert "flushed" in caught.value.message


class FailingFile:
    """Makes the next flush of a trace file fail as a disk would: the descriptor is one that can't be flushed."""

    def __init__(self, file: chainfile.ChainFile) -> None:
        self._file = file

    def append(self, store: FileStore, draft: object) -> None:
        real = self._file._path
        self._file._named = False
        self._file._path = real.parent / "gone" / real.name  # flushing the folder fails
        try:
            store.append(SESSION, [draft()], durable=True)
        finally:
            self._file._path = real


def test_a_trace_deleted_while_it_is_written_takes_no_more_durable_events(store, path, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    path.unlink()
    for _ in range(2):
        with pytest.raises(TraceUnavailableError):
            store.append(SESSION, [draft()], durable=True)


def test_the_background_flush_finds_a_deleted_trace(store, path, draft):
    store.begin(SESSION, TRACE)
    path.unlink()
    file = store._chains[SESSION].file
    store.append(SESSION, [draft()])
    for _ in range(1_000):
        if file.fault is not None:
            break
        threading.Event().wait(0.01)
    with pytest.raises(TraceUnavailableError) as caught:
        store.append(SESSION, [draft()])
    assert "deleted" in caught.value.message


def test_an_interrupt_during_a_write_leaves_the_chain_as_it_was(store, path, draft):
    store.begin(SESSION, TRACE)
    before = store.append(SESSION, [draft()])
    file = store._chains[SESSION].file

    class Interrupting(bytes):
        """Written like bytes; asked for its length afterwards, it is interrupted, as by Ctrl-C."""

        def __len__(self) -> int:
            raise KeyboardInterrupt

    size = path.stat().st_size
    with pytest.raises(KeyboardInterrupt):
        file.append(Interrupting(b"written, but not acknowledged\n"), Head(9, "", ""), durable=False)
    assert path.stat().st_size == size
    assert store.head(SESSION) == before
    assert store.append(SESSION, [draft()]).sequence == 1
    assert verify(store.read(SESSION)).ok


# --- flushing ------------------------------------------------------------------------------------------------------


def test_a_written_event_is_flushed_in_the_background(folder, draft):
    store = FileStore(folder, flush_interval_s=0.001)
    store.begin(SESSION, TRACE)
    file = store._chains[SESSION].file
    for _ in range(3):
        store.append(SESSION, [draft()])
        for _ in range(1_000):
            if not file.dirty:
                break
            threading.Event().wait(0.01)
        assert not file.dirty
    store.close()
    assert not [thread for thread in threading.enumerate() if thread is store._flusher._thread]


def test_no_thread_runs_before_something_is_written(folder):
    store = FileStore(folder)
    store.begin(SESSION, TRACE)
    assert store._flusher._thread is None
    store.close()


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
    assert [file.name for file in folder.glob("*.torn-*")] == [f"{SESSION}.torn-1"]


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
    (folder / ".locks" / f"{SESSION}.owner").write_text("not a number")
    with pytest.raises(TraceLockedError, match="another process"):
        second.begin(SESSION, TRACE)
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
        assert str(process.pid) in caught.value.message
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


def test_errors_say_what_to_do_about_them():
    for number in (errno.ENOSPC, errno.EACCES, errno.EIO, 0):
        error = chainfile.unavailable("record", OSError(number, os.strerror(number)))
        assert error.code == "trace_unavailable"
        assert error.hint
