"""The chains a file store is writing, and the thread that brings them to disk.

Rule: what can't be recorded is said to the caller each time, and logged once; that it can be again, too.
Source: specs/trace.md, "Files".
"""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.chainfile import ChainFile
from cra_mcp.trace.claim import Claim

_log = logging.getLogger("cra_mcp.trace")


class Chain:
    """A chain that is being written; ``lock`` guards all of it."""

    __slots__ = ("claim", "file", "lock", "released", "session_id", "trace_id", "trouble")

    def __init__(self, session_id: str, file: ChainFile, trace_id: str, claim: Claim) -> None:
        self.session_id = session_id
        self.file = file
        self.trace_id = trace_id
        self.claim = claim
        self.lock = threading.Lock()
        self.released = False
        self.trouble: str | None = None  # what was logged last

    def check(self) -> None:
        """Look whether the chain is where it was put, and whether others can see that it has a writer.

        Raises:
            TraceUnavailableError: it is not, or they can't.
        """
        with self.lock:
            self.file.check()
        if not self.claim.holds():
            raise TraceUnavailableError(
                f"can't record an event: the lock of session {self.session_id} was removed, and can't be made again",
                hint="Another process may write this trace: end the session and start another.",
                reason="unlocked",
            )

    @contextmanager
    def told(self) -> Generator[None]:
        """Log what keeps the chain from being written, once, and that nothing does any more."""
        try:
            yield
        except TraceUnavailableError as error:
            self.tell(error)
            raise
        if self.trouble is not None:
            self.tell(None)

    def tell(self, error: TraceUnavailableError | None) -> None:
        """The same, of an error or of none."""
        before, self.trouble = self.trouble, error.message if error is not None else None
        if error is not None and before != error.message:
            _log.error("session %s: %s. %s", self.session_id, error.message, error.hint or "")
        elif error is None and before is not None:
            _log.warning("session %s: events are recorded again", self.session_id)


class Flusher:
    """Flushes dirty chains to disk, ``interval_s`` after the first write since the last time. Asleep while none is.

    One thread for all of them. A chain whose flush fails is tried again after every interval until it succeeds.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._dirty: list[Chain] = []
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def mark(self, chain: Chain) -> None:
        """Have ``chain`` flushed. What was written before this call is; so a clean one is marked after each write."""
        with self._lock:
            if chain.file.dirty:
                return
            chain.file.dirty = True
            self._dirty.append(chain)
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="cra-trace-flush", daemon=True)
                self._thread.start()
        self._work.set()

    def stop(self) -> None:
        """End the thread. Safe to call twice."""
        self._stopping.set()
        self._work.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            self._work.wait()
            if self._stopping.wait(self._interval_s):
                return
            self._work.clear()
            with self._lock:
                chains, self._dirty = self._dirty, []
            for chain in chains:
                if not self._flush(chain):
                    self.mark(chain)

    @staticmethod
    def _flush(chain: Chain) -> bool:
        """Whether a chain is on disk now. One that is not where it was put is told, and looked at again."""
        try:
            with chain.told():
                if not chain.file.flush():
                    with chain.lock:
                        chain.file.heal()
                if not chain.released:
                    chain.check()
        except TraceUnavailableError:
            return chain.released
        return True
