"""Progress of a call, on its way to the caller.

Rule: what an action reported before it was done is sent before its result. A back end reports from tasks of its own; over HTTP the
stream of a call closes with its result, and what was still waiting to be written would be lost.
"""

from typing import Final

import anyio
import anyio.lowlevel

from cra_mcp.faces.mcp.connection import RequestContext

_WAIT_S: Final = 1.0


class Progress:
    """Hands progress of one call on."""

    def __init__(self, ctx: RequestContext) -> None:
        self._session = ctx.session
        self._wanted = ctx.meta is not None and "progress_token" in ctx.meta
        self._waiting = 0
        self._sent = anyio.Event()

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """Send one report."""
        self._waiting += 1
        try:
            await self._session.report_progress(progress, total, message)
        finally:
            self._waiting -= 1
            self._sent.set()

    async def sent(self) -> None:
        """Wait until all reports are sent; not for long, where the caller doesn't read."""
        if not self._wanted:
            return
        await anyio.lowlevel.checkpoint()  # a report that came with the result starts being sent
        with anyio.move_on_after(_WAIT_S):
            while self._waiting:
                self._sent = anyio.Event()
                await self._sent.wait()
