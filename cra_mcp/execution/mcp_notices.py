"""What an upstream says without being asked: progress, log messages, changes of its lists.

Rule: none of it ends an upstream, and none of it takes up this server. Of progress the newest report of each call is kept, and
handed on a few times a second; the rest concerns nobody here, since the atlas says what there is.
Source: MCP specification, "Progress"; specs/atlas.md, "Upstreams".
"""

import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar, cast

REST_S: Final = 0.05
"""Seconds between two looks at what is kept."""

_AT_ONCE: Final = 32
_PER_S: Final = 20.0
_MAX_CALLS: Final = 1_024  # of which reports are kept: a call has one token, but a server may write any
_PROGRESS: Final = "notifications/progress"

Message = TypeVar("Message")


class Notices(Generic[Message]):
    """Sorts the notifications of one connection."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str | int, _Reports[Message]] = {}

    @property
    def are_waiting(self) -> bool:
        """Whether a report is kept that is still to be handed on."""
        return any(reports.newest is not None for reports in self._calls.values())

    def keeps(self, method: str, params: object, message: Message) -> bool:
        """Whether a notification is not to be handed on, or not now."""
        token = cast("Mapping[str, object]", params).get("progressToken") if isinstance(params, Mapping) else None
        if method != _PROGRESS or not isinstance(token, str | int):
            return True
        if token not in self._calls and len(self._calls) >= _MAX_CALLS:
            del self._calls[next(iter(self._calls))]
        reports = self._calls.setdefault(token, _Reports(self._clock()))
        reports.newest = message
        return reports.take(self._clock()) is None

    def due(self) -> Message | None:
        """A report that was kept and can be handed on now."""
        now = self._clock()
        return next((found for reports in self._calls.values() if (found := reports.take(now)) is not None), None)

    def last_of(self, request_id: object) -> Message | None:
        """The newest report of a call that has been answered, if it was not handed on."""
        reports = self._calls.pop(request_id, None) if isinstance(request_id, str | int) else None
        return reports.newest if reports is not None else None


class _Reports(Generic[Message]):
    """Progress of one call."""

    __slots__ = ("_counted", "_room", "newest")

    def __init__(self, now: float) -> None:
        self.newest: Message | None = None
        self._room = float(_AT_ONCE)
        self._counted = now

    def take(self, now: float) -> Message | None:
        """The newest report, if there is room for another."""
        self._room = min(float(_AT_ONCE), self._room + (now - self._counted) * _PER_S)
        self._counted = now
        newest = self.newest
        if newest is None or self._room < 1:
            return None
        self._room -= 1
        self.newest = None
        return newest
