"""A disk that fails at every one of its calls: nothing acknowledged is lost, nothing refused is there, and it heals by itself."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp.errors import TraceError, TraceUnavailableError
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.event import Head, parse, verify
from cra_mcp.trace.file import FileStore
from tests.trace.faulty import FaultyDisk

SESSION = "01980000-0000-7000-8000-00000000ab01"
TRACE = "01980000-0000-7000-8000-000000000004"
NEVER_S = 3_600.0  # so that no flush but the one asked for takes place
SMALL = Bounds(segment_bytes=1_500, unflushed_bytes=100_000)


def store_on(disk: FaultyDisk, *, flush_interval_s: float = NEVER_S, bounds: Bounds = SMALL) -> FileStore:
    return FileStore(disk.folder, disk=disk, flush_interval_s=flush_interval_s, bounds=bounds)


class Work:
    """Things to do with a store, and what it acknowledged."""

    def __init__(self, store: FileStore, draft) -> None:
        self.store = store
        self.draft = draft
        self.acknowledged: list[Head] = []
        self.durable: list[Head] = []

    def append(self, *, durable: bool = False, events: int = 1) -> None:
        head = self.store.append(SESSION, [self.draft("x" * 100) for _ in range(events)], durable=durable)
        self.acknowledged.append(head)
        if durable:
            self.durable.append(head)

    def steps(self) -> list[Callable[[], object]]:
        """Three files, flushed and not, ended and begun again."""
        some = [self.append, lambda: self.append(events=3), lambda: self.append(durable=True)]
        end = [lambda: self.store.release(SESSION), self.begin]
        return [self.begin, *some, *some, *end, *some, *some]

    def begin(self) -> None:
        self.store.begin(SESSION, TRACE)

    def run(self) -> int:
        """All of it, a failing step once more; how many failed."""
        failed = 0
        for step in self.steps():
            try:
                step()
            except TraceUnavailableError as error:
                failed += 1 if error.hint else 1_000
                step()
        return failed

    def check(self, reader: FileStore, wanted: list[Head] | None = None, *, exactly: bool = True) -> None:
        lines = reader.read(SESSION)
        checked = verify(lines, session_id=SESSION, tail=reader.unfinished(SESSION))
        assert checked.ok, checked
        hashes = [parse(line).event_hash for line in lines]
        for head in self.acknowledged if wanted is None else wanted:
            assert hashes[head.sequence] == head.event_hash
        if exactly:
            assert len(hashes) == self.acknowledged[-1].sequence + 1


def calls_of_all_steps(tmp_path: Path, draft) -> int:
    disk = FaultyDisk(tmp_path / "counting")
    store = store_on(disk)
    work = Work(store, draft)
    assert work.run() == 0
    assert len(list(disk.folder.rglob("*.jsonl"))) >= 3
    store.close()
    work.check(store)
    return disk.calls


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("short", [False, True])
def test_one_failing_call_anywhere_costs_one_refusal_at_most(tmp_path, draft, error, short):
    calls = calls_of_all_steps(tmp_path, draft)
    assert calls > 40
    for fail_at in range(1, calls + 1):
        disk = FaultyDisk(tmp_path / f"{fail_at}", error, short=short)
        disk.fail_at = fail_at
        store = store_on(disk)
        work = Work(store, draft)
        failed = work.run()
        assert failed <= 1, (fail_at, disk.failed)
        work.check(store)
        work.check(FileStore(disk.folder))  # what another process finds were this one killed now
        store.close()
        assert disk.failed, fail_at
        work.check(FileStore(disk.folder))


@pytest.mark.parametrize("times", [2, 5])
def test_a_disk_that_fails_for_a_while_refuses_for_that_while_and_heals_by_itself(tmp_path, draft, times):
    calls = calls_of_all_steps(tmp_path, draft)
    for fail_at in range(1, calls + 1, 3):
        disk = FaultyDisk(tmp_path / f"{fail_at}", errno.ENOSPC)
        disk.fail_at, disk.times = fail_at, times
        store = store_on(disk)
        work = Work(store, draft)
        for step in work.steps():
            for _ in range(times + 1):
                try:
                    step()
                    break
                except TraceUnavailableError:
                    continue
            else:
                pytest.fail(f"{fail_at}: it does not heal: {disk.failed}")
        work.check(store)
        work.check(FileStore(disk.folder))
        disk.fail_at = None
        store.close()


def test_a_power_cut_after_any_call_leaves_all_that_was_acknowledged_as_durable(tmp_path, draft):
    """With a flush that failed and lost data on the way, and without."""
    calls = calls_of_all_steps(tmp_path, draft)
    for fail_at in (None, *range(1, calls + 1)):
        disk = FaultyDisk(tmp_path / f"{fail_at}")
        disk.fail_at, disk.only = fail_at, frozenset({"sync", "sync_folder"})
        store = store_on(disk)
        work = Work(store, draft)
        for number, step in enumerate(work.steps()):
            try:
                step()
            except TraceUnavailableError:
                step()
            image = tmp_path / f"{fail_at}-image-{number}"
            disk.power_cut(image)
            after = FileStore(image)
            if work.durable or list(image.glob("*.jsonl")):
                after.begin(SESSION, TRACE)
                work.check(after, work.durable, exactly=False)
                after.close()
        disk.fail_at = None
        store.close()
        if fail_at is not None and not disk.failed:
            break


def test_what_a_failed_background_flush_lost_is_written_again_before_the_next_event(tmp_path, draft):
    disk = FaultyDisk(tmp_path / "traces")
    store = store_on(disk)
    work = Work(store, draft)
    work.begin()
    work.append(events=4)
    chain = store._chains[SESSION]
    disk.fail("sync")
    assert chain.file.flush() is False
    assert b"\0" in next(disk.folder.glob("*.jsonl")).read_bytes(), "the disk did lose it"
    disk.fail("sync", times=1_000)
    for _ in range(3):
        with pytest.raises(TraceUnavailableError) as caught:
            work.append()
        assert "flush" in caught.value.message
    disk.fail_at = None
    work.append()
    work.check(store)
    image = tmp_path / "image"
    disk.power_cut(image)
    work.check(FileStore(image), work.acknowledged[:1], exactly=False)
    store.close()


def test_a_chain_nobody_writes_to_is_healed_in_the_background(tmp_path, draft):
    disk = FaultyDisk(tmp_path / "traces")
    disk.fail("sync", times=3)
    store = store_on(disk, flush_interval_s=0.01)
    work = Work(store, draft)
    work.begin()
    work.append(events=4)
    waited = threading.Event()
    for _ in range(1_000):
        if disk.calls > 3:
            break
        waited.wait(0.01)
    assert disk.failed == ["sync"] * 3
    work.append(durable=True)
    work.check(FileStore(disk.folder))
    store.close()


def test_a_trace_whose_end_can_not_be_flushed_is_released_and_says_so(tmp_path, draft):
    disk = FaultyDisk(tmp_path / "traces")
    store = store_on(disk)
    work = Work(store, draft)
    work.begin()
    work.append()
    disk.fail("sync", times=1_000)
    with pytest.raises(TraceUnavailableError):
        store.close()
    assert [info.live for info in FileStore(disk.folder).sessions()] == [False]
    store.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files")
@pytest.mark.parametrize("what", ["deleted", "replaced", "cut"])
def test_a_trace_changed_by_someone_else_while_its_disk_failed_takes_no_more_events(tmp_path, draft, what):
    disk = FaultyDisk(tmp_path / "traces")
    store = store_on(disk)
    work = Work(store, draft)
    work.begin()
    work.append(durable=True)
    disk.fail("sync")
    with pytest.raises(TraceUnavailableError):
        work.append(durable=True)
    path = next(disk.folder.glob("*.jsonl"))
    data = path.read_bytes()
    if what == "cut":
        os.truncate(path, 10)
    else:
        path.unlink()
    if what == "replaced":
        path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(TraceUnavailableError) as caught:
            work.append()
        assert "session" in (caught.value.hint or "")
    with pytest.raises(TraceUnavailableError):
        store.close()


def test_a_chain_far_ahead_of_its_disk_waits_for_it(tmp_path, draft):
    disk = FaultyDisk(tmp_path / "traces")
    disk.only = frozenset({"sync"})
    store = store_on(disk, bounds=Bounds(unflushed_bytes=2_000))
    work = Work(store, draft)
    work.begin()
    for _ in range(40):
        work.append()
    size = store.sessions()[0].size_bytes
    store._flusher.stop()
    assert size // 2_700 <= disk.calls <= size // 2_000 + 1
    store.close()


def test_a_write_that_takes_nothing_and_says_nothing_is_refused(tmp_path, draft):
    class Silent(FaultyDisk):
        def write(self, fd: int, data: bytes) -> int:  # pyright: ignore
            return 0 if self.fail_at is not None else os.write(fd, data)

    disk = Silent(tmp_path / "traces")
    store = store_on(disk)
    work = Work(store, draft)
    work.begin()
    disk.fail_at = 1_000
    with pytest.raises(TraceError):
        work.append()
    disk.fail_at = None
    work.append()
    work.check(store)
    store.close()
