"""What a 2025-era client is told of by itself: that lists have changed, and the resources it watches.

Rule: who may not read a resource may not watch it. A client that reads slowly is told less often, never later and later: what has
changed twice before it was told is told once. Source: MCP specification 2025-11-25, "Resource subscriptions".
"""

import asyncio
import re
from typing import Any, Final

import anyio
import mcp_types as t
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError

from cra_mcp.faces.mcp.connection import RequestContext, is_modern
from cra_mcp.faces.mcp.published import PublishedResources
from cra_mcp.faces.mcp.resources import Resources
from cra_mcp.runtime import Runtime
from cra_mcp.runtime.watching import Change

_MAX_WATCHED: Final = 256
_STATE: Final = "cra.watched"
_OF_A_TRACE: Final = re.compile(r"cra://(?:trace|chain)/(?P<session_id>[^/?#]+)")
_LISTS: Final = ""  # no URI: tools, prompts and resources together
_OF_THE_CATALOGUE: Final = "cra://atlas/"


class Subscriptions:
    """What the connections of a server watch."""

    def __init__(self, runtime: Runtime, resources: Resources, published: PublishedResources) -> None:
        self._runtime = runtime
        self._resources = resources
        self._published = published
        self._watching: set[_Watching] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """How many connections watch something, or have."""
        return len(self._watching)

    def listed(self, ctx: RequestContext) -> None:
        """A 2025-era connection has been given a list: it is told when the lists have changed."""
        if not is_modern(ctx):
            self._of(ctx)

    async def subscribe(self, ctx: RequestContext, params: t.SubscribeRequestParams) -> t.EmptyResult:
        """Watch a resource until the connection ends.

        Raises:
            MCPError: there is no such resource for this caller, it can't change, or the connection watches too many.
        """
        uri = str(params.uri)
        if not self._published.knows(ctx, uri):
            if not uri.startswith(_OF_THE_CATALOGUE) and _OF_A_TRACE.fullmatch(uri) is None:
                raise MCPError(
                    code=t.INVALID_PARAMS, message="Resource not found, or it never changes", data={"uri": uri[:500]}
                )
            await self._resources.read(ctx, uri)  # raises as reading does
        watching = self._of(ctx)
        if len(watching.uris) >= _MAX_WATCHED and uri not in watching.uris:
            raise MCPError(code=t.INVALID_REQUEST, message=f"a connection watches {_MAX_WATCHED} resources at most")
        watching.uris.add(uri)
        return t.EmptyResult()

    async def unsubscribe(self, ctx: RequestContext, params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        """Watch a resource no more; nothing happens if it wasn't watched."""
        self._of(ctx).uris.discard(str(params.uri))
        return t.EmptyResult()

    def _of(self, ctx: RequestContext) -> "_Watching":
        connection: Any = ctx.session._connection  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no public way
        found: _Watching | None = connection.state.get(_STATE)
        if found is None:
            found = connection.state[_STATE] = _Watching(ctx.session)
            self._watching.add(found)
            connection.exit_stack.push_async_callback(self._forget, found)
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                self._runtime.watch(self._changed)
        return found

    async def _forget(self, watching: "_Watching") -> None:
        self._watching.discard(watching)
        await watching.aclose()

    def _changed(self, change: Change) -> None:
        """On any thread."""
        if self._watching and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, change)

    def _tell(self, change: Change) -> None:
        for watching in self._watching:
            if change.kind == "catalogue":
                watching.tell(_LISTS)
            for uri in watching.uris:
                if _concerns(change, uri):
                    watching.tell(uri)


class _Watching:
    """What one connection watches, and a task that tells it."""

    def __init__(self, session: ServerSession) -> None:
        self.uris: set[str] = set()
        self._session = session
        self._pending: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._send())

    def tell(self, uri: str) -> None:
        self._pending[uri] = None
        self._wake.set()

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                uri = next(iter(self._pending))
                del self._pending[uri]
                try:
                    await (self._tell_of_lists() if uri == _LISTS else self._session.send_resource_updated(uri))
                except (anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError):
                    return

    async def _tell_of_lists(self) -> None:
        await self._session.send_tool_list_changed()
        await self._session.send_prompt_list_changed()
        await self._session.send_resource_list_changed()


def _concerns(change: Change, uri: str) -> bool:
    match = _OF_A_TRACE.fullmatch(uri)
    if match is not None:
        return change.kind == "trace" and change.session_id == match["session_id"]
    return change.kind == "catalogue"
