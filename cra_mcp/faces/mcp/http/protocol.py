"""One HTTP connection, which waits for its client only so long.

Uvicorn waits for ever for the head of a request, and for a client to read its answer. Here a connection that sends no whole
head, or leaves the answer unread, is dropped; what waited for it is then cancelled as for any client that goes.
"""

import asyncio
import socket
import struct
import sys
from typing import Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from cra_mcp.faces.mcp.http.options import Limits

_NO_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class BoundedProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1 with bounds; ``bounded`` makes a class with its limits."""

    limits: Limits
    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._drop()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has gone."""
        self._head_timer = _cancelled(self._head_timer)
        self._send_timer = _cancelled(self._send_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.limits.send_s, self._drop)

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        self._send_timer = _cancelled(self._send_timer)

    def _drop(self) -> None:
        """Close the connection now: without this the kernel would keep for long what the client doesn't read."""
        connection: socket.socket | None = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _await_head(self) -> None:
        """Wait for the rest of a head; between requests, when nothing of one has come, uvicorn's own timer runs."""
        under_way = cast("RequestResponseCycle | None", self.cycle)
        waiting = under_way is None or under_way.response_complete
        if not waiting:
            self._head_timer = _cancelled(self._head_timer)
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.limits.receive_s, self._drop)


def bounded(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol class of a server with these limits."""
    return cast("type[asyncio.Protocol]", type("Protocol", (BoundedProtocol,), {"limits": limits}))


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
