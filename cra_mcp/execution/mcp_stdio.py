"""An MCP server as a child process: one JSON-RPC message a line over its standard input and output.

Rule: what the child does is bounded: the length of a line, what waits to be read or written, requests nobody expects,
and lines that are no messages. Beyond a bound the child is killed and the reason kept in ``fault``. Its standard
error goes to the debug log, if there is one: in ours it could pass for lines of our log.

Imports ``mcp``: only ``mcp_client`` uses this, which is loaded when the first upstream is needed.
Source: MCP specification, "Transports", stdio.
"""

import asyncio
import json
import os
import re
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import (
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from cra_mcp.debug_log import open_debug_log
from cra_mcp.errors import ExecutionCode, SettingsError
from cra_mcp.execution import foreign_json, mcp_results
from cra_mcp.execution.mcp_notices import REST_S, Notices
from cra_mcp.execution.process import Child, start
from cra_mcp.execution.upstream import Fault
from cra_mcp.execution.values import NotJsonError
from cra_mcp.json_bounds import INLINE_BYTES, JsonBoundsError

MAX_LINE_BYTES = foreign_json.MAX_BYTES
MAX_UNASKED_BYTES = 1_048_576
"""A message that answers nothing."""

MAX_DROPPED_BYTES = 268_435_456
"""How much of one line is read and dropped, so that only its own call fails."""

MAX_UNREAD_BYTES = 1_048_576
MAX_UNWRITTEN_BYTES = 16_777_216
MAX_UNASKED_PER_SECOND = 2_000
MAX_NOTICES_PER_SECOND = 20_000
MAX_GARBAGE_BYTES = 8_388_608

UNREADABLE = "Failed to parse the answer"
"""Message of the error that stands for an answer that is not JSON, as the SDK words it."""

TOO_LARGE = "cra: answer too large"
"""Message of the error that stands for an answer that is longer, holds more or nests deeper than is read."""

_END_BYTES = 4_096  # of a line that is dropped: its beginning or its end says which call it answers
_ID = rb'"id"\s*:\s*(?P<id>[0-9]{1,18}|"[^"\\]{0,256}")'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"'
_ID_FIRST = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb"\s*,\s*)?" + _ID + rb'\s*,(?!\s*"method")')
_ID_LAST = re.compile(rb",\s*" + _ID + rb"\s*(?:,\s*" + _VERSION + rb"\s*)?\}\s*\Z")
_IS_REQUEST = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb'\s*,\s*)?"method"')

_GARBAGE_LINE_BYTES = 512  # what a line counts besides its length: dropping it costs time, too
_EXIT_GRACE_S = 1.0
_TERM_GRACE_S = 1.0


class NotSentError(Exception):
    """A request did not reach the child: it can be sent to another one without doing anything twice."""


class StdioTransport:
    """Starts a child for the time it is entered; yields the streams ``mcp.Client`` reads and writes."""

    def __init__(
        self, argv: Sequence[str], *, environ: Mapping[str, str], cwd: Path | None, debug_log: Path | None = None
    ) -> None:
        self._argv = argv
        self._environ = environ
        self._cwd = cwd
        self._debug_log = debug_log
        self.peer = _Peer()

    @property
    def closed(self) -> bool:
        """Whether the child can't be talked to any more."""
        return self.peer.eof

    @property
    def fault(self) -> Fault | None:
        """Why the child was killed; None if it was not, or simply died."""
        return self.peer.fault

    async def wait_closed(self) -> None:
        """Until the child can't be talked to any more."""
        await self.peer.closed.wait()

    def give_up(self) -> None:
        """Stop talking to the child; leaving the context ends it."""
        self.peer.give_up()

    async def __aenter__(self) -> TransportStreams:
        """Start the child.

        Raises:
            ExecutionError: it can't be started.
        """
        stderr = self._open_debug_log()
        try:
            await start(
                self.peer, self._argv, environ=self._environ, cwd=self._cwd, stdin=subprocess.PIPE, stderr=stderr
            )
        finally:
            if stderr >= 0:
                os.close(stderr)
        return _Reader(self.peer), _Writer(self.peer)

    def _open_debug_log(self) -> int:
        if self._debug_log is not None:
            with suppress(SettingsError):
                return open_debug_log(self._debug_log)
        return subprocess.DEVNULL

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child: close its input, wait, signal its group, kill it. Bounded, and not to be cancelled."""
        with anyio.CancelScope(shield=True):
            self.peer.hang_up()
            with anyio.move_on_after(_EXIT_GRACE_S):
                await self.peer.released.wait()
            if not self.peer.released.is_set():
                self.peer.terminate()
                with anyio.move_on_after(_TERM_GRACE_S):
                    await self.peer.released.wait()
            await self.peer.end()


@dataclass(frozen=True, slots=True)
class _Dropped:
    """A line that was too long to be kept: its beginning and its end."""

    head: bytes
    tail: bytes

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)


class _Peer(Child):
    """The child at the other end."""

    def __init__(self) -> None:
        super().__init__()
        self.eof = False
        self.fault: Fault | None = None
        self.closed = asyncio.Event()
        self.unanswered = 0
        self._lines: deque[bytes | _Dropped] = deque()
        self._unread = 0
        self._partial = bytearray()
        self._head = b""  # of the line that is being dropped
        self._dropped = 0
        self._paused = False
        self._hung_up = False
        self._waiter: asyncio.Future[None] | None = None

    # --- what the child writes -------------------------------------------------------------------------------------

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self.eof or self._hung_up:
            return  # read and dropped, so that a child that is flushing its output can end
        head, newline, rest = data.partition(b"\n")
        self._partial += head
        if len(self._partial) > MAX_LINE_BYTES or self._dropped:
            self._drop()
        if not newline or self.eof:
            return
        lines = rest.split(b"\n")
        self._add(_Dropped(self._head, bytes(self._partial)) if self._dropped else bytes(self._partial))
        self._head, self._dropped = b"", 0
        self._partial = bytearray(lines.pop())
        for line in lines:
            self._add(line)
        if self._unread > MAX_UNREAD_BYTES and not self._paused:
            self._paused = True
            self._stdout().pause_reading()
        self._wake()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._close()

    @property
    def has_line(self) -> bool:
        """Whether ``next_line`` would return at once."""
        return bool(self._lines)

    async def next_line(self) -> bytes | _Dropped | None:
        """The next line; None when there will be no more."""
        while not self._lines:
            if self.eof:
                self.closed.set()
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        line = self._lines.popleft()
        self._unread -= len(line)
        if self._paused and self._unread < MAX_UNREAD_BYTES // 2 and not self.eof:
            self._paused = False
            self._stdout().resume_reading()
        return line

    # --- what the child is told ------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Hand a line to the child. False if it certainly did not get it."""
        if self.eof or self._hung_up:
            return False
        pipe = self._stdin()
        if pipe.is_closing():
            return False
        if pipe.get_write_buffer_size() + len(data) > MAX_UNWRITTEN_BYTES:
            self.fail("upstream_lost", "the upstream stopped reading what it is sent")
            return False
        pipe.write(data)
        # The first attempt to write is made at once: a pipe that broke is closing now, and took nothing.
        return not pipe.is_closing()

    def hang_up(self) -> None:
        """Close the child's input; what it still writes is dropped."""
        self._hung_up = True
        self._lines.clear()
        if self._paused and not self.released.is_set():
            self._paused = False
            self._stdout().resume_reading()
        self._stdin().close()

    def give_up(self) -> None:
        """Take what the child says no more for an answer."""
        self._lines.clear()
        self._close()

    def fail(self, code: ExecutionCode, message: str) -> None:
        """Give the child up for a reason, and kill it. What it has answered before stays answered."""
        if self.fault is None and not self.eof:
            self.fault = Fault(code, message)
            self.kill()
            self._close()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _stdin(self) -> asyncio.WriteTransport:
        return cast("asyncio.WriteTransport", self.transport.get_pipe_transport(0))

    def _stdout(self) -> asyncio.ReadTransport:
        return cast("asyncio.ReadTransport", self.transport.get_pipe_transport(1))

    def _drop(self) -> None:
        """Keep the beginning and the end of a line that is too long."""
        if not self._dropped:
            self._head = bytes(self._partial[:_END_BYTES])
        self._dropped += max(0, len(self._partial) - _END_BYTES)
        del self._partial[:-_END_BYTES]
        if self._dropped > MAX_DROPPED_BYTES:
            self.fail("output_too_large", f"the upstream wrote a message of more than {MAX_DROPPED_BYTES} bytes")

    def _add(self, line: bytes | _Dropped) -> None:
        self._lines.append(line)
        self._unread += len(line)

    def _close(self) -> None:
        self.eof = True
        if not self._lines:  # what has arrived is read first: the calls it answers are done
            self.closed.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Stream:
    """The part streams share: leaving one is all there is to closing it."""

    def __init__(self, peer: _Peer) -> None:
        self._peer = peer

    async def aclose(self) -> None:
        """Nothing to do: the transport ends the child."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        return None


class _Reader(_Stream):
    """Messages of the child. Lines that are none are dropped, up to a bound."""

    def __init__(self, peer: _Peer) -> None:
        super().__init__(peer)
        self._garbage = 0
        self._unasked = 0
        self._window_ends = 0.0
        self._notices: Notices[JSONRPCNotification] = Notices()
        self._noticed = 0
        self._notices_from = 0.0
        self._answer: JSONRPCMessage | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        if self._answer is not None:
            answer, self._answer = self._answer, None
            return SessionMessage(answer)
        if self._peer.has_line:
            await asyncio.sleep(0)  # a flood of lines must not keep the loop
        while (line := await self._line()) is not None:
            if isinstance(line, JSONRPCNotification):
                return SessionMessage(line)
            message = await self._read(line)
            if message is None:
                self._count_garbage(len(line))
            else:
                self._garbage = 0
                if (told := await self._sorted(message)) is not None:
                    return SessionMessage(told)
            await asyncio.sleep(0)
        raise StopAsyncIteration

    async def _line(self) -> bytes | _Dropped | JSONRPCNotification | None:
        """The next line, or a report that was kept and can be handed on before one comes."""
        while self._notices.are_waiting and not self._peer.has_line and not self._peer.eof:
            if (report := self._notices.due()) is not None:
                return report
            with anyio.move_on_after(REST_S):
                return await self._peer.next_line()
        return await self._peer.next_line()

    async def _sorted(self, message: JSONRPCMessage) -> JSONRPCMessage | None:
        """What is to be handed on of a message, now."""
        if isinstance(message, JSONRPCNotification):
            await self._pace()
            return None if self._notices.keeps(message.method, message.params, message) else message
        if isinstance(message, JSONRPCResponse | JSONRPCError) and self._peer.unanswered:
            self._peer.unanswered -= 1
        else:
            self._count_unasked()
        last = None if isinstance(message, JSONRPCRequest) else self._notices.last_of(message.id)
        if last is None:
            return message
        self._answer = message
        return last

    async def _pace(self) -> None:
        """Read no more notifications than take a small part of the processor: whoever writes more waits for its pipe."""
        now = asyncio.get_running_loop().time()
        if now >= self._notices_from + 1.0:
            self._notices_from, self._noticed = now, 0
        self._noticed += 1
        if self._noticed > MAX_NOTICES_PER_SECOND:
            await asyncio.sleep(self._notices_from + 1.0 - now)

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def _read(self, line: bytes | _Dropped) -> JSONRPCMessage | None:
        """A message; None where a line is none, or is larger than one that nobody asked for may be."""
        if isinstance(line, _Dropped):
            return _failed_answer(line.head, line.tail, TOO_LARGE)
        if len(line) > MAX_UNASKED_BYTES and (not self._peer.unanswered or _IS_REQUEST.match(line)):
            return None
        try:
            return _message(await foreign_json.read(line))
        except JsonBoundsError:
            return _failed_answer(line[:_END_BYTES], line[-_END_BYTES:], TOO_LARGE)
        except (NotJsonError, ValidationError):
            return _malformed(line)

    def _count_garbage(self, size: int) -> None:
        self._garbage += size + _GARBAGE_LINE_BYTES
        if self._garbage > MAX_GARBAGE_BYTES:
            self._peer.fail("upstream_lost", "the upstream writes what is not MCP to its standard output")

    def _count_unasked(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._window_ends:
            self._window_ends = now + 1.0
            self._unasked = 0
        self._unasked += 1
        if self._unasked > MAX_UNASKED_PER_SECOND:
            self._peer.fail("upstream_lost", "the upstream floods this server with messages")


class _Writer(_Stream):
    """Messages to the child."""

    async def send(self, item: SessionMessage) -> None:
        """Hand a message over; does not wait for the child to read it.

        Raises:
            NotSentError: a request certainly did not arrive.
            anyio.BrokenResourceError: the same of any other message.
        """
        message = item.message
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        is_request = isinstance(message, JSONRPCRequest)
        if not self._peer.write(line):
            raise NotSentError if is_request else anyio.BrokenResourceError
        self._peer.unanswered += is_request


def _message(found: object) -> JSONRPCMessage:
    """A message, whose result the SDK need not look at if it is a tool's."""
    message = jsonrpc_message_adapter.validate_python(found, by_name=False)
    if isinstance(message, JSONRPCResponse) and mcp_results.is_tool_result(message.result):
        message.result = mcp_results.stand_in(message.result, carried=True)
    return message


def _malformed(line: bytes) -> JSONRPCMessage | None:
    """An error in place of an answer that is nearly one, so that its call does not wait for another."""
    if len(line) > INLINE_BYTES:
        return _failed_answer(line[:_END_BYTES], line[-_END_BYTES:], UNREADABLE)
    try:
        found = cast("object", json.loads(line))
        if not isinstance(found, dict) or "method" in found:
            return None
        return _error(cast("dict[str, Any]", found)["id"], UNREADABLE)
    except (ValueError, KeyError, RecursionError):
        return None


def _failed_answer(head: bytes, tail: bytes, message: str) -> JSONRPCMessage | None:
    """An error in place of an answer of which only the beginning and the end are looked at."""
    if _IS_REQUEST.match(head):
        return None
    found = _ID_FIRST.match(head) or _ID_LAST.search(tail)
    return _error(json.loads(found["id"]), message) if found is not None else None


def _error(of: Any, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=of, error=ErrorData(code=PARSE_ERROR, message=message))
