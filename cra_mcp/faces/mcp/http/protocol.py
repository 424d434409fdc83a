"""One HTTP connection, which waits for its client only so long, and keeps only so much of what it says.

Uvicorn waits for ever for the head of a request, and for a client to read its answer. Here a connection that sends no whole
head, or leaves the answer unread, is dropped; what waited for it is then cancelled as for any client that goes.
Uvicorn's faster parser also keeps a head of any size, and takes trailers for headers. Here a head is bounded, and trailers, which
came after everything that checks headers, are nobody's (RFC 9110, 6.5.1).
"""

import asyncio
import socket
import struct
import sys
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from cra_mcp.faces.mcp.http.options import Limits

_MAX_HEAD_BYTES: Final = 65_536
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_FRAMED: Final = 8  # times a body that its chunks may take up
_NO_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 with bounds; ``bounded`` makes a class with its limits."""

    limits: Limits
    _in_head = True
    _overhead_bytes = 0
    """Of the request under way, what has come that is no body: its head, the frames of its chunks, its trailers."""
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
        self._overhead_bytes += len(data)
        super().data_received(data)
        self._overhead_bytes = max(self._overhead_bytes, 0)
        if self._overhead_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(_TOO_LARGE)
            self.transport.close()
        self._await_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or a trailer."""
        if self._in_head:
            super().on_header(name, value.strip(b" \t"))  # space around a value is no part of it (RFC 9110, 5.5)

    def on_headers_complete(self) -> None:
        """The head of a request has come."""
        super().on_headers_complete()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """A part of a body has come. Small chunks have frames larger than themselves, within reason."""
        self._overhead_bytes -= _FRAMED * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A whole request has come."""
        super().on_message_complete()
        self._overhead_bytes = 0

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
