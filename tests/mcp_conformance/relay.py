"""Keeps the requests on their way to a server over Streamable HTTP, by looking at the bytes that pass.

It knows nothing of the server, so that what the server's traces say can be held against it.
"""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)\r\n", re.IGNORECASE)
_HEADER_MISMATCH = re.compile(rb'"code":\s*-32020\b')


class Relay:
    """A TCP relay on a free port of the loopback interface.

    Attributes:
        messages: the JSON-RPC messages that clients sent.
        contradictory: those of them that were answered with HeaderMismatch: refused by the transport, before they are requests.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.messages: list[dict[str, Any]] = []
        self.contradictory: list[dict[str, Any]] = []

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            sent: list[dict[str, Any]] = []

            def look_back(data: bytes) -> None:
                # One connection carries one request after the other.
                if _HEADER_MISMATCH.search(data) is not None:
                    self.contradictory.append(sent[-1])

            both = [
                asyncio.create_task(_copy(reader, back, _Requests(sent, self.messages))),
                asyncio.create_task(_copy(there, writer, look_back)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                back.close()
                writer.close()


class _Requests:
    """The HTTP requests of one connection; what has no length it says is not one of ours."""

    def __init__(self, *into: list[dict[str, Any]]) -> None:
        self._into = into
        self._buffer = b""

    def __call__(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer[: end + 2])
            size = int(length[1]) if length is not None else 0
            body, rest = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
            if len(body) < size:
                return
            self._buffer = rest
            if body:
                message = json.loads(body)
                for messages in self._into:
                    messages.append(message)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, look: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while chunk := await source.read(65_536):
            look(chunk)
            sink.write(chunk)
            await sink.drain()
