"""The HTTP+SSE transport of 2024: a stream at ``/sse``, messages posted to ``/messages/``.

Rule: the same server and the same rules as everywhere; kept for hosts that know nothing newer. A message is posted by the
principal that opened the stream; for anybody else there is no such stream.
Source: MCP specification 2024-11-05, "HTTP with SSE".
"""

import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

import anyio
from mcp.server.streamable_http import check_accept_headers
from mcp.shared._context_streams import ContextSendStream, create_context_streams
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cra_mcp.auth.principal import Binding, Principal
from cra_mcp.faces.mcp.connection import PRINCIPAL_SCOPE
from cra_mcp.faces.mcp.front import serve
from cra_mcp.faces.mcp.http.answers import Refusal, RefusedError
from cra_mcp.faces.mcp.http.messages import posted
from cra_mcp.faces.mcp.http.sessions import CONNECTION_SCOPE, HttpSessions
from cra_mcp.faces.mcp.server import GovernedServer

MESSAGES_PATH: Final = "/messages/"
_PING_S: Final = 15.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_NOT_ACCEPTABLE: Final = Refusal(406, "not_acceptable", "the answer is a stream of events", "accept text/event-stream")
_NO_STREAM: Final = Refusal(404, "unknown_session", "there is no such session here", "open a stream at /sse")


@dataclass(frozen=True, slots=True)
class _Stream:
    owner: Binding
    messages: ContextSendStream[SessionMessage | Exception]


class SseTransport:
    """The two endpoints, and the streams that are open."""

    def __init__(self, server: GovernedServer, sessions: HttpSessions) -> None:
        self._server = server
        self._sessions = sessions
        self._streams: dict[str, _Stream] = {}

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, until its client goes.

        Raises:
            RefusedError: it can't be opened.
        """
        if not check_accept_headers(Request(scope))[1]:
            raise RefusedError(_NOT_ACCEPTABLE)
        principal: Principal = scope[PRINCIPAL_SCOPE]
        connection = secrets.token_hex(16)
        self._sessions.open(connection, principal.binding)
        messages, incoming = create_context_streams[SessionMessage | Exception](0)
        self._streams[connection] = _Stream(principal.binding, messages)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            writer = _EventWriter(send)
            await writer.event(
                "endpoint", f"{scope.get('root_path', '')}{MESSAGES_PATH}?session_id={connection}".encode()
            )
            async with anyio.create_task_group() as group:
                group.start_soon(_watch, receive, group.cancel_scope)
                group.start_soon(writer.keep_open)
                await serve(self._server, incoming, writer, principal)
                group.cancel_scope.cancel()
        finally:
            del self._streams[connection]
            self._sessions.close(connection, "completed")
            messages.close()

    async def post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one message for an open stream.

        Raises:
            RefusedError: it can't be taken.
        """
        request = Request(scope, receive)
        message = await posted(request)
        connection = request.query_params.get("session_id", "")
        stream = self._streams.get(connection)
        if stream is None or stream.owner != cast("Principal", scope[PRINCIPAL_SCOPE]).binding:
            raise RefusedError(_NO_STREAM)
        scope[CONNECTION_SCOPE] = connection
        metadata = ServerMessageMetadata(request_context=request)
        try:
            await stream.messages.send(SessionMessage(message, metadata=metadata))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise RefusedError(_NO_STREAM) from None
        await Response("Accepted", status_code=202)(scope, receive, send)


class _EventWriter:
    """Sends messages as events; several tasks may send, each event stays whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = anyio.Lock()

    async def send(self, item: SessionMessage, /) -> None:
        await self.event("message", item.message.model_dump_json(by_alias=True, exclude_unset=True).encode())

    async def event(self, name: str, data: bytes) -> None:
        await self._write(b"event: %s\r\ndata: %s\r\n\r\n" % (name.encode(), data))

    async def keep_open(self) -> None:
        """Say something now and then, so that nobody between closes a silent connection."""
        while True:
            await anyio.sleep(_PING_S)
            await self._write(b": ping\r\n\r\n")

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def aclose(self) -> None:
        """Nothing to close: the answer ends with its request."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


async def _watch(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
