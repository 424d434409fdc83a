"""What is told of every call to those who measure.

Rule: numbers and codes only: nothing of what was asked or answered, and not who asked. Costs nothing while nobody listens.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from cra_mcp.gate.call import ExecutionOutcome

_log = logging.getLogger("cra_mcp")


@dataclass(frozen=True, slots=True)
class Observation:
    """One call that has ended.

    Attributes:
        status: as in the answer; ``cancelled`` where the caller gave up.
        code: of the fault, or "" where there is none. Codes are a fixed list (specs/carp.md).
        duration_s: from the gate's door to its answer, waiting for people included.
    """

    status: str
    code: str
    duration_s: float


Observer = Callable[[Observation], None]


class Observers:
    """Those who listen."""

    def __init__(self) -> None:
        self._observers: tuple[Observer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Tell ``observer`` of every call from now on; what is returned ends that."""
        self._observers = (*self._observers, observer)

        def remove() -> None:
            self._observers = tuple(each for each in self._observers if each is not observer)

        return remove

    async def watch(self, execute: Awaitable[ExecutionOutcome]) -> ExecutionOutcome:
        """The outcome of a call, told to all who listen."""
        began = time.perf_counter()
        try:
            outcome = await execute
        except anyio.get_cancelled_exc_class():
            self._tell(Observation("cancelled", "cancelled", time.perf_counter() - began))
            raise
        fault = outcome.fault
        code = fault.code if fault is not None else ""
        self._tell(Observation(outcome.status, code, time.perf_counter() - began))
        return outcome

    def _tell(self, observation: Observation) -> None:
        for observer in self._observers:
            try:
                observer(observation)
            except Exception:  # noqa: BLE001 - whoever measures must not fail a call
                _log.exception("an observer of calls failed")
