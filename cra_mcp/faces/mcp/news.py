"""What has changed, on its way to the clients that want to know.

Rule: a client that reads slowly is told less often, never later and later: what has changed twice before it was told is told
once. What nobody wants to know costs a call one look-up.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from cra_mcp.runtime import Runtime
from cra_mcp.runtime.watching import Change

CATALOGUE: Final = "catalogue"
"""The topic of the loaded atlases and their policies; that of a trace is its session id."""


class Post:
    """What one client is to be told: items, each once until it was taken out. Iterate to take them."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, None]] = {}
        """By topic, what is told when it changes, in this order."""
        self._pending: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """How many items are wanted."""
        return sum(map(len, self.items.values()))

    def changed(self, topic: str) -> None:
        """A topic has changed."""
        self._pending.update(self.items.get(topic, {}))
        self._wake.set()

    def close(self) -> None:
        """Nothing new is told any more; what is pending is still taken out."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> "Post":
        return self

    async def __anext__(self) -> str:
        """The next item, once there is one."""
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        item = next(iter(self._pending))
        del self._pending[item]
        return item


class News:
    """Hands the changes of a runtime, which happen on any thread, to posts on the event loop of a server."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._wanted: dict[str, set[Post]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def want(self, post: Post, items: Mapping[str, str]) -> None:
        """Tell ``post`` from now on; ``items`` has the topic of each item."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._runtime.watch(self._changed)
        for item, topic in items.items():
            post.items.setdefault(topic, {})[item] = None
            self._wanted.setdefault(topic, set()).add(post)

    def drop(self, post: Post, item: str | None = None) -> None:
        """Tell ``post`` no more of this item; of nothing at all where None."""
        for topic, items in list(post.items.items()):
            if item is not None:
                items.pop(item, None)
            if item is None or not items:
                del post.items[topic]
                posts = self._wanted[topic]
                posts.discard(post)
                if not posts:
                    del self._wanted[topic]

    def _changed(self, change: Change) -> None:
        """On any thread."""
        topic = self._topic(change)
        if topic in self._wanted and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, topic)

    def _topic(self, change: Change) -> str | None:
        if change.kind == "catalogue" or change.session_id is None:
            return CATALOGUE
        if change.kind == "trace":
            return change.session_id
        owner = self._runtime.owner_of(change.session_id)
        return approvals_of(owner.tenant) if owner is not None else None

    def _tell(self, topic: str) -> None:
        for post in self._wanted.get(topic, ()):
            post.changed(topic)


def approvals_of(tenant: str) -> str:
    """The topic of the approvals of a tenant: they are asked for and settled."""
    return f"approvals of {tenant}"
