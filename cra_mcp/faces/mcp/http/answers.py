"""Answers that the HTTP layer gives by itself, before any message is read.

Rule: a refusal is a JSON-RPC error without an id, with a stable code and what to do about it. It never repeats what was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import mcp_types as t
import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SERVER_FAULT = 500
_LAST_WORD_S = 0.1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken.

    Attributes:
        status: HTTP status.
        code: stable identifier (specs/mcp.md lists them).
        message: one line for people.
        hint: what to do next.
    """

    status: int
    code: str
    message: str
    hint: str

    async def send(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str] | None = None) -> None:
        """Answer a request with it."""
        rpc_code = t.INTERNAL_ERROR if self.status >= _SERVER_FAULT else t.INVALID_REQUEST
        error = {"code": rpc_code, "message": self.message, "data": {"error": self.code, "hint": self.hint}}
        body = orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error})
        fixed = {"cache-control": "no-store", **(headers or {})}
        await Response(body, self.status, fixed, "application/json")(scope, receive, send)


class RefusedError(Exception):
    """A request is not taken, found while it is being handled."""

    def __init__(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.headers = headers


class AnswerRefused:
    """Answers with the refusal where an app raises one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._app(scope, receive, send)
        except RefusedError as error:
            await error.refusal.send(scope, receive, send, error.headers)


class Answer:
    """How far the answer to a request has got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._done = False

    async def send(self, message: Message) -> None:
        """Hand a part of it on."""
        self._begun = True
        self._done = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def finish(
        self, scope: Scope, receive: Receive, instead: Refusal, headers: Mapping[str, str] | None = None
    ) -> None:
        """Bring an answer that was cut off to its end, if its client still reads; ``instead`` is said if it had not begun."""
        with anyio.move_on_after(_LAST_WORD_S):
            if not self._begun:
                await instead.send(scope, receive, self._send, headers)
            elif not self._done:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
