"""``subscriptions/listen``: a request whose answer is the stream of what a 2026-era client wants to be told.

Rule: the acknowledgement says what is honoured, and nothing else is ever sent: a resource that the caller may not read is left out
like one that isn't there. A stream ends with its request, or with its result when the server stops.
Source: MCP specification 2026-07-28, "Subscriptions"; specs/mcp.md, "Changes".
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import anyio
import mcp_types as t
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
    event_to_notification,
)

from cra_mcp.auth.principal import Binding
from cra_mcp.faces.mcp.connection import RequestContext, principal_of
from cra_mcp.faces.mcp.news import CATALOGUE, News, Post
from cra_mcp.faces.mcp.request_ids import wire_id
from cra_mcp.faces.mcp.watchable import MAX_WATCHED, Watchable

_LAST_WORD_S: Final = 0.1
_WRITTEN_S: Final = 0.02
_LISTS: Final[Mapping[str, ServerEvent]] = {
    # No URI begins with these.
    " tools": ToolsListChanged(),
    " prompts": PromptsListChanged(),
    " resources": ResourcesListChanged(),
}


class Listening:
    """The subscriptions of a server.

    Args:
        news: what changes.
        watchable: who may watch what.
        max_of_one: subscriptions that one principal can have open.
    """

    def __init__(self, news: News, watchable: Watchable, *, max_of_one: int) -> None:
        self._news = news
        self._watchable = watchable
        self._max_of_one = max_of_one
        self._open: Counter[Binding] = Counter()
        self._posts: set[Post] = set()
        self._ended = anyio.Event()

    def __len__(self) -> int:
        """How many subscriptions are open."""
        return len(self._posts)

    async def listen(
        self, ctx: RequestContext, params: t.SubscriptionsListenRequestParams
    ) -> t.SubscriptionsListenResult:
        """Serve one subscription, until its client gives it up or the server stops.

        Raises:
            MCPError: it asks for too much, or the caller has too many open.
        """
        asked = params.notifications
        uris = list(dict.fromkeys(asked.resource_subscriptions or ()))
        owner = principal_of(ctx).binding
        if ctx.request_id is None:
            raise _refused("no_id", "a subscription is named by the id of its request")
        if len(uris) > MAX_WATCHED:
            raise _refused("too_many_resources", f"a subscription watches {MAX_WATCHED} resources at most")
        if self._open[owner] >= self._max_of_one:
            raise _refused("too_many_streams", f"you have {self._max_of_one} subscriptions open, which is the most")
        self._open[owner] += 1
        post = Post()
        self._posts.add(post)
        try:
            return await self._serve(ctx, ctx.request_id, post, asked, await self._watchable.topics(ctx, uris))
        finally:
            self._news.drop(post)
            self._posts.discard(post)
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
            if not self._posts:
                self._ended.set()

    def close(self) -> None:
        """End every subscription with its result."""
        for post in self._posts:
            post.close()

    async def aclose(self) -> None:
        """``close``, and wait a moment for those whose clients still read."""
        if not self._posts:
            return
        self.close()
        with anyio.move_on_after(_LAST_WORD_S):
            while self._posts:
                self._ended = anyio.Event()
                await self._ended.wait()
        await anyio.sleep(_WRITTEN_S)  # the result of a request is written after its handler has ended

    async def _serve(
        self,
        ctx: RequestContext,
        request_id: t.RequestId,
        post: Post,
        asked: t.SubscriptionFilter,
        topics: dict[str, str],
    ) -> t.SubscriptionsListenResult:
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: wire_id(request_id)}
        honoured = t.SubscriptionFilter(
            tools_list_changed=asked.tools_list_changed or None,
            prompts_list_changed=asked.prompts_list_changed or None,
            resources_list_changed=asked.resources_list_changed or None,
            resource_subscriptions=list(topics) or None,
        )
        flags = (honoured.tools_list_changed, honoured.prompts_list_changed, honoured.resources_list_changed)
        lists = {item: CATALOGUE for item, wanted in zip(_LISTS, flags, strict=True) if wanted}
        # Wanted before it is acknowledged: what changes in between is told after it.
        self._news.want(post, {**lists, **topics})
        await ctx.session.send_notification(
            t.SubscriptionsAcknowledgedNotification(
                params=t.SubscriptionsAcknowledgedNotificationParams(notifications=honoured, _meta=meta)
            ),
            related_request_id=request_id,
        )
        async for item in post:
            event = _LISTS.get(item) or ResourceUpdated(uri=item)
            await ctx.session.send_notification(event_to_notification(event, meta), related_request_id=request_id)
        return t.SubscriptionsListenResult(_meta=meta)


def _refused(code: str, message: str) -> MCPError:
    return MCPError(code=t.INVALID_REQUEST, message=message, data={"error": code})
