"""Checkpoints made while chains are written: when, of what, and never of what contradicts an earlier one."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp.errors import SettingsError, TraceUnavailableError
from cra_mcp.trace import checkpointing
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, join_notes, origin_of, parse_checkpoint
from cra_mcp.trace.checkpointing import Checkpointer
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.keeping import KeptCheckpoints
from cra_mcp.trace.merkle import leaf_hash, root_of

SESSION = "01980000-0000-7000-8000-00000000ab01"
OTHER = "01980000-0000-7000-8000-00000000ab02"
KEY = SignerKey("example.com/agents", bytes(range(32)))
PATIENCE_S = 20


def until(holds: Callable[[], object]) -> None:
    """Wait for another thread, which nothing announces here."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


class Written:
    """A file store with checkpoints."""

    def __init__(
        self,
        folder: Path,
        *,
        every: int = 10,
        interval_s: float = 600.0,
        rest_s: float = 600.0,
        key=lambda: KEY,
        sinks=(),
    ) -> None:
        self.folder = folder
        self.store = FileStore(folder)
        self.kept = KeptCheckpoints(folder)
        self.checkpointer = Checkpointer(
            store=self.store,
            key=key,
            kept=self.kept,
            sinks=sinks,
            every=every,
            interval_s=interval_s,
            quiet_s=rest_s,
            first_s=2 * rest_s,
        )
        self.store.tap = self.checkpointer
        self.store.begin(SESSION, SESSION)

    def close(self) -> None:
        self.store.close()
        self.checkpointer.close()

    def sizes(self, session_id: str = SESSION) -> list[int]:
        """Of the checkpoints, each checked against the stored lines."""
        found = []
        for note in self.kept.read(session_id):
            signed = parse_checkpoint(note)
            signed.verify([KEY.verifier])
            lines = self.store.read(session_id)[: signed.checkpoint.size]
            assert signed.checkpoint == Checkpoint(
                origin_of(KEY.verifier.name, session_id), len(lines), root_of([leaf_hash(line) for line in lines])
            )
            found.append(signed.checkpoint.size)
        return found


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.WARNING, "cra_mcp.trace")
    return caplog


def test_one_is_made_when_a_session_ends(tmp_path, draft):
    written = Written(tmp_path)
    written.store.append(SESSION, [draft(1), draft(2)])
    written.store.append(SESSION, [draft(3)])
    written.close()
    assert written.sizes() == [3]


def test_one_is_made_after_so_many_events_and_none_before(tmp_path, draft):
    written = Written(tmp_path, every=10)
    for number in range(9):
        written.store.append(SESSION, [draft(number)])
    assert written.checkpointer.counts().signed == 0
    written.store.append(SESSION, [draft(9)])
    until(lambda: written.sizes() == [10])
    for number in range(10):
        written.store.append(SESSION, [draft(number)])
    until(lambda: written.sizes() == [10, 20])
    written.close()
    assert written.sizes() == [10, 20]  # nothing is new at the end


def test_one_is_made_after_some_time_and_none_where_nothing_is_new(tmp_path, draft):
    written = Written(tmp_path, interval_s=0.02)
    written.store.append(SESSION, [draft(1)])
    until(lambda: written.sizes() == [1])
    written.store.append(SESSION, [draft(2)])
    until(lambda: written.sizes() == [1, 2])
    written.close()
    assert written.sizes() == [1, 2]


def test_one_is_made_when_a_chain_rests_and_the_first_soon_even_if_it_does_not(tmp_path, draft):
    written = Written(tmp_path, every=10_000, rest_s=0.2)
    written.store.append(SESSION, [draft(1)])
    until(lambda: written.sizes() == [1])
    written.store.append(SESSION, [draft(2)])
    written.store.append(SESSION, [draft(3)])
    until(lambda: written.sizes() == [1, 3])
    written.store.begin(OTHER, OTHER)
    until(lambda: not written.store.append(OTHER, [draft(1)]) or written.sizes(OTHER))
    written.close()


def test_a_chain_that_rests_and_can_not_be_signed_is_not_tried_again_and_again(tmp_path, draft, errors):
    def key():
        tried.append(time.monotonic())
        raise SettingsError("no key", code="checkpoint_key")

    tried: list[float] = []
    written = Written(tmp_path, key=key, rest_s=0.05)
    written.store.append(SESSION, [draft(1)])
    until(lambda: tried)
    time.sleep(0.5)  # ten times the rest
    assert len(tried) == 1
    written.store.append(SESSION, [draft(2)])
    until(lambda: len(tried) == 2)
    written.close()


def test_each_session_has_its_own(tmp_path, draft):
    written = Written(tmp_path)
    written.store.begin(OTHER, OTHER)
    written.store.append(SESSION, [draft(1)])
    written.store.append(OTHER, [draft(1), draft(2)])
    written.store.release(OTHER)
    until(lambda: written.sizes(OTHER) == [2])
    assert written.sizes() == []
    written.close()
    assert written.sizes() == [1]


def test_what_is_signed_is_what_was_recorded_though_the_file_was_changed_meanwhile(tmp_path, draft):
    written = Written(tmp_path)
    written.store.append(SESSION, [draft("paid 100")])
    written.store.append(SESSION, [draft("thanked")], durable=True)
    path = tmp_path / f"{SESSION}.trace.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"paid 100", b"paid 900"))
    written.close()
    checkpoint = parse_checkpoint(written.kept.read(SESSION)[0]).checkpoint
    assert checkpoint.root == root_of([leaf_hash(line) for line in before.splitlines()])


def test_what_was_changed_before_it_was_flushed_is_not_signed(tmp_path, draft, errors):
    written = Written(tmp_path)
    written.store.append(SESSION, [draft("paid 100")])
    written.store.append(SESSION, [draft("thanked")])
    path = tmp_path / f"{SESSION}.trace.jsonl"
    path.write_bytes(path.read_bytes().replace(b"paid 100", b"paid 900"))
    with pytest.raises(TraceUnavailableError) as caught:
        written.close()
    assert caught.value.reason == "changed"
    written.checkpointer.close()
    assert written.kept.read(SESSION) == []


def test_a_trace_that_went_once_it_ended_is_not_signed(tmp_path, draft, errors):
    """Between its last flush and its last checkpoint."""
    path = tmp_path / f"{SESSION}.trace.jsonl"

    def key() -> SignerKey:
        pytest.fail("it is signed")

    written = Written(tmp_path, key=key)
    written.store.append(SESSION, [draft()])
    written.store.append(SESSION, [draft()])
    log = written.checkpointer._logs[SESSION]
    with log.lock:  # the thread that signs waits
        written.store.close()
        os.truncate(path, path.read_bytes().index(b"\n") + 1)
    written.checkpointer.close()
    assert "does not end as it was recorded" in errors.text
    assert written.kept.read(SESSION) == []


def test_events_are_on_disk_before_they_are_signed(tmp_path, draft):
    order: list[str] = []

    class Watched(FileStore):
        def flush(self, session_id):
            order.append("flush")
            super().flush(session_id)

    def key() -> SignerKey:
        order.append("sign")
        return KEY

    store = Watched(tmp_path)
    checkpointer = Checkpointer(store=store, key=key, kept=KeptCheckpoints(tmp_path), every=1, interval_s=600)
    store.tap = checkpointer
    store.begin(SESSION, SESSION)
    store.append(SESSION, [draft()])
    until(lambda: checkpointer.counts().signed == 1)
    store.close()
    checkpointer.close()
    assert order == ["flush", "sign"]


def test_what_can_not_be_flushed_is_not_signed_until_it_can(tmp_path, draft, errors):
    class Stuck(FileStore):
        stuck = True

        def flush(self, session_id):
            if self.stuck:
                raise TraceUnavailableError("the disk refuses")

    store = Stuck(tmp_path)
    checkpointer = Checkpointer(store=store, key=lambda: KEY, kept=KeptCheckpoints(tmp_path), every=1, interval_s=0.02)
    store.tap = checkpointer
    store.begin(SESSION, SESSION)
    store.append(SESSION, [draft()])
    until(lambda: checkpointer.counts().failures)
    assert checkpointer.counts().signed == 0
    store.stuck = False
    until(lambda: checkpointer.counts().signed == 1)
    store.close()
    checkpointer.close()
    assert "the disk refuses [trace_unavailable]" in errors.text


def test_a_continued_chain_gets_checkpoints_that_continue_the_earlier_ones(tmp_path, draft):
    for rounds in range(1, 4):
        written = Written(tmp_path)
        written.store.append(SESSION, [draft(number) for number in range(5)])
        written.close()
        assert written.sizes() == [5 * count for count in range(1, rounds + 1)]


def test_a_chain_released_and_continued_in_one_process_gets_them_too(tmp_path, draft):
    written = Written(tmp_path)
    for _ in range(30):
        written.store.append(SESSION, [draft()])
        written.store.release(SESSION)
        written.store.begin(SESSION, SESSION)
    written.close()
    assert written.sizes()[-1] == 30


def tampered(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"note":0', b'"note":7'))


@pytest.mark.parametrize("damage", [Path.unlink, tampered, lambda path: path.write_bytes(b"")])
def test_nothing_is_signed_that_contradicts_what_was_signed_before(tmp_path, draft, errors, damage):
    written = Written(tmp_path)
    written.store.append(SESSION, [draft(number) for number in range(5)])
    written.close()
    damage(tmp_path / f"{SESSION}.trace.jsonl")
    again = Written(tmp_path, every=1)
    for number in range(9):
        again.store.append(SESSION, [draft(number)])  # calls go on
    until(lambda: again.checkpointer.counts().failures)
    again.store.append(SESSION, [draft()])
    assert not again.checkpointer._logs[SESSION].waiting  # nothing is remembered in vain
    again.close()
    assert len(again.kept.read(SESSION)) == 1
    assert again.checkpointer.counts().failures == 1
    assert "[checkpoint_mismatch]" in errors.text


def test_checkpoints_of_another_key_beside_the_trace_do_not_stand_in_the_way(tmp_path, draft):
    note = SignerKey("example.com/other", bytes(32)).sign(Checkpoint(f"example.com/other/{SESSION}", 99, bytes(32)))
    (tmp_path / f"{SESSION}.checkpoints").write_bytes(join_notes([note, b"junk\n\njunk\n"]))
    written = Written(tmp_path)
    written.store.append(SESSION, [draft()])
    written.close()
    assert len(written.kept.read(SESSION)) == 3


def test_a_checkpoint_cut_off_by_a_crash_is_replaced_by_the_next(tmp_path, draft):
    written = Written(tmp_path)
    written.store.append(SESSION, [draft()])
    written.close()
    path = tmp_path / f"{SESSION}.checkpoints"
    good = path.read_bytes()
    for cut in range(0, len(good), 7):
        path.write_bytes(good + good[:cut])
        again = Written(tmp_path)
        again.store.append(SESSION, [draft()])
        again.close()
        sizes = again.sizes()
        assert sizes == sorted(sizes)
        assert sizes[0] == 1
        assert path.read_bytes().startswith(good)
        path.write_bytes(good)
        (tmp_path / f"{SESSION}.trace.jsonl").write_bytes(
            b"".join((tmp_path / f"{SESSION}.trace.jsonl").read_bytes().splitlines(keepends=True)[:1])
        )


def test_a_key_that_can_not_be_used_is_told_and_stops_no_event(tmp_path, draft, errors):
    def broken() -> SignerKey:
        raise SettingsError("others can read it", code="checkpoint_key")

    written = Written(tmp_path, every=1, key=broken)
    with pytest.raises(SettingsError):
        written.checkpointer.prepare()
    for _ in range(5):
        written.store.append(SESSION, [draft()])
    written.close()
    assert written.checkpointer.counts().signed == 0
    assert written.checkpointer.counts().failures
    assert "others can read it [checkpoint_key]" in errors.text


def test_where_checkpoints_can_not_be_kept_events_still_are(tmp_path, draft, errors):
    (tmp_path / f"{SESSION}.checkpoints").mkdir(parents=True)
    written = Written(tmp_path, every=1)
    for _ in range(3):
        written.store.append(SESSION, [draft()])
    written.close()
    assert len(written.store.read(SESSION)) == 3
    assert written.checkpointer.counts().failures
    assert SESSION in errors.text


def test_a_link_in_place_of_the_checkpoints_is_not_followed(tmp_path, draft, errors):
    target = tmp_path / "elsewhere"
    target.write_bytes(b"precious")
    folder = tmp_path / "traces"
    folder.mkdir()
    (folder / f"{SESSION}.checkpoints").symlink_to(target)
    written = Written(folder)
    written.store.append(SESSION, [draft()])
    written.close()
    assert target.read_bytes() == b"precious"
    assert written.checkpointer.counts().signed == 0


def test_events_that_come_faster_than_they_are_hashed_are_bounded(tmp_path, draft, monkeypatch):
    """Whoever records hashes then, so that memory is not what gives in."""
    monkeypatch.setattr(checkpointing, "_MAX_WAITING", 5)
    entered, go_on = threading.Event(), threading.Event()

    class Slow(FileStore):
        def flush(self, session_id):
            entered.set()
            assert go_on.wait(PATIENCE_S)

    store = Slow(tmp_path)
    checkpointer = Checkpointer(store=store, key=lambda: KEY, kept=KeptCheckpoints(tmp_path), every=2, interval_s=600)
    store.tap = checkpointer
    store.begin(SESSION, SESSION)
    longest = 0
    for number in range(200):
        store.append(SESSION, [draft(number)])
        if number == 1:
            assert entered.wait(PATIENCE_S)
        longest = max(longest, len(checkpointer._logs[SESSION].waiting))
    go_on.set()
    store.close()
    checkpointer.close()
    assert longest < 10
    last = parse_checkpoint(KeptCheckpoints(tmp_path).read(SESSION)[-1]).checkpoint
    assert last.root == root_of([leaf_hash(line) for line in store.read(SESSION)])
    assert last.size == 200


def test_events_of_a_chain_whose_past_can_not_be_read_are_not_piled_up(tmp_path, draft, monkeypatch, errors):
    monkeypatch.setattr(checkpointing, "_MAX_WAITING", 5)
    before = Written(tmp_path)
    before.store.append(SESSION, [draft()])
    before.close()

    class Blind(FileStore):
        blind = True

        def read(self, session_id, *, after=-1, limit=None):
            if self.blind:
                raise TraceUnavailableError("the disk gives nothing")
            return super().read(session_id, after=after, limit=limit)

    store = Blind(tmp_path)
    checkpointer = Checkpointer(store=store, key=lambda: KEY, kept=KeptCheckpoints(tmp_path), every=1, interval_s=600)
    store.tap = checkpointer
    store.begin(SESSION, SESSION)
    for number in range(40):
        store.append(SESSION, [draft(number)])
    until(lambda: len(checkpointer._logs[SESSION].waiting) <= 5)
    store.blind = False
    store.close()
    checkpointer.close()
    last = parse_checkpoint(KeptCheckpoints(tmp_path).read(SESSION)[-1]).checkpoint
    lines = store.read(SESSION)
    assert (last.size, last.root) == (41, root_of([leaf_hash(line) for line in lines]))
    assert "the disk gives nothing [trace_unavailable]" in errors.text
