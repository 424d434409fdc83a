"""Streams of events of Streamable HTTP upstreams, read in bounded work before the SDK reads them.

Rule: an event over a bound ends its stream, and its call with it; a server says when it is asked again, but not so often
that asking takes up this one. Source: WHATWG HTML, "Server-sent events"; MCP specification, "Transports", Streamable HTTP.

Imports ``httpx2``: only ``mcp_http`` uses this, which is loaded when the first upstream is needed.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import httpx2
import orjson

from cra_mcp.execution import foreign_json, mcp_results
from cra_mcp.execution.mcp_notices import Notices
from cra_mcp.execution.values import NotJsonError
from cra_mcp.json_bounds import JsonBoundsError

MAX_STREAM_BYTES = 33_554_432
"""What one stream may hold in all."""

TOO_LARGE = "cra: response too large"
BROKE_OFF = "cra: connection broke"
"""Parts of the messages of the errors that the SDK makes of an answer over a bound, and of one that breaks off."""

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_FIRST_RETRY_MS = 1_000
_SLOWED_RETRY_MS = 5_000
_LONGEST_RETRY_MS = 300_000
_NO_JSON = b"!"


@dataclass(slots=True)
class _Event:
    """The fields of one event so far."""

    kind: bytes = b""
    event_id: bytes | None = None
    data: list[bytes] = field(default_factory=list[bytes])
    size: int = 0
    begun: bool = False


class Events(httpx2.AsyncByteStream):
    """A stream of events, passed on event by event.

    Raises:
        httpx2.SSEError: it is over a bound, or broke off; the SDK makes an error of its call of that.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self._stream = cast("httpx2.AsyncByteStream", response.stream)
        self._slot = mcp_results.current.get()
        self._retry_ms: int | None = None
        self._event = _Event()
        self._notices: Notices[list[bytes]] = Notices()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, size = bytearray(), 0
        try:
            async for part in self._stream:
                size += len(part)
                if size > MAX_STREAM_BYTES:
                    raise httpx2.SSEError(TOO_LARGE)
                if not _LINE_END.search(part) and not left.endswith(b"\r"):
                    left += part  # in the middle of a long line: it is looked at once it has ended
                    continue
                lines = _LINE_END.split(bytes(left) + part)
                left = bytearray(lines.pop())
                for line in lines:
                    if (told := await self._line(line)) is not None:
                        yield told
                await asyncio.sleep(0)  # a flood of lines must not keep the loop
        except httpx2.TransportError as error:
            raise error if isinstance(error, httpx2.SSEError) else httpx2.SSEError(BROKE_OFF) from error

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def _line(self, line: bytes) -> bytes | None:
        """Take a line; the event that ends with it."""
        event = self._event
        if line:
            self._field(event, line)
            return None
        self._event = _Event()
        return await self._told(event) if event.begun else None

    def _field(self, event: _Event, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            event.data.append(value)
            event.size += len(value) + 1
            if event.size > foreign_json.MAX_BYTES:
                raise httpx2.SSEError(TOO_LARGE)
        elif name == b"event":
            event.kind = value
        elif name == b"id" and b"\0" not in value:
            event.event_id = value
        elif name == b"retry" and value.isdigit() and len(value) < 10:  # noqa: PLR2004 - milliseconds: 31 years
            self._retry_ms = int(value)
        else:
            return
        event.begun = True

    async def _told(self, event: _Event) -> bytes:
        lines = [b"retry: %d" % self._retry()]
        if event.kind:
            lines.append(b"event: " + event.kind)
        if event.event_id is not None:
            lines.append(b"id: " + event.event_id)
        report, data = await self._data(event) if event.data else (None, [b""])
        before = _written([], report) if report is not None else b""
        return before + _written(lines, data)

    async def _data(self, event: _Event) -> tuple[list[bytes] | None, list[bytes]]:
        """The last report of the call that is answered by an event, if it was kept; and the data of the event."""
        data = b"\n".join(event.data)
        try:
            found = await foreign_json.read(data) if data else None
        except JsonBoundsError as error:
            raise httpx2.SSEError(TOO_LARGE) from error
        except NotJsonError:
            return None, [_NO_JSON]
        told = [foreign_json.strict(found, data)]
        if not isinstance(found, dict):
            return None, told
        fields = cast("dict[str, object]", found)
        method = fields.get("method")
        if isinstance(method, str):
            kept = "id" not in fields and self._notices.keeps(method, fields.get("params"), told)
            return None, [b""] if kept else told
        small = mcp_results.without_result(fields, self._slot)
        return self._notices.last_of(fields.get("id")), told if small is fields else [orjson.dumps(small)]

    def _retry(self) -> int:
        """Milliseconds until this server is asked for the rest of a stream it ended: the longer, the more often it was."""
        asked = self._slot.reconnects if self._slot is not None else 0
        least = min(_SLOWED_RETRY_MS, _FIRST_RETRY_MS * 2 ** min(asked, 8))
        return max(least, min(self._retry_ms or 0, _LONGEST_RETRY_MS))


def _written(lines: list[bytes], data: list[bytes]) -> bytes:
    return b"\n".join((*lines, *(b"data: " + each for each in data), b"", b""))
