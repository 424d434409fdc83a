"""An event loop for programs that have none, on a thread of its own, with the gate open on it."""

import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from cra_mcp.gate.gate import Gate

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class BlockingLoop:
    """Runs calls for ``execute_blocking``; started with the first of them."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._portal: BlockingPortal | None = None
        self._open = ExitStack()
        self._lock = threading.Lock()

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """What ``function`` comes to; raises what it raises."""
        return self._started().call(function)

    def close(self) -> None:
        """End the loop, and the gate on it. Safe to call twice."""
        self._open.close()

    def _started(self) -> "BlockingPortal":
        from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - only programs without a loop need it

        with self._lock:
            if self._portal is None:
                self._portal = self._open.enter_context(start_blocking_portal())
                self._open.enter_context(self._portal.wrap_async_context_manager(self._gate))
            return self._portal
