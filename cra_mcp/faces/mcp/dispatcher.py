"""The SDK's dispatcher, where requests have keys of ours instead of the ids their client gave them.

What begins with an underscore here is not public in the SDK: its version is pinned, and tests notice if it changes.
"""

import contextvars
import dataclasses

import mcp_types as t
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.dispatcher import OnNotify, OnRequest
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import MessageMetadata, ServerMessageMetadata, SessionMessage
from mcp.shared.transport_context import TransportContext

from cra_mcp.faces.mcp.request_ids import CANCELLED, RequestIds, answered


class KeyedDispatcher(JSONRPCDispatcher[TransportContext]):
    """Serves a connection where nothing but ids tells requests apart."""

    def __init__(self, read: ReadStream[SessionMessage | Exception], write: WriteStream[SessionMessage]) -> None:
        super().__init__(read, write, inline_methods=frozenset({"initialize"}))
        self._ids = RequestIds(alone=True)

    async def _dispatch(
        self,
        item: SessionMessage | Exception,
        on_request: OnRequest,
        on_notify: OnNotify,
        sender_ctx: contextvars.Context | None,
    ) -> None:
        taken = item if isinstance(item, Exception) else self._take(item)
        if taken is not None:
            await super()._dispatch(taken, on_request, on_notify, sender_ctx)

    async def _write(self, message: t.JSONRPCMessage, metadata: MessageMetadata = None) -> None:
        key = answered(message)
        wire = self._ids.settle(key) if key is not None else None
        await super()._write(message if wire is None else message.model_copy(update={"id": wire}), metadata)

    def _take(self, item: SessionMessage) -> SessionMessage | None:
        """A message as the SDK is to see it; None: nobody needs to."""
        message = item.message
        if isinstance(message, t.JSONRPCRequest):
            request = self._ids.take(message)
            return SessionMessage(request, self._settling(str(request.id), item.metadata))
        if isinstance(message, t.JSONRPCNotification) and message.method == CANCELLED:
            keys = self._ids.named(message)
            return dataclasses.replace(item, message=self._ids.give_up(message, keys[0])) if keys else None
        return item

    def _settling(self, key: str, metadata: MessageMetadata) -> ServerMessageMetadata:
        async def unanswered() -> None:
            self._ids.settle(key)

        before = metadata if isinstance(metadata, ServerMessageMetadata) else ServerMessageMetadata()
        return dataclasses.replace(before, on_request_unanswered=unanswered)
