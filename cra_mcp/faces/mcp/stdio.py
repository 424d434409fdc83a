"""Serving one host over standard input and output.

Rule: one process, one principal (whoever started it), one session at a time. A session whose host closes its connection, or asks
us to stop, has completed; one that is cut off has not. Source: specs/mcp.md, "Connection and session".
"""

import asyncio
import os
from dataclasses import dataclass, field

import anyio

from cra_mcp.faces.mcp.front import serve
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession
from cra_mcp.faces.mcp.stopping import stop_requested
from cra_mcp.faces.mcp.wire import LineReader, LineWriter, StandardStreams
from cra_mcp.runtime import Runtime
from cra_mcp.session import EndReason

_LOOKS = 5
_LOOK_S = 0.005


async def serve_stdio(runtime: Runtime, options: ServeOptions) -> None:
    """Serve one host over standard input and output, until it closes them or asks us to stop (SIGTERM, SIGINT, SIGHUP)."""
    host = os.getppid()
    principal = local_principal(runtime, options)
    session = ConnectionSession(runtime, principal, options.goal)
    server = GovernedServer(runtime, options, ProcessSession(session))

    def refused(message: str) -> None:
        server.record_error(lambda: session.seen_by(principal), "invalid_request", f"a message was refused: {message}")

    streams = StandardStreams()
    reason = _Reason()
    # Up to the end: a host that closes the connection and sends SIGTERM at once must not cut off what ends the session.
    with stop_requested() as asked:
        try:
            writer = LineWriter(streams.write_fd)
            async with anyio.create_task_group() as group:
                group.start_soon(_stop_when, asked, server, group.cancel_scope, session, reason)
                await serve(server, LineReader(streams.read_fd, writer, on_refused=refused), writer, principal)
                group.cancel_scope.cancel()
        finally:
            await server.aclose()
            session.close("error" if await _has_died(host, wait=not reason.asked) else reason.value)
            streams.restore()


@dataclass(slots=True)
class _Reason:
    value: EndReason = field(default="completed")
    asked: bool = False


async def _stop_when(
    asked: asyncio.Event,
    server: GovernedServer,
    scope: anyio.CancelScope,
    session: ConnectionSession,
    reason: _Reason,
) -> None:
    await asked.wait()
    reason.asked = True
    if session.busy:
        reason.value = "cancelled"
    await server.listening.aclose()
    scope.cancel()


async def _has_died(host: int, *, wait: bool) -> bool:
    """Whether the process that started us is gone. The input of one that is killed ends a moment before it is gone."""
    for _ in range(_LOOKS if wait else 0):
        if os.getppid() != host:
            break
        await anyio.sleep(_LOOK_S)
    return os.getppid() != host
