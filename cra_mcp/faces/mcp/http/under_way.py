"""The requests under way, and how they end when the server stops.

Rule: what is short may finish; then every handler is cancelled, which records its outcome. An answer that has begun is ended as
answers end, so that clients see a close and not a failure.
"""

from collections.abc import Callable
from typing import Final

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cra_mcp.faces.mcp.http.answers import Refusal
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
        self._subscriptions: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()

    def over(self, app: ASGIApp) -> ASGIApp:
        """``app``, whose requests are known."""

        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            if self.stopping:
                await _STOPPING.send(scope, receive, send, _HEADERS)
                return
            kept = self._kept(scope)
            answer = _Answer(send)
            with anyio.CancelScope() as cancel:
                kept.add(cancel)
                try:
                    await app(scope, receive, answer.send)
                finally:
                    kept.discard(cancel)
                    self._changed.set()
            if cancel.cancelled_caught:
                await answer.finish(scope, receive)

        return known

    async def close(self, end_subscriptions: Callable[[], None]) -> None:
        """Take no request any more, end the streams, and wait a little for what is short.

        Args:
            end_subscriptions: has them answered with their result.
        """
        self.stopping = True
        end_subscriptions()
        await self._until_none(_LAST_WORD_S, self._subscriptions)
        for cancel in [*self._streams, *self._subscriptions]:
            cancel.cancel()
        await self._until_none(self._patience_s, self._short, self._streams, self._subscriptions)

    async def cancel(self) -> None:
        """End all requests."""
        for cancel in list(self._short):
            cancel.cancel()
        await self._until_none(_LAST_WORD_S, self._short, self._streams, self._subscriptions)

    def _kept(self, scope: Scope) -> set[anyio.CancelScope]:
        if not is_stream(scope):
            return self._short
        return self._streams if scope["method"] == "GET" else self._subscriptions

    async def _until_none(self, within_s: float, *kept: set[anyio.CancelScope]) -> None:
        with anyio.move_on_after(within_s):
            while any(kept):
                self._changed = anyio.Event()
                await self._changed.wait()


class _Answer:
    """How far the answer to a request has got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._done = False

    async def send(self, message: Message) -> None:
        self._begun = True
        self._done = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def finish(self, scope: Scope, receive: Receive) -> None:
        """Bring an answer that was cut off to its end, if its client still reads."""
        with anyio.move_on_after(_LAST_WORD_S):
            if not self._begun:
                await _STOPPING.send(scope, receive, self._send, _HEADERS)
            elif not self._done:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
