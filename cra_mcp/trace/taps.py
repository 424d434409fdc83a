"""Several listeners at the door of a store.

Rule: as each of them: never raises, never waits. Source: ``store.Tap``.
"""

from collections.abc import Sequence

from cra_mcp.trace.event import Head
from cra_mcp.trace.store import Tap


class Taps:
    """Meets ``Tap``: tells all of them, in order."""

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = tuple(taps)

    def grown(self, session_id: str, head: Head, lines: Sequence[bytes]) -> None:
        """See ``Tap.grown``."""
        for tap in self._taps:
            tap.grown(session_id, head, lines)

    def released(self, session_id: str) -> None:
        """See ``Tap.released``."""
        for tap in self._taps:
            tap.released(session_id)
