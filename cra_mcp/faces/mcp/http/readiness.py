"""Whether the server could record a call now: what ``/readyz`` says.

Rule: one look serves everybody who asks for a while, so that asking, which needs no credential, costs nothing; a disk that does not
answer is not ready. Source: specs/mcp.md, "Over HTTP".
"""

import time
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

from cra_mcp.errors import CRAError, TraceUnavailableError
from cra_mcp.runtime import Runtime

_HOLDS_S: Final = 5.0
_WITHIN_S: Final = 2.0


class Readiness:
    """Looks, and remembers for five seconds."""

    def __init__(self, runtime: Runtime, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._runtime = runtime
        self._clock = clock
        self._lock = anyio.Lock()
        self._limiter = anyio.CapacityLimiter(1)  # of a disk that hangs, one thread waits
        self._until: float | None = None
        self._code: str | None = None
        self.reason: str | None = None
        """What became of the traces, where they are not where they were put; None for any other problem."""

    async def problem(self) -> str | None:
        """The code of what keeps calls from being recorded; None if nothing does."""
        async with self._lock:
            if self._until is None or self._clock() >= self._until:
                self._code = "no_answer"
                with anyio.move_on_after(_WITHIN_S):
                    self._code = await anyio.to_thread.run_sync(
                        self._look, limiter=self._limiter, abandon_on_cancel=True
                    )
                self._until = self._clock() + _HOLDS_S
            return self._code

    def _look(self) -> str | None:
        self.reason = None
        try:
            self._runtime.check()
        except TraceUnavailableError as error:
            self.reason = error.reason
            return error.code
        except CRAError as error:
            return error.code
        return None
