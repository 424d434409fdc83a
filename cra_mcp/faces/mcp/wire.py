"""JSON-RPC over this process's standard input and output.

Rule: one message a line. A line that is too long, not JSON, or not one message (a batch, say) is answered with an error and
forgotten; the connection lives on. While it is open, stray writes to standard output go to standard error, and children
read an empty standard input. Source: MCP specification, "stdio".
"""

import json
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import anyio
import anyio.to_thread
import mcp_types as t
import orjson
from mcp.shared.message import SessionMessage

from cra_mcp.faces.mcp.half_pairs import call_with_half_pairs
from cra_mcp.json_bounds import INLINE_BYTES, MAX_SENT_VALUES, JsonBoundsError, check_json

MAX_LINE_BYTES = 16 * 1_048_576
_CHUNK = 65_536
_PIPE_BUF = 4_096  # a pipe that polls writable takes this much without blocking
_POLLED = hasattr(select, "poll") and sys.platform != "win32"


class StandardStreams:
    """Standard input and output, claimed for the protocol."""

    def __init__(self) -> None:
        self.read_fd = os.dup(0)
        self.write_fd = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        for fd in (self.read_fd, self.write_fd):
            os.set_inheritable(fd, False)

    def restore(self) -> None:
        """Give the streams back."""
        os.dup2(self.read_fd, 0)
        os.dup2(self.write_fd, 1)


class LineWriter:
    """Writes messages as lines; several tasks may send, each line stays whole."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = anyio.Lock()
        self._poll: Callable[[], bool] | None = _writable_poll(fd)

    async def send(self, item: SessionMessage, /) -> None:
        """Write one message.

        Raises:
            ClosedResourceError: nobody reads any more.
        """
        await self.send_bytes(
            item.message.model_dump_json(by_alias=True, exclude_unset=True).encode("utf-8", "replace")
        )

    async def send_bytes(self, data: bytes) -> None:
        """Write one line; the line feed is added."""
        async with self._lock:
            try:
                await self._write(data + b"\n")
            except OSError as error:
                raise anyio.ClosedResourceError from error

    async def _write(self, data: bytes) -> None:
        if self._poll is None:
            await anyio.to_thread.run_sync(_write_all, self._fd, data, limiter=anyio.CapacityLimiter(1))
            return
        view = memoryview(data)
        while view:
            if not self._poll():
                await anyio.wait_writable(self._fd)
            view = view[os.write(self._fd, view[:_PIPE_BUF]) :]

    async def aclose(self) -> None:
        """Nothing to close: the descriptor is the process's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class LineReader:
    """Reads messages from lines; what is not a message is answered, told ``on_refused``, and skipped."""

    def __init__(
        self,
        fd: int,
        writer: LineWriter,
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._fd = fd
        self._writer = writer
        self._max = max_line_bytes
        self._on_refused = on_refused
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False
        self._ended = False
        self._pollable = True
        self._limiter = anyio.CapacityLimiter(1)

    async def receive(self) -> SessionMessage | Exception:
        """The next message.

        Raises:
            EndOfStream: standard input has ended.
        """
        while True:
            line = await self._line()
            if line is None:
                raise anyio.EndOfStream
            message = await self._message(line)
            if message is not None:
                return SessionMessage(message)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Nothing to close: the descriptor is the process's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _message(self, line: bytes) -> t.JSONRPCMessage | None:
        if not line.strip():
            return None
        try:
            check_json(line, max_values=MAX_SENT_VALUES)
            message = t.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except JsonBoundsError as error:
            request_id = _diagnose(line)[0] if len(line) <= INLINE_BYTES else None  # a long one may take long to read
            await self._reject(request_id, t.INVALID_REQUEST, f"a message may not hold {error}")
            return None
        except ValueError:
            call = call_with_half_pairs(line)
            if call is None:
                await self._reject(*_diagnose(line))
            return call
        # A request whose id has a wrong type reads as a notification, which nobody would ever answer.
        if isinstance(message, t.JSONRPCNotification) and b'"id"' in line and _has_id(line):
            await self._reject(*_diagnose(line))
            return None
        return message

    async def _reject(self, request_id: str | int | None, code: int, message: str) -> None:
        self._on_refused(message)
        reply = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
        with suppress(anyio.ClosedResourceError):
            await self._writer.send_bytes(json.dumps(reply, separators=(",", ":")).encode())

    async def _reject_long(self) -> None:
        await self._reject(None, t.INVALID_REQUEST, f"a message may have {self._max} bytes at most")

    async def _line(self) -> bytes | None:
        """The next whole line; over-long ones are rejected and thrown away as they arrive."""
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._scanned = 0
                if self._skipping:
                    self._skipping = False
                elif len(line) > self._max:
                    await self._reject_long()
                else:
                    return line
                continue
            self._scanned = len(self._buffer)
            if self._scanned > self._max:
                self._buffer.clear()
                self._scanned = 0
                if not self._skipping:
                    self._skipping = True
                    await self._reject_long()
            if self._ended:
                return None
            chunk = await self._chunk()
            self._ended = not chunk
            if not self._skipping or b"\n" in chunk:
                self._buffer += chunk

    async def _chunk(self) -> bytes:
        if self._pollable and _POLLED:
            try:
                await anyio.wait_readable(self._fd)
            except OSError:
                self._pollable = False  # a regular file: always readable, never polled
            else:
                return os.read(self._fd, _CHUNK)
        return await anyio.to_thread.run_sync(os.read, self._fd, _CHUNK, limiter=self._limiter, abandon_on_cancel=True)


def _has_id(line: bytes) -> bool:
    try:
        return "id" in cast("dict[str, object]", orjson.loads(line))
    except ValueError:
        return False


def _diagnose(line: bytes) -> tuple[str | int | None, int, str]:
    """``(id to answer, code, message)`` for a line that is not a message."""
    try:
        # The lenient reader: it takes NaN and lone surrogates, so that whoever sent them learns which request was refused.
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None, t.PARSE_ERROR, "the line is not JSON"
    if isinstance(value, list):
        return None, t.INVALID_REQUEST, "batches are not part of this protocol; send one message a line"
    found = cast("dict[str, object]", value).get("id") if isinstance(value, dict) else None
    request_id = found if isinstance(found, str | int) and not isinstance(found, bool) else None
    return (
        request_id,
        t.INVALID_REQUEST,
        "the line is not a JSON-RPC 2.0 message of plain JSON, nested 200 deep at most",
    )


def _writable_poll(fd: int) -> Callable[[], bool] | None:
    if not _POLLED:
        return None
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return lambda: bool(poller.poll(0))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
