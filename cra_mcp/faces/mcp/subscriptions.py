"""What a 2025-era client is told of by itself: that lists have changed, and the resources it watches.

Source: MCP specification 2025-11-25, "Resource subscriptions"; specs/mcp.md, "Changes".
"""

import asyncio
from typing import Any, Final

import anyio
import mcp_types as t
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError

from cra_mcp.faces.mcp.connection import RequestContext, is_modern
from cra_mcp.faces.mcp.news import CATALOGUE, News, Post
from cra_mcp.faces.mcp.resources import not_found
from cra_mcp.faces.mcp.watchable import MAX_WATCHED, Watchable

_STATE: Final = "cra.watched"
_LISTS: Final = ""  # no URI: tools, prompts and resources together


class Subscriptions:
    """What the connections of a server watch."""

    def __init__(self, news: News, watchable: Watchable) -> None:
        self._news = news
        self._watchable = watchable
        self._connections: set[_Connection] = set()

    def __len__(self) -> int:
        """How many connections watch something, or have."""
        return len(self._connections)

    def listed(self, ctx: RequestContext) -> None:
        """A 2025-era connection has been given a list: it is told when the lists have changed."""
        if not is_modern(ctx):
            self._news.want(self._of(ctx).post, {_LISTS: CATALOGUE})

    async def subscribe(self, ctx: RequestContext, params: t.SubscribeRequestParams) -> t.EmptyResult:
        """Watch a resource until the connection ends.

        Raises:
            MCPError: there is no such resource for this caller, it never changes, or the connection watches too many.
        """
        uri = str(params.uri)
        wanted = await self._watchable.topics(ctx, [uri])
        if not wanted:
            raise not_found(ctx, uri, "there is no such resource, or it never changes")
        post = self._of(ctx).post
        resources = len(post) - (_LISTS in post.items.get(CATALOGUE, ()))
        if resources >= MAX_WATCHED and uri not in post.items.get(wanted[uri], ()):
            raise MCPError(code=t.INVALID_REQUEST, message=f"a connection watches {MAX_WATCHED} resources at most")
        self._news.want(post, wanted)
        return t.EmptyResult()

    async def unsubscribe(self, ctx: RequestContext, params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        """Watch a resource no more; nothing happens if it wasn't watched."""
        uri = str(params.uri)
        self._news.drop(self._of(ctx).post, uri)
        return t.EmptyResult()

    def _of(self, ctx: RequestContext) -> "_Connection":
        connection: Any = ctx.session._connection  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no public way
        found: _Connection | None = connection.state.get(_STATE)
        if found is None:
            found = connection.state[_STATE] = _Connection(ctx.session)
            self._connections.add(found)
            connection.exit_stack.push_async_callback(self._forget, found)
        return found

    async def _forget(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        self._news.drop(connection.post)
        await connection.aclose()


class _Connection:
    """What one connection is told, and the task that tells it."""

    def __init__(self, session: ServerSession) -> None:
        self.post = Post()
        self._session = session
        self._task = asyncio.create_task(self._send())

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _send(self) -> None:
        async for uri in self.post:
            try:
                await (self._tell_of_lists() if uri == _LISTS else self._session.send_resource_updated(uri))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError):
                return

    async def _tell_of_lists(self) -> None:
        await self._session.send_tool_list_changed()
        await self._session.send_prompt_list_changed()
        await self._session.send_resource_list_changed()
