"""The requests under way, and how they end when the server stops.

Rule: what is short may finish; then every handler is cancelled, which records its outcome. An answer that has begun is ended as
answers end, so that clients see a close and not a failure.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from cra_mcp.faces.mcp.http.answers import Answer, Refusal
from cra_mcp.faces.mcp.http.limits import is_stream

_LAST_WORD_S: Final = 0.1
_STOPPING: Final = Refusal(503, "stopping", "the server is stopping", "connect again when it is back")
_HEADERS: Final = {"connection": "close", "retry-after": "1"}


class UnderWay:
    """Knows every request under way.

    Args:
        patience_s: seconds that short requests have to finish by themselves.
    """

    def __init__(self, patience_s: float) -> None:
        self.stopping = False
        self._patience_s = patience_s
        self._short: set[anyio.CancelScope] = set()
        self._streams: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()

    def over(self, app: ASGIApp) -> ASGIApp:
        """``app``, whose requests are known."""

        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            if self.stopping:
                await _STOPPING.send(scope, receive, send, _HEADERS)
                return
            kept = self._streams if is_stream(scope) else self._short
            answer = Answer(send)
            with anyio.CancelScope() as cancel:
                kept.add(cancel)
                try:
                    await app(scope, receive, answer.send)
                finally:
                    kept.discard(cancel)
                    self._changed.set()
            if cancel.cancelled_caught:
                await answer.finish(scope, receive, _STOPPING, _HEADERS)

        return known

    async def close(self, end_subscriptions: Callable[[], Awaitable[None]]) -> None:
        """Take no request any more, end the streams, and wait a little for what is short.

        Args:
            end_subscriptions: has them answered with their result, for those who still read.
        """
        self.stopping = True
        await end_subscriptions()
        for cancel in list(self._streams):
            cancel.cancel()
        await self._until_none(self._patience_s)

    async def cancel(self) -> None:
        """End all requests."""
        for cancel in list(self._short):
            cancel.cancel()
        await self._until_none(_LAST_WORD_S)

    async def _until_none(self, within_s: float) -> None:
        with anyio.move_on_after(within_s):
            while self._short or self._streams:
                self._changed = anyio.Event()
                await self._changed.wait()
