"""Export while events are made: from the store's door, over a bounded queue and a thread, to a sink.

Rule: a call pays for an append to a queue, and never waits. What finds the queue full is left out and counted; what can't be
delivered is kept in a dead-letter file of stored lines, which ``trace export`` reads. Nothing is left out without being said.
Source: specs/export.md, "Live export".
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cra_mcp.errors import TraceError
from cra_mcp.folders import make_private, open_private
from cra_mcp.trace.event import Head
from cra_mcp.trace.export.delivering import TIMEOUT_S, DeliveryError, Sink
from cra_mcp.trace.export.record import Record, Recorder

_log = logging.getLogger("cra_mcp.export")

MAX_EVENTS: Final = 20_000
MAX_BYTES: Final = 67_108_864
_BATCH: Final = 64
_PAUSE_S: Final = (
    0.00005  # between events: a thread that never pauses takes the interpreter from calls for milliseconds
)
_LOOK_S: Final = 0.2
_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 30.0
_ATTEMPTS: Final = 8  # a minute and a half with the waits between them
_END_S: Final = 3.0
_MAX_DEAD_BYTES: Final = 268_435_456
_TELL_EVERY_S: Final = 10.0


class LiveExport:
    """One sink and its queue.

    Args:
        sink: the receiver.
        dead_letters: file for what it did not take; made when first needed, for its owner only.
        max_events: events that may wait; what comes beyond is left out and counted.
    """

    def __init__(self, sink: Sink, dead_letters: Path, *, max_events: int = MAX_EVENTS) -> None:
        self._sink = sink
        self._dead_letters = dead_letters
        self._max_events = max_events
        self._queue: deque[Sequence[bytes]] = deque()
        self._waiting = self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._recorder = Recorder()
        self._ending = threading.Event()
        self._until = float("inf")
        self._told = float("-inf")
        self._told_dead = self._told_dropped = 0
        self._under_way: list[bytes] = []
        self._healthy = True
        self.sent = self.dropped = self.dead = 0
        self._thread = threading.Thread(target=self._run, name=f"cra-export-{sink.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The sink's."""
        return self._sink.name

    @property
    def waiting(self) -> int:
        """Events in the queue."""
        return self._waiting

    def grown(self, session_id: str, head: Head, lines: Sequence[bytes]) -> None:
        """See ``Tap.grown``: called on the thread of a call."""
        size = sum(map(len, lines))
        with self._lock:
            if self._waiting + len(lines) > self._max_events or self._waiting_bytes + size > MAX_BYTES:
                self.dropped += len(lines)
                return
            self._waiting += len(lines)
            self._waiting_bytes += size
            self._queue.append(lines)

    def released(self, session_id: str) -> None:
        """See ``Tap.released``; nothing is to be done."""

    def close(self) -> None:
        """Deliver what waits, for a few seconds at most; the rest becomes dead letters. Safe to call twice."""
        self._until = min(self._until, time.monotonic() + _END_S)
        self._ending.set()
        self._thread.join(_END_S + TIMEOUT_S)
        if self._thread.is_alive():  # the receiver holds it up
            self._bury([*self._under_way, *self._drain()])
            self._tell(last=True)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = self._take()
            if batch and time.monotonic() > self._until:
                self._bury([*batch, *self._drain()])
            elif batch:
                self._under_way = batch
                self._export(batch)
                self._under_way = []
            elif self._ending.is_set():
                break
            else:
                self._ending.wait(_LOOK_S)
            self._tell(last=False)
        try:
            self._deliver(self._sink.rest(), [])
            self._sink.close()
        except Exception:  # noqa: BLE001 - whatever a sink does, the runtime goes on
            _log.exception("an export did not end well", extra={"sink": self.name})
        self._tell(last=True)

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        while self._queue and len(batch) < _BATCH:
            lines = self._queue.popleft()
            with self._lock:
                self._waiting -= len(lines)
                self._waiting_bytes -= sum(map(len, lines))
            batch.extend(lines)
        return batch

    def _drain(self) -> list[bytes]:
        lines: list[bytes] = []
        while batch := self._take():
            lines.extend(batch)
        return lines

    def _export(self, batch: list[bytes]) -> None:
        records: list[Record] = []
        for line in batch:
            try:
                records.append(self._recorder.record(line))
            except TraceError:
                self._bury([line])
            time.sleep(_PAUSE_S)
        try:
            if self._deliver(self._sink.payloads(records), batch):
                self.sent += len(records)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("an export failed", extra={"sink": self.name})
            self._bury(batch)

    def _deliver(self, payloads: Iterable[bytes], batch: list[bytes]) -> bool:
        """Whether all of them arrived; if not, ``batch`` is among the dead letters."""
        for payload in payloads:
            if payload and not self._insist(payload):
                self._bury(batch)
                return False
        return True

    def _insist(self, payload: bytes) -> bool:
        wait_s = _FIRST_WAIT_S
        for _ in range(_ATTEMPTS):
            try:
                self._sink.deliver(payload)
            except DeliveryError as error:
                self._note(error)
                if error.lasting or self._is_over(wait_s):
                    return False
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
            else:
                if not self._healthy:
                    self._healthy = True
                    _log.warning("an export is taken again", extra={"sink": self.name})
                return True
        return False

    def _is_over(self, wait_s: float) -> bool:
        """Wait before another attempt; whether there is no time for one."""
        if not self._ending.wait(wait_s) and time.monotonic() < self._until:
            return False
        if time.monotonic() + wait_s > self._until:
            return True
        time.sleep(wait_s)
        return False

    def _note(self, error: DeliveryError) -> None:
        if self._healthy:
            self._healthy = False
            _log.warning("an export is not taken; it is tried again", extra={"sink": self.name, "why": str(error)})

    def _bury(self, lines: list[bytes]) -> None:
        """Keep what could not be delivered; where that fails too, it is still in its trace, and counted."""
        if not lines:
            return
        try:
            make_private(self._dead_letters.parent)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            fd = open_private(self._dead_letters, flags)
            with os.fdopen(fd, "ab", buffering=0) as file:
                if file.tell() > _MAX_DEAD_BYTES:
                    raise OSError
                file.write(b"".join(line + b"\n" for line in lines))
        except OSError:
            with self._lock:
                self.dropped += len(lines)
            return
        self.dead += len(lines)

    def _tell(self, *, last: bool) -> None:
        """Say what was left out or set aside since the last time; not at every batch."""
        if not last and time.monotonic() - self._told < _TELL_EVERY_S:
            return
        for count, before, what in (
            (self.dead, self._told_dead, "events were not taken and are kept as dead letters"),
            (self.dropped, self._told_dropped, "events were left out of an export; they are in their traces"),
        ):
            if count > before:
                _log.warning(what, extra={"sink": self.name, "events": count - before})
                self._told = time.monotonic()
        self._told_dead, self._told_dropped = self.dead, self.dropped
