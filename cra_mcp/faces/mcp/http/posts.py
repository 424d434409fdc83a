"""An MCP session of the 2025 era over Streamable HTTP, where an answer belongs to its POST.

Rule: each request has a key of ours, so that its answer, its progress and its questions reach the POST it came by, whatever ids its
client gives (claude.ai calls each of its requests 1). Only a cancellation, which names nothing but an id, can be ambiguous.
Source: MCP specification 2025-11-25, "Streamable HTTP"; specs/mcp.md, "Ids of requests".
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import anyio
import mcp_types as t
from mcp.server.streamable_http import (
    CONTENT_TYPE_SSE,
    MCP_SESSION_ID_HEADER,
    REQUEST_STREAM_BUFFER_SIZE,
    EventMessage,
    StreamableHTTPServerTransport,
    check_accept_headers,
)
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types.version import LATEST_HANDSHAKE_VERSION
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from cra_mcp.faces.mcp.http.answers import Refusal, RefusedError
from cra_mcp.faces.mcp.http.messages import posted
from cra_mcp.faces.mcp.request_ids import CANCELLED, RequestIds, answered

_NOT_ACCEPTABLE: Final = Refusal(
    406, "not_acceptable", "the answer is JSON or a stream of events", "accept application/json and text/event-stream"
)
_AMBIGUOUS: Final = Refusal(
    409,
    "ambiguous_request_id",
    "several requests with this id are under way in this session, and nothing says which is meant",
    "give each request an id of its own to be able to cancel it",
)
_HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    "Connection": "keep-alive",
    "Content-Type": CONTENT_TYPE_SSE,
}
_GONE: Final = (anyio.ClosedResourceError, anyio.BrokenResourceError)


class PostedSession(StreamableHTTPServerTransport):
    """The SDK's transport of one session, with keys for the ids of requests.

    What begins with an underscore here is not public in the SDK: its version is pinned, and tests notice if it changes.
    """

    def __init__(self, mcp_session_id: str, *, idle_timeout: float | None) -> None:
        super().__init__(mcp_session_id, idle_timeout=idle_timeout)
        self._ids = RequestIds(alone=False)
        self._posts: dict[str, t.RequestId] = {}
        """What their clients call the requests whose POSTs are open."""

    @asynccontextmanager
    async def connect(
        self,
    ) -> AsyncGenerator[tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]]:
        """The streams of the session."""
        async with super().connect() as (read, write):
            yield read, _Settling(write, self._ids)

    async def _handle_post_request(self, scope: Scope, request: Request, receive: Receive, send: Send) -> None:
        if not all(check_accept_headers(request)):
            raise RefusedError(_NOT_ACCEPTABLE)
        message = await posted(request)
        if isinstance(message, t.JSONRPCRequest):
            if message.method == "initialize" or await self._validate_request_headers(request, send):
                await self._answer(self._ids.take(message), message.id, request, send)
        elif await self._validate_request_headers(request, send):
            known = self._known(message)
            await self._create_json_response(None, HTTPStatus.ACCEPTED)(scope, receive, send)
            if known is not None:
                await self._hand_over(SessionMessage(known, metadata=self._message_metadata(request)))

    async def _answer(self, message: t.JSONRPCRequest, wire: t.RequestId, request: Request, send: Send) -> None:
        """Answer one request with a stream of its own, which stays open until it is answered."""
        key = str(message.id)
        events, outgoing = anyio.create_memory_object_stream[dict[str, Any]](0)
        self._sse_stream_writers[key] = events
        self._request_streams[key] = streams = anyio.create_memory_object_stream[EventMessage](
            REQUEST_STREAM_BUFFER_SIZE
        )
        self._posts[key] = wire
        response = EventSourceResponse(
            content=outgoing,
            data_sender_callable=partial(self._run_sse_writer, key, events, streams[1], None),
            headers={**_HEADERS, MCP_SESSION_ID_HEADER: self.mcp_session_id or ""},
        )
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(response, request.scope, request.receive, send)
                keyed = self._create_session_message(message, request, key, LATEST_HANDSHAKE_VERSION)
                if not await self._hand_over(keyed):
                    self._ids.settle(key)
                    await self._clean_up_memory_streams(key)
        finally:
            for stream in (*streams, events, outgoing):
                stream.close()
            self._request_streams.pop(key, None)
            del self._posts[key]

    async def _hand_over(self, message: SessionMessage) -> bool:
        """Give a message to the session; False if it has ended."""
        writer = self._read_stream_writer
        try:
            if writer is not None:
                await writer.send(message)
        except _GONE:
            return False
        return writer is not None

    def _known(self, message: t.JSONRPCMessage) -> t.JSONRPCMessage | None:
        """A message that is no request, as the session is to see it; None: nobody needs to.

        Raises:
            RefusedError: it cancels, and several requests could be meant.
        """
        if not isinstance(message, t.JSONRPCNotification) or message.method != CANCELLED:
            return message
        keys = self._ids.named(message)
        if len(keys) > 1:
            raise RefusedError(_AMBIGUOUS)
        return self._ids.give_up(message, keys[0]) if keys else None

    async def _terminate_unanswered_request(self, request_id: t.RequestId) -> None:
        self._ids.settle(str(request_id))
        await super()._terminate_unanswered_request(request_id)

    def _create_event_data(self, event_message: EventMessage) -> dict[str, Any]:
        message = event_message.message
        wire = self._posts.get(answered(message) or "")
        if wire is not None:
            event_message = EventMessage(message.model_copy(update={"id": wire}), event_message.event_id)
        return super()._create_event_data(event_message)


class _Settling:
    """Writes what a session says, and knows which requests that answers."""

    def __init__(self, inner: WriteStream[SessionMessage], ids: RequestIds) -> None:
        self._inner = inner
        self._ids = ids

    async def send(self, item: SessionMessage, /) -> None:
        """Write one message."""
        key = answered(item.message)
        if key is not None:
            self._ids.settle(key)
        await self._inner.send(item)

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
