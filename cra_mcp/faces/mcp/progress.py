"""Progress of a call, on its way to the caller.

Rule: what an action reported before it was done is sent before its result, but not each report: of those that come faster than
a caller can use them, the newest. A back end reports from tasks of its own; over HTTP the stream of a call closes with its
result, and what was still waiting to be written would be lost.
"""

import asyncio
from typing import Final

import anyio
import anyio.lowlevel

from cra_mcp.faces.mcp.connection import RequestContext

_WAIT_S: Final = 1.0
_AT_ONCE: Final = 32
_PER_S: Final = 20.0


class Progress:
    """Hands progress of one call on."""

    def __init__(self, ctx: RequestContext) -> None:
        self._session = ctx.session
        self.wanted = ctx.meta is not None and "progress_token" in ctx.meta
        """Whether the caller asked for it; nobody else need be asked to report any."""
        self._latest: tuple[float, float | None, str | None] | None = None
        self._sending = False
        self._later: asyncio.Task[None] | None = None
        self._sent = anyio.Event()
        self._ended = anyio.Event()
        self._room = float(_AT_ONCE)
        self._counted = anyio.current_time()

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """Send a report now, or later in place of one that still waits; an action never waits for room."""
        self._latest = (progress, total, message)
        if self._sending:
            return
        self._sending = True
        if self._has_room():
            await self._send()
        else:
            self._later = asyncio.create_task(self._send())
            self._later.add_done_callback(_settled)

    async def sent(self) -> None:
        """Wait until the newest report is sent; not for long, where the caller doesn't read."""
        if not self.wanted:
            return
        await anyio.lowlevel.checkpoint()  # a report that came with the result starts being sent
        self._ended.set()
        with anyio.move_on_after(_WAIT_S):
            while self._sending:
                self._sent = anyio.Event()
                await self._sent.wait()

    def close(self) -> None:
        """Send nothing more."""
        self._latest = None
        if self._later is not None:
            self._later.cancel()

    async def _send(self) -> None:
        try:
            while self._latest is not None:
                if not self._has_room():
                    with anyio.move_on_after(1 / _PER_S):
                        await self._ended.wait()
                newest = self._take()
                if newest is not None:
                    self._room -= 1
                    await self._session.report_progress(*newest)
        finally:
            self._sending = False
            self._sent.set()

    def _take(self) -> tuple[float, float | None, str | None] | None:
        newest, self._latest = self._latest, None
        return newest

    def _has_room(self) -> bool:
        now = anyio.current_time()
        self._room = min(float(_AT_ONCE), self._room + (now - self._counted) * _PER_S)
        self._counted = now
        return self._room >= 1


def _settled(task: asyncio.Task[None]) -> None:
    """Take note of how sending ended: a caller that is gone is told no more."""
    if not task.cancelled():
        task.exception()
