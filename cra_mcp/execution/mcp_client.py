"""One connection to an upstream MCP server, and calls over it.

Rule: results pass as they came over the wire, checked against the protocol but not rebuilt. No list of tools is asked
for, no output
schema checked: the atlas says what there is, the gate what is returned. No client capability is declared.

Imports ``mcp``, which takes a second: ``mcp_upstream`` loads this when the first upstream is needed.
Source: MCP specification 2025-11-25 and 2026-07-28.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, cast

import mcp_types as types
from mcp.client import Client, Transport
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from cra_mcp.debug_log import about_upstream, silence_about_upstreams
from cra_mcp.errors import ExecutionError
from cra_mcp.execution import foreign_json, mcp_http, mcp_results, mcp_stdio
from cra_mcp.execution.backend import Progress
from cra_mcp.execution.mcp_stdio import MAX_LINE_BYTES, NotSentError, StdioTransport
from cra_mcp.execution.upstream import CallLostError, Connection, Era, Fault, HttpTarget, Target, WrongEraError
from cra_mcp.execution.values import NotJsonError
from cra_mcp.json_bounds import MAX_DEPTH, MAX_VALUES

_MAX_TOOL_PAGES = 100
_MAX_MESSAGE = 500
silence_about_upstreams(
    ("mcp", "client", "httpx2", "httpcore2", "anyio")
)  # their loggers print bodies, addresses and tracebacks
_ANY_OBJECT: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


@asynccontextmanager
async def connect(target: Target, era: Era, *, connect_timeout_s: float) -> AsyncGenerator[Connection]:
    """A connection for as long as the context is entered. The caller bounds the time it takes.

    Raises:
        WrongEraError: the server does not know the handshake of the legacy era.
        ExecutionError: it can't be started or reached, or refuses the connection.
        Exception: whatever the SDK raises when a connection breaks while the context is entered.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(about_upstream())
        if isinstance(target, HttpTarget):
            http = await stack.enter_async_context(mcp_http.BoundedClient(target.headers, connect_timeout_s))
            link: _Link = _HttpLink()
            transport: Transport = streamable_http_client(
                target.url, http_client=http, max_sse_event_size=MAX_LINE_BYTES
            )
        else:
            link = transport = StdioTransport(
                target.argv, environ=target.environ, cwd=target.cwd, debug_log=target.debug_log
            )
        client = Client(transport, mode=era, cache=None, client_info=_client_info())
        try:
            await stack.enter_async_context(client)
        except Exception as error:
            raise _no_connection(error, link, era) from error
        yield _Connection(client.session, link)


def _no_connection(error: Exception, link: "_Link", era: Era) -> Exception:
    """What it means that a connection could not be opened."""
    first = _first(error)
    if isinstance(first, ExecutionError):
        return first
    if link.fault is not None:
        return link.fault.error()
    if not isinstance(first, MCPError):
        return ExecutionError("upstream_unavailable", f"it could not be reached ({type(first).__name__})")
    if _is_lost(first):
        return ExecutionError("upstream_unavailable", "it ended before it answered")
    if era == "legacy" and first.code not in _UNREACHABLE:
        return WrongEraError(_clean(first.message))
    return ExecutionError("upstream_unavailable", _clean(first.message))


def _first(error: BaseException) -> BaseException:
    """The first error in a group: task groups of the SDK put what went wrong into one."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


class _Link(Protocol):
    """What a connection knows of its transport."""

    @property
    def closed(self) -> bool: ...

    @property
    def fault(self) -> Fault | None: ...

    async def wait_closed(self) -> None: ...

    def give_up(self) -> None: ...


class _HttpLink:
    """HTTP has no connection to lose: it is closed when a call finds the server gone."""

    fault = None

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def give_up(self) -> None:
        self._closed.set()


class _Connection:
    """Calls over one session."""

    def __init__(self, session: ClientSession, link: _Link) -> None:
        self._session = session
        self._link = link
        self._modern = session.protocol_version in MODERN_PROTOCOL_VERSIONS
        self.era: Era = "auto" if self._modern else "legacy"

    @property
    def closed(self) -> bool:
        return self._link.closed

    async def wait_closed(self) -> None:
        await self._link.wait_closed()

    def give_up(self) -> None:
        self._link.give_up()

    async def call(
        self, tool: str, arguments: Mapping[str, object], on_progress: Progress | None
    ) -> Mapping[str, object]:
        if self.closed:
            raise CallLostError(sent=False)
        progress = _Relay(on_progress) if on_progress is not None else None
        try:
            with about_upstream():  # the SDK sends in the context of whoever asks it to
                raw = await self._exchange(tool, arguments, progress)
        except NotSentError as error:
            self.give_up()
            raise CallLostError(sent=False) from error
        except MCPError as error:
            raise self._translate(error) from error
        except (ValidationError, NotJsonError) as error:
            raise ExecutionError("invalid_result", "the upstream returned what is not a result of MCP") from error
        finally:
            if progress is not None:
                progress.end()
        if self._modern and raw.get("resultType") == "input_required":
            raise ExecutionError(
                "execution_failed", "the upstream wants a person to answer something first, which is not supported"
            )
        return raw

    async def _exchange(
        self, tool: str, arguments: Mapping[str, object], progress: "_Relay | None"
    ) -> Mapping[str, object]:
        slot = mcp_results.Slot()
        token = mcp_results.current.set(slot)
        try:
            return mcp_results.taken(await self._send(tool, arguments, progress), slot)
        finally:
            mcp_results.current.reset(token)

    async def _send(self, tool: str, arguments: Mapping[str, object], progress: "_Relay | None") -> dict[str, object]:
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=dict(arguments)))
        # A type adapter of a plain object instead of a model: the SDK still checks the result against the protocol.
        adapter = cast("TypeAdapter[Any]", _ANY_OBJECT)
        try:
            return await self._session.send_request(request, adapter, progress_callback=progress)
        except MCPError as error:
            if error.code != types.HEADER_MISMATCH or not self._modern:
                raise
            # The server wants arguments mirrored into headers, which its list of tools says: the call was not made.
            await self._learn_headers()
            return await self._session.send_request(request, adapter, progress_callback=progress)

    async def _learn_headers(self) -> None:
        cursor: str | None = None
        for _ in range(_MAX_TOOL_PAGES):
            page = await self._session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            cursor = page.next_cursor
            if cursor is None:
                return

    def _translate(self, error: MCPError) -> Exception:
        """What an error of a call means: its connection is gone, a bound was broken, or the upstream says no."""
        code, text = error.code, error.message
        if self._link.fault is not None:
            return self._link.fault.error()
        if code == mcp_http.NOT_SENT:
            self.give_up()
            return CallLostError(sent=False)
        if self._link.closed or _is_lost(error):
            return CallLostError(sent=True)
        return _answer(code, text)


def _answer(code: int, text: str) -> ExecutionError:
    """An error that the upstream, or the SDK for it, gave as the answer to a call."""
    if mcp_http.TOO_LARGE in text or text == mcp_stdio.TOO_LARGE:
        return ExecutionError(
            "output_too_large",
            f"the answer of the upstream has more than {foreign_json.MAX_BYTES} bytes or {MAX_VALUES} values, "
            f"or is nested deeper than {MAX_DEPTH}",
            hint="ask for less at a time",
        )
    if code == mcp_http.REFUSED:
        hint = "check the url and the headers of the upstream in the atlas"
        return ExecutionError("upstream_unavailable", f"the upstream refused the call: {text}", hint=hint)
    if code == types.PARSE_ERROR and text.startswith("Failed to parse"):
        return ExecutionError("invalid_result", "the upstream answered with what is not MCP")
    return ExecutionError("execution_failed", f"the upstream answered with error {code}: {_clean(text)}")


_UNREACHABLE = frozenset({mcp_http.NOT_SENT, mcp_http.LOST, mcp_http.REFUSED})


class _Relay:
    """Progress of one call; nothing that comes after its end is passed on."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress: Progress | None = on_progress

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        if self._on_progress is not None:
            await self._on_progress(progress, total, message)

    def end(self) -> None:
        self._on_progress = None


def _is_lost(error: MCPError) -> bool:
    """Whether this was made of a connection that broke. A server may use the SDK's code for anything, too."""
    if error.code == types.CONNECTION_CLOSED and mcp_http.TOO_LARGE not in error.message:
        return error.message.startswith(("Connection closed", "SSE stream"))
    return error.code == mcp_http.LOST or mcp_http.BROKE_OFF in error.message


def _clean(text: str) -> str:
    """A message of the upstream as one line of bounded length."""
    if text.startswith("Redirect to"):  # the SDK's words; the address is the upstream's
        return "it redirects to another address, which is not followed"
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 2 * _MAX_MESSAGE]).split())
    return line if len(line) <= _MAX_MESSAGE else line[:_MAX_MESSAGE] + "…"


def _client_info() -> types.Implementation:
    try:
        number = version("cra-mcp")
    except PackageNotFoundError:
        number = "0"
    return types.Implementation(name="cra-mcp", version=number)
