"""Which resources can be watched, by whom, and with which news.

Rule: who may not read a resource may not watch it; that one can't be told from one that isn't there.
Source: specs/mcp.md, "Changes".
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from cra_mcp.access import Access
from cra_mcp.faces.mcp import control_approvals, traces
from cra_mcp.faces.mcp.connection import RequestContext, principal_of
from cra_mcp.faces.mcp.news import CATALOGUE, approvals_of
from cra_mcp.faces.mcp.published import PublishedResources
from cra_mcp.runtime import Runtime

MAX_WATCHED: Final = 256
"""Resources that one connection, or one subscription, can watch."""

_OF_A_TRACE: Final = re.compile(r"cra://(?:trace|chain)/(?P<session_id>[^/?#]+)")
_OF_AN_ATLAS: Final = re.compile(r"cra://atlas/(?P<atlas_id>[^/?#]+)")


class Watchable:
    """What callers can watch."""

    def __init__(self, runtime: Runtime, published: PublishedResources) -> None:
        self._runtime = runtime
        self._published = published

    async def topics(self, ctx: RequestContext, uris: Sequence[str]) -> dict[str, str]:
        """The topic of each of ``uris`` that the caller may read and that changes; the others are left out."""
        known = self._published.known(ctx, uris)
        access = Access(self._runtime, principal_of(ctx))
        atlases = {atlas.atlas_id for atlas in self._runtime.atlases()}
        wanted = {uri: CATALOGUE for uri in uris if uri in known or _atlas_of(uri) in atlases}
        sessions = {uri: match["session_id"] for uri in uris if (match := _OF_A_TRACE.fullmatch(uri)) is not None}
        readable = await traces.off_loop(partial(_readable, access, sessions)) if sessions else {}
        if control_approvals.URI in uris and access.may_approve:
            wanted[control_approvals.URI] = approvals_of(access.principal.tenant)
        return {uri: topic for uri in uris if (topic := wanted.get(uri, readable.get(uri))) is not None}


def _atlas_of(uri: str) -> str | None:
    match = _OF_AN_ATLAS.fullmatch(uri)
    return match["atlas_id"] if match is not None else None


def _readable(access: Access, sessions: Mapping[str, str]) -> dict[str, str]:
    return {uri: session_id for uri, session_id in sessions.items() if access.may_read(session_id)}
