"""What ``trace/store.py`` says of every store, held against each."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp.errors import CanonicalError, TraceError, TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.detect.detectors import Detectors
from cra_mcp.trace.event import Draft, format_timestamp, parse, verify
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.memory import MemoryStore
from cra_mcp.trace.redacting import RedactingStore
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.store import TraceStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
OTHER = "01980000-0000-7000-8000-00000000ab09"
TRACE = "01980000-0000-7000-8000-000000000004"
START_NS = 1_767_323_045_000_000_000
HOSTILE_IDS = ["", "..", "../" + SESSION[3:], SESSION.upper(), "x" * 500, "/etc/passwd", SESSION + "\x00"]


class Clock:
    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        return self.ns


STORES: dict[str, Callable[..., TraceStore]] = {
    "memory": lambda path, **given: MemoryStore(**given),
    "file": lambda path, **given: FileStore(path / "traces", **given),
    "sqlite": lambda path, **given: SqliteStore(path / "traces.sqlite3", **given),
    "small files": lambda path, **given: FileStore(path / "traces", bounds=Bounds(segment_bytes=500), **given),
    "redacting": lambda path, **given: RedactingStore(FileStore(path / "traces", **given), Detectors()),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=STORES)
def store(request, tmp_path: Path, clock: Clock):
    made = STORES[request.param](tmp_path, clock_ns=clock)
    yield made
    made.close()


def test_a_new_chain_is_empty(store):
    store.begin(SESSION, TRACE)
    assert store.head(SESSION) is None
    assert store.read(SESSION) == []
    assert store.unfinished(SESSION) == b""


def test_a_store_says_whether_it_could_write_and_leaves_no_chain_for_it(store):
    store.check()
    assert store.sessions() == []
    store.close()
    with pytest.raises(TraceUnavailableError):
        store.check()


def test_events_appended_together_are_linked_in_order_and_share_a_timestamp(store, draft):
    store.begin(SESSION, TRACE)
    head = store.append(SESSION, [draft(1), draft(2), draft(3)])
    assert head.sequence == 2
    assert head == store.head(SESSION)
    events = [parse(line) for line in store.read(SESSION)]
    assert [event.payload["note"] for event in events] == [1, 2, 3]
    assert {event.timestamp for event in events} == {format_timestamp(START_NS)}
    assert {(event.session_id, event.trace_id) for event in events} == {(SESSION, TRACE)}
    assert len({event.event_id for event in events}) == 3


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_appended_verifies(store, draft, durable):
    store.begin(SESSION, TRACE)
    for number in range(20):
        head = store.append(SESSION, [draft(number)], durable=durable)
    assert verify(store.read(SESSION), session_id=SESSION, expect_head=head).ok


def test_time_never_runs_backwards_within_a_chain(store, draft, clock):
    store.begin(SESSION, TRACE)
    first = store.append(SESSION, [draft()])
    clock.ns -= 5_000_000_000
    second = store.append(SESSION, [draft()])
    assert second.timestamp == first.timestamp
    clock.ns += 6_000_000_000
    assert store.append(SESSION, [draft()]).timestamp == format_timestamp(clock.ns)
    assert verify(store.read(SESSION)).ok


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Draft("x.a", {"a": float("nan")}, OTHER), CanonicalError),
        (Draft("no.such.type", {}, OTHER), TraceError),
        (Draft("x.a", {}, "no span"), TraceError),
    ],
)
def test_all_of_an_append_is_stored_or_nothing(store, draft, bad, error):
    store.begin(SESSION, TRACE)
    before = store.append(SESSION, [draft()])
    with pytest.raises(error):
        store.append(SESSION, [draft(), bad, draft()])
    assert store.head(SESSION) == before
    assert len(store.read(SESSION)) == 1
    assert store.append(SESSION, [draft()]).sequence == 1
    assert verify(store.read(SESSION)).ok


def test_an_append_of_nothing_is_refused(store):
    store.begin(SESSION, TRACE)
    with pytest.raises(ValueError, match="nothing"):
        store.append(SESSION, [])


def test_reading_pages_by_sequence(store, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft(number) for number in range(10)])
    lines = store.read(SESSION)
    assert store.read(SESSION, after=3) == lines[4:]
    assert store.read(SESSION, after=3, limit=2) == lines[4:6]
    assert store.read(SESSION, after=-7, limit=2) == lines[:2]
    assert store.read(SESSION, after=9) == store.read(SESSION, after=10**9) == []
    assert store.read(SESSION, limit=0) == store.read(SESSION, limit=-1) == []
    assert store.read(SESSION, limit=99) == lines


def test_a_chain_must_be_begun_and_not_released_to_be_written(store, draft):
    with pytest.raises(UnknownTraceError):
        store.append(SESSION, [draft()])
    store.begin(SESSION, TRACE)
    head = store.append(SESSION, [draft()])
    store.release(SESSION)
    store.release(SESSION)
    store.release(OTHER)
    with pytest.raises(UnknownTraceError):
        store.append(SESSION, [draft()])
    assert store.head(SESSION) == head
    assert len(store.read(SESSION)) == 1


def test_a_released_chain_is_continued_where_it_ended(store, draft):
    store.begin(SESSION, TRACE)
    first = store.append(SESSION, [draft()])
    store.release(SESSION)
    store.begin(SESSION, OTHER)
    assert store.head(SESSION) == first
    assert store.append(SESSION, [draft()]).sequence == 1
    assert [parse(line).trace_id for line in store.read(SESSION)] == [TRACE, OTHER]
    assert verify(store.read(SESSION)).ok


def test_beginning_a_chain_again_only_changes_its_trace(store, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    store.begin(SESSION, OTHER)
    store.append(SESSION, [draft()])
    assert [parse(line).trace_id for line in store.read(SESSION)] == [TRACE, OTHER]
    assert verify(store.read(SESSION)).ok


@pytest.mark.parametrize("call", ["head", "read", "unfinished", "recover"])
@pytest.mark.parametrize("session_id", [OTHER, *HOSTILE_IDS])
def test_a_chain_that_is_not_there_is_unknown(store, call, session_id):
    store.begin(SESSION, TRACE)
    with pytest.raises(UnknownTraceError):
        getattr(store, call)(session_id)


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_only_identifiers_become_chains(store, hostile):
    for ids in ((hostile, TRACE), (SESSION, hostile)):
        with pytest.raises(TraceError) as caught:
            store.begin(*ids)
        assert caught.value.code == "invalid_identifier"
    assert store.sessions() == []


def test_chains_are_listed_with_the_last_written_first(store, draft, clock):
    assert store.sessions() == []
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    clock.ns += 1_000_000_000
    store.begin(OTHER, TRACE)
    store.append(OTHER, [draft(), draft()])
    store.release(SESSION)
    listed = store.sessions()
    assert [(info.session_id, info.live) for info in listed] == [(OTHER, True), (SESSION, False)]
    assert [info.size_bytes for info in listed] == [
        sum(len(line) + 1 for line in store.read(info.session_id)) for info in listed
    ]
    assert all(len(info.modified) == 27 for info in listed)


def test_recovering_a_whole_chain_changes_nothing(store, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft(), draft()])
    with pytest.raises(TraceLockedError):
        store.recover(SESSION)
    store.release(SESSION)
    lines = store.read(SESSION)
    done = store.recover(SESSION)
    assert (done.kept, done.set_aside_bytes, done.set_aside_to, done.code) == (2, 0, None, None)
    assert store.read(SESSION) == lines


def test_a_closed_store_takes_nothing_more_and_still_reads(store, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    store.close()
    store.close()
    with pytest.raises(UnknownTraceError):
        store.append(SESSION, [draft()])
    with pytest.raises(TraceUnavailableError):
        store.begin(SESSION, TRACE)
    assert verify(store.read(SESSION)).ok
    assert [info.live for info in store.sessions()] == [False]


def test_eight_threads_never_fork_a_chain(store, draft):
    store.begin(SESSION, TRACE)
    start = threading.Barrier(8)
    heads: list[int] = []

    def write(number: int) -> None:
        start.wait()
        heads.extend(store.append(SESSION, [draft(f"{number}.{step}"), draft()]).sequence for step in range(50))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(heads) == list(range(1, 800, 2))
    checked = verify(store.read(SESSION), session_id=SESSION)
    assert (checked.ok, checked.events) == (True, 800)


def test_a_store_is_not_remote(store):
    assert type(store).remote is False


class Listener:
    """A tap that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.heads: list[int] = []
        self.given_up: list[str] = []

    def grown(self, session_id, head, lines):
        assert session_id == SESSION
        self.lines += lines
        self.heads.append(head.sequence)

    def released(self, session_id):
        self.given_up.append(session_id)


def test_a_tap_is_told_every_stored_line_once_and_in_order_and_of_the_end(store, draft):
    store.tap = listener = Listener()
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft(1), draft(2)])
    with pytest.raises(CanonicalError):
        store.append(SESSION, [draft(float("nan"))])
    store.append(SESSION, [draft(3)], durable=True)
    assert listener.lines == store.read(SESSION)
    assert listener.heads == [1, 2]
    assert listener.given_up == []
    store.release(SESSION)
    store.release(SESSION)
    assert listener.given_up == [SESSION]


def test_threads_that_append_at_once_are_told_in_the_order_of_the_chain(store, draft):
    store.tap = listener = Listener()
    store.begin(SESSION, TRACE)
    threads = [
        threading.Thread(target=lambda: [store.append(SESSION, [draft(), draft()]) for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listener.lines == store.read(SESSION)
    assert listener.heads == sorted(listener.heads)


def test_a_chain_that_is_written_can_be_flushed_and_no_other(store, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    store.flush(SESSION)
    store.release(SESSION)
    for session_id in (SESSION, OTHER):
        with pytest.raises(UnknownTraceError):
            store.flush(session_id)
