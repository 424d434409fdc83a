"""Making checkpoints of chains that are being written: soon, when they rest, every so many events, after some time, at the end.

Rule: what a call waits for is one reference put in a queue; hashing, signing and writing happen on a thread of their own. What is
signed is what was recorded, not what the file says by then; nothing is signed that is not on disk, where it was put, or that
contradicts what was signed before. A checkpoint that can't be made is told, tried again, and stops no call.
Source: specs/trace.md, "Checkpoints".
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cra_mcp.errors import CRAError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, origin_of, parse_checkpoint
from cra_mcp.trace.delivery import Delivery, DeliveryCounts, Sink
from cra_mcp.trace.event import Head, parse
from cra_mcp.trace.keeping import KeptCheckpoints
from cra_mcp.trace.merkle import Frontier, leaf_hash
from cra_mcp.trace.store import TraceStore

_log = logging.getLogger("cra_mcp.trace")
_SLICE = 8
"""Batches hashed before other threads get a turn: the interpreter lets one thread run for 5 ms, calls should not wait so long."""
_MAX_WAITING = 20_000
"""Batches of one chain that may wait; further ones are hashed by who records them."""
_CLOSE_S = 5.0
_QUIET_S = 0.5
"""A chain that has not grown for so long is signed: what ends this process then ends it with everything signed."""
_FIRST_S = 1.0
"""So is one that nothing was signed of yet, however fast it grows."""


@dataclass(frozen=True, slots=True)
class CheckpointCounts:
    """What was done so far. ``failures`` counts checkpoints that could not be made, each time.

    ``timestamps`` tells of the authority that is asked for them; None where none is.
    """

    signed: int
    failures: int
    sinks: tuple[DeliveryCounts, ...]
    timestamps: DeliveryCounts | None = None


class _Log:
    """One chain: ``lock`` guards the tree, of which ``waiting`` holds what is to be added."""

    __slots__ = (
        "began",
        "due",
        "ended",
        "fault",
        "grown",
        "head",
        "lock",
        "ready",
        "session_id",
        "signed_size",
        "tree",
        "tried",
        "waiting",
    )

    def __init__(self, session_id: str, due: int) -> None:
        self.session_id = session_id
        self.due = due
        self.began = self.grown = time.monotonic()
        self.tried: float | None = None
        """When it had last grown as a checkpoint was tried last: a fault of the disk is not tried again and again."""
        self.ended = False
        self.ready = False
        self.fault = False
        self.signed_size = 0
        self.tree = Frontier()
        self.head: Head | None = None  # of what is in the tree
        self.waiting: deque[tuple[Head, Sequence[bytes]]] = deque()
        self.lock = threading.Lock()

    def moment(self, quiet_s: float, first_s: float) -> float | None:
        """When it is to be signed for having rested, or for the first time; None: not before it grows."""
        if self.tried == self.grown:
            return None
        quiet = self.grown + quiet_s
        return quiet if self.tried is not None else min(quiet, self.began + first_s)

    def take_in(self, batches: int | None = None) -> bool:
        """Add what is waiting to the tree, or so many batches of it; whether anything is left. The caller holds ``lock``."""
        append, waiting = self.tree.append, self.waiting
        while waiting and batches != 0:
            self.head, lines = waiting.popleft()
            for line in lines:
                append(leaf_hash(line))
            batches = None if batches is None else batches - 1
        return bool(waiting)


class Checkpointer:
    """Makes checkpoints of every chain of a store whose ``tap`` it is. Does nothing before the first event.

    Args:
        store: asked for what a continued chain already has, and to bring a chain to disk.
        key: the key, asked for when the first checkpoint is due.
        is_kept: whether the key is still where it came from. One that is not signs on, which is told: else whoever can delete
            it could stop checkpoints.
        kept: where they are kept beside the traces.
        sinks: where copies go.
        timestamps: who is asked for timestamps; None for nobody.
        every: events after which one is due.
        interval_s: seconds an event may be without one.
        quiet_s: seconds after which a chain that has not grown has one.
        first_s: seconds after which a new chain has its first.
    """

    def __init__(
        self,
        *,
        store: TraceStore,
        key: Callable[[], SignerKey],
        kept: KeptCheckpoints,
        sinks: Sequence[Sink] = (),
        timestamps: Delivery | None = None,
        every: int,
        interval_s: float,
        quiet_s: float = _QUIET_S,
        first_s: float = _FIRST_S,
        is_kept: Callable[[SignerKey], bool] = lambda _: True,
    ) -> None:
        self._store = store
        self._load_key = key
        self._is_kept = is_kept
        self._key: SignerKey | None = None
        self._key_is_gone = False
        self._kept = kept
        self._copies = [Delivery(sink) for sink in sinks]
        self._timestamps = timestamps
        self._deliveries = [*self._copies, *([timestamps] if timestamps is not None else [])]
        self._every = every
        self._interval_s = interval_s
        self._quiet_s = quiet_s
        self._first_s = first_s
        self._logs: dict[str, _Log] = {}
        self._lock = threading.Lock()  # over starting and the set of logs
        self._work = threading.Event()
        self._closing = False
        self._resting = False
        self._thread: threading.Thread | None = None
        self._signed = self._failures = 0

    def prepare(self) -> None:
        """Get the key now, so that one that can't be used is known before anything is recorded.

        Raises:
            SettingsError: ``checkpoint_key``.
        """
        self._signer()

    # --- what a store tells ----------------------------------------------------------------------------------------

    def grown(self, session_id: str, head: Head, lines: Sequence[bytes]) -> None:
        """``lines`` were stored and end with ``head``. Called in the order of the chain; must not raise."""
        log = self._logs.get(session_id)
        if log is None or log.ended:  # one that is continued is looked at anew
            log = self._begin(session_id)
        log.waiting.append((head, lines))
        log.grown = time.monotonic()
        if self._resting:
            self._resting = False
            self._work.set()
        if head.sequence >= log.due:
            log.due = head.sequence + self._every
            self._work.set()
            if len(log.waiting) > _MAX_WAITING and log.ready:
                with log.lock:
                    log.take_in()

    def released(self, session_id: str) -> None:
        """The chain is complete for now, and on disk."""
        log = self._logs.get(session_id)
        if log is not None:
            log.ended = True
            self._work.set()

    # --- life ------------------------------------------------------------------------------------------------------

    def counts(self) -> CheckpointCounts:
        """What was done so far."""
        stamped = self._timestamps.counts() if self._timestamps is not None else None
        return CheckpointCounts(self._signed, self._failures, tuple(each.counts() for each in self._copies), stamped)

    def close(self) -> None:
        """Make the last checkpoints and deliver them, for five seconds at most. Safe to call twice."""
        deadline = time.monotonic() + _CLOSE_S
        with self._lock:
            self._closing = True
            thread = self._thread
        self._work.set()
        if thread is not None:
            thread.join(_CLOSE_S)
        for delivery in self._deliveries:
            delivery.close(deadline)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _begin(self, session_id: str) -> _Log:
        with self._lock:
            log = self._logs[session_id] = _Log(session_id, self._every - 1)
            if self._thread is None and not self._closing:
                thread = threading.Thread(target=self._run, name="cra-checkpoint", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError as error:  # no thread can be had now; the next session tries again
                    self._failures += 1
                    _log.error("no checkpoints are made: %s", error)
            return log

    def _run(self) -> None:
        tick = time.monotonic() + self._interval_s
        while True:
            self._work.wait(self._rest(tick))
            self._work.clear()  # before looking, so that what is said meanwhile is seen now or wakes again
            closing = self._closing
            now = time.monotonic()
            everything = closing or now >= tick
            if everything:
                tick = now + self._interval_s
            for log in self._known():
                moment = log.moment(self._quiet_s, self._first_s)
                rested = moment is not None and now >= moment
                if everything or rested or log.ended or log.due - self._every >= log.signed_size:
                    self._attend(log)
            if closing:
                return

    def _rest(self, tick: float) -> float:
        """For how long there is nothing to do, as far as is known now."""
        self._resting = True  # before looking: what grows from here on is seen now, or wakes
        moments = [moment for log in self._known() if (moment := log.moment(self._quiet_s, self._first_s)) is not None]
        if moments:
            self._resting = False
        return max(0.0, min((tick, *moments)) - time.monotonic())

    def _known(self) -> list[_Log]:
        with self._lock:
            return list(self._logs.values())

    def _attend(self, log: _Log) -> None:
        log.tried = log.grown
        ended = log.ended  # before looking: what was recorded until then is waiting
        if not log.fault:
            with self._told(log):
                self._checkpoint(log, ended=ended)
        if ended and (log.fault or not log.waiting):
            with self._lock:
                if self._logs.get(log.session_id) is log and log.ended:
                    del self._logs[log.session_id]

    def _checkpoint(self, log: _Log, *, ended: bool) -> None:
        if not log.ready:
            if not log.waiting:
                return
            self._catch_up(log)
        while True:
            with log.lock:
                more = log.take_in(_SLICE)
                size, root, head = log.tree.size, log.tree.root(), log.head
            if not more:
                break
            time.sleep(0)  # others first
        if size == log.signed_size or head is None or not self._is_on_disk(log, head, ended=ended):
            return
        signer = self._signer()
        self._look_for(signer)
        note = signer.sign(Checkpoint(origin_of(signer.verifier.name, log.session_id), size, root))
        self._kept.append(log.session_id, note)
        log.signed_size = size
        self._signed += 1
        for delivery in self._deliveries:
            delivery.offer(log.session_id, size, note)

    def _is_on_disk(self, log: _Log, head: Head, *, ended: bool) -> bool:
        """Bring the chain to disk, and see that it is there: else a checkpoint would speak of what is not.

        Raises:
            CRAError: it is not there, or can't be brought there.
        """
        if not ended:
            try:
                self._store.flush(log.session_id)
            except UnknownTraceError:
                return False  # it is being released: that flushes it too, and is told if it succeeds
            return True
        found = self._store.head(log.session_id)
        if found is not None and found.sequence > head.sequence:  # it goes on by now
            line = self._store.read(log.session_id, after=head.sequence - 1, limit=1)[0]
            found = Head(head.sequence, parse(line).event_hash, head.timestamp)
        if found is None or (found.sequence, found.event_hash) != (head.sequence, head.event_hash):
            raise TraceUnavailableError(
                "the trace does not end as it was recorded: it was moved, cut or replaced",
                hint="`cra-mcp trace verify` says what is left of it.",
            )
        return True

    def _catch_up(self, log: _Log) -> None:
        """Take in what the chain had before, and compare it with what was signed then."""
        while len(log.waiting) > _MAX_WAITING:  # this has failed for long: the store has them too
            log.waiting.popleft()
        head, lines = log.waiting[0]
        first = head.sequence + 1 - len(lines)
        before = self._last_signed(log.session_id)
        tree = Frontier()
        agrees = before is None
        for line in self._store.read(log.session_id, limit=first) if first else ():
            agrees = agrees or _is(before, tree)
            tree.append(leaf_hash(line))
        if not agrees and not _is(before, tree):
            log.fault = True
            log.waiting = deque(maxlen=0)  # what is recorded from now on is nothing to remember
            raise CRAError(
                "the chain is not the one that was signed before: no more checkpoints are made of it",
                code="checkpoint_mismatch",
            )
        log.tree = tree
        log.signed_size = before.size if before is not None else 0
        log.ready = True

    def _last_signed(self, session_id: str) -> Checkpoint | None:
        """What this key said of the session last, as far as it is kept beside the trace."""
        for note in reversed(self._kept.read(session_id)):
            try:
                signed = parse_checkpoint(note)
                signed.verify([self._signer().verifier])
            except CRAError:
                continue  # another key's, or changed: copies elsewhere tell
            return signed.checkpoint
        return None

    def _look_for(self, key: SignerKey) -> None:
        is_gone = not self._is_kept(key)
        if is_gone and not self._key_is_gone:
            _log.error(
                "the key of checkpoints, %s, was removed or replaced: it signs until this process ends. Put it back: without it "
                "the next start signs with another key",
                key.verifier.name,
            )
        self._key_is_gone = is_gone

    def _signer(self) -> SignerKey:
        if self._key is None:
            self._key = self._load_key()
        return self._key

    @contextmanager
    def _told(self, log: _Log) -> Generator[None]:
        """Whatever goes wrong with one chain is told, and the thread goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a checkpoint must not stop those of other chains
            self._failures += 1
            reason = f"{error.message} [{error.code}]" if isinstance(error, CRAError) else str(error)
            _log.error("no checkpoint of %s: %s", log.session_id, reason)


def _is(checkpoint: Checkpoint | None, tree: Frontier) -> bool:
    return checkpoint is not None and checkpoint.size == tree.size and checkpoint.root == tree.root()
