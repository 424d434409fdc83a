"""Delivery of checkpoints to one sink: in the background, in order, tried again until it succeeds.

Rule: nobody waits for a sink. The queue is bounded: when it is full the oldest goes, which the later ones cover anyway, and that is
counted and told. Source: specs/trace.md, "Copies".
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

_log = logging.getLogger("cra_mcp.trace")
_MAX_WAITING = 256
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class Sink(Protocol):
    """One place copies go to."""

    name: str
    """Its name in messages, without secrets."""

    def deliver(self, session_id: str, size: int, note: bytes) -> None:
        """Hand over one checkpoint; doing so twice does no harm.

        Raises:
            OSError: it was not taken.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """What became of the checkpoints for one sink. ``failures`` counts attempts."""

    sink: str
    delivered: int
    failures: int
    dropped: int
    waiting: int


class Delivery:
    """The queue of one sink and the thread that empties it. Does nothing before the first ``offer``.

    Args:
        sink: where to.
        latest_only: a checkpoint takes the place of an earlier one of its session that is still waiting.
        rest_s: seconds between one that was delivered and the next; none when closing.
    """

    def __init__(self, sink: Sink, *, latest_only: bool = False, rest_s: float = 0.0) -> None:
        self._sink = sink
        self._latest_only = latest_only
        self._rest_s = rest_s
        self._waiting: deque[tuple[str, int, bytes]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._delivered = self._failures = self._dropped = 0
        self._failing = False

    def offer(self, session_id: str, size: int, note: bytes) -> None:
        """Have a checkpoint delivered. Never waits."""
        item = (session_id, size, note)
        with self._changed:
            place = self._place(session_id) if self._latest_only else None
            if place is not None:
                self._waiting[place] = item
            else:
                if len(self._waiting) >= _MAX_WAITING:
                    self._waiting.popleft()
                    self._dropped += 1
                self._waiting.append(item)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="cra-checkpoint-copy", daemon=True)
                self._thread.start()
            self._changed.notify()

    def counts(self) -> DeliveryCounts:
        """What happened so far."""
        with self._changed:
            return DeliveryCounts(self._sink.name, self._delivered, self._failures, self._dropped, len(self._waiting))

    def close(self, deadline: float) -> None:
        """Deliver what is waiting, until ``deadline`` (``time.monotonic``); what is left then is told."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        left = self.counts().waiting
        if left:
            _log.error("%d checkpoints did not reach %s; they are beside the traces", left, self._sink.name)

    def _place(self, session_id: str) -> int | None:
        return next((place for place, item in enumerate(self._waiting) if item[0] == session_id), None)

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                item = self._waiting[0]
            if self._try(item):
                pause_s = _FIRST_PAUSE_S
                with self._changed:
                    self._delivered += 1
                    if (
                        self._waiting and self._waiting[0] is item
                    ):  # else it went as the oldest of a full queue, or a later one came
                        self._waiting.popleft()
                    self._changed.wait_for(lambda: self._closing, self._rest_s)
                continue
            with self._changed:
                if self._closing:
                    return
                self._changed.wait_for(lambda: self._closing, pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _try(self, item: tuple[str, int, bytes]) -> bool:
        try:
            self._sink.deliver(*item)
        except Exception as error:  # noqa: BLE001 - whatever a sink does, the runtime goes on
            self._failures += 1
            if not self._failing:
                reason = error if isinstance(error, OSError) else type(error).__name__
                _log.error("checkpoints do not reach %s: %s; trying again", self._sink.name, reason)
            self._failing = True
            return False
        if self._failing:
            _log.warning("checkpoints reach %s again", self._sink.name)
        self._failing = False
        return True
