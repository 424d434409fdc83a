"""One connection, every protocol era.

Rule: each request is served in the era it is written in. Hosts probe with a 2026 ``server/discover`` and then open with a 2025
``initialize`` on the same pipe; a server that fixes its era by the first frame locks them out.
Source: MCP specification 2026-07-28, "Versioning".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import mcp_types as t
from mcp.server.connection import Connection, NotifyOnlyOutbound
from mcp.server.lowlevel.server import Server
from mcp.server.runner import ServerRunner, aclose_shielded, serve_one
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.message import MessageMetadata, SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import ValidationError

from cra_mcp.auth.principal import Principal
from cra_mcp.faces.mcp.dispatcher import KeyedDispatcher

Params = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class _ModernContext:
    """A 2026-era request's channel: notifications and progress pass, requests to the client do not exist."""

    inner: DispatchContext[TransportContext]

    @property
    def transport(self) -> TransportContext:
        return replace(self.inner.transport, can_send_request=False)

    @property
    def can_send_request(self) -> bool:
        return False

    @property
    def request_id(self) -> t.RequestId | None:
        return self.inner.request_id

    @property
    def message_metadata(self) -> MessageMetadata:
        return self.inner.message_metadata

    @property
    def cancel_requested(self) -> Any:
        return self.inner.cancel_requested

    async def send_raw_request(self, method: str, params: Params, opts: CallOptions | None = None) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Params, opts: CallOptions | None = None) -> None:
        await self.inner.notify(method, params, opts)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        await self.inner.progress(progress, total, message)


async def serve(
    server: Server[Principal],
    read: ReadStream[SessionMessage | Exception],
    write: WriteStream[SessionMessage],
    principal: Principal,
) -> None:
    """Serve one connection of ``principal`` until its input ends. Calls under way are then cancelled."""
    dispatcher = KeyedDispatcher(read, write)
    connection = Connection.for_loop(dispatcher)
    handshake = ServerRunner(server, connection, principal, init_options=server.create_initialization_options())
    outbound = NotifyOnlyOutbound(dispatcher)

    async def on_request(dctx: DispatchContext[TransportContext], method: str, params: Params) -> dict[str, Any]:
        if method == "initialize" or not _is_modern(params):
            return await handshake.on_request(dctx, method, params)
        route = classify_inbound_request({"method": method, "params": params})
        if isinstance(route, InboundLadderRejection):
            raise MCPError(code=route.code, message=route.message, data=route.data)
        modern = Connection.from_envelope(
            route.protocol_version, route.client_info, route.client_capabilities, outbound=outbound
        )
        return await serve_one(
            server, _ModernContext(dctx), method, params, connection=modern, lifespan_state=principal
        )

    async def on_notify(dctx: DispatchContext[TransportContext], method: str, params: Params) -> None:
        if connection.initialize_accepted or method == "notifications/initialized":
            await handshake.on_notify(dctx, method, params)
            return
        modern = Connection.from_envelope(LATEST_MODERN_VERSION, None, None, outbound=outbound)
        try:
            await ServerRunner(server, modern, principal).on_notify(_ModernContext(dctx), method, params)
        finally:
            await aclose_shielded(modern)

    async def guarded(dctx: DispatchContext[TransportContext], method: str, params: Params) -> dict[str, Any]:
        try:
            return await on_request(dctx, method, params)
        except (MCPError, ValidationError):
            raise
        except Exception as error:
            # The SDK would put the exception's text on the wire; it may hold anything.
            raise MCPError(code=t.INTERNAL_ERROR, message="Internal server error") from error

    try:
        await dispatcher.run(guarded, on_notify)
    finally:
        await aclose_shielded(connection)


def _is_modern(params: Params) -> bool:
    meta = params.get("_meta") if params else None
    return isinstance(meta, Mapping) and t.PROTOCOL_VERSION_META_KEY in cast("Mapping[str, object]", meta)
