"""What changes in a runtime, told to those who keep others up to date."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_log = logging.getLogger("cra_mcp")


@dataclass(frozen=True, slots=True)
class Change:
    """Something is no longer as it was.

    Attributes:
        kind: ``catalogue``: atlases were loaded or unloaded; ``trace``: a trace has grown; ``approval``: one was asked for
            or settled.
        session_id: whose trace or approval.
    """

    kind: Literal["catalogue", "trace", "approval"]
    session_id: str | None = None


Watcher = Callable[[Change], None]


class Watchers:
    """Those who want to know."""

    def __init__(self) -> None:
        self._watchers: tuple[Watcher, ...] = ()

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Tell ``watcher`` of every change from now on; what is returned ends that."""
        self._watchers = (*self._watchers, watcher)

        def remove() -> None:
            self._watchers = tuple(each for each in self._watchers if each is not watcher)

        return remove

    def tell(self, change: Change) -> None:
        """Tell all of them."""
        for watcher in self._watchers:
            try:
                watcher(change)
            except Exception:  # noqa: BLE001 - whoever watches must not fail what changes
                _log.exception("a watcher failed")

    def grown(self, session_id: str) -> None:
        """A trace has grown."""
        if self._watchers:
            self.tell(Change("trace", session_id))
