"""Noticing that an approval was settled elsewhere, while a call waits for its answer.

Rule: another process says nothing to this one; all there is to see is that the database has changed. It is looked at only while a
call waits, and once for all that wait. Source: SQLite documentation, "PRAGMA data_version".
"""

import contextlib
from typing import Final

import anyio

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.gate.attempt import in_thread
from cra_mcp.state.database import StateUnavailableError

_INTERVAL_S: Final = 0.1


class Elsewhere:
    """Watches a ledger for those who wait."""

    def __init__(self, ledger: ApprovalLedger) -> None:
        self._ledger = ledger
        self._looked_at = float("-inf")
        self._version: tuple[int, int] | None = None

    async def settled(self, approval_id: str) -> None:
        """Wait until an approval no longer waits for its answer."""
        seen: tuple[int, int] | None = None
        while True:
            with contextlib.suppress(StateUnavailableError):  # there may be more to see next time
                version = await self._look()
                if version != seen and not await in_thread(lambda: self._ledger.is_pending(approval_id)):
                    self._ledger.tell(await in_thread(lambda: self._ledger.get(approval_id)))
                    return
                seen = version
            await anyio.sleep(_INTERVAL_S)

    async def _look(self) -> tuple[int, int] | None:
        """The version of the ledger, as of just now."""
        now = anyio.current_time()
        if now - self._looked_at >= _INTERVAL_S / 2:
            self._looked_at = now
            self._version = await in_thread(self._ledger.version)
        return self._version
