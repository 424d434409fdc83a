"""What belongs to one connection: its session, and what its client can do.

Rule: a session starts with the first request that needs one, not with the process, and ends with the connection.
``clientInfo`` decides nothing.
"""

from typing import Any

import mcp_types as t
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from cra_mcp.runtime import Runtime
from cra_mcp.session import EndReason, Session

RequestContext = ServerRequestContext[Any, Any]


class SessionHolder:
    """The current session of a connection."""

    def __init__(self, runtime: Runtime, *, agent_id: str | None, goal: str) -> None:
        self._runtime = runtime
        self._agent_id = agent_id
        self._goal = goal
        self._session: Session | None = None

    @property
    def agent_id(self) -> str:
        """Who the connection acts for: set by whoever started the server."""
        return self._agent_id or self._runtime.config.agent_id

    def active(self) -> Session | None:
        """The current session, if one has started and not ended."""
        session = self._session
        return session if session is not None and session.status == "active" else None

    def current(self) -> Session:
        """The current session; started now if there is none.

        Raises:
            TraceUnavailableError: a new chain can't be begun.
        """
        session = self.active()
        if session is None:
            session = self._session = self._runtime.create_session(self._agent_id, self._goal)
        return session

    def start(self, goal: str) -> Session:
        """End the current session, if any, and start a new one for ``goal``.

        Raises:
            RequestError: the goal can't be used.
            TraceUnavailableError: a new chain can't be begun.
        """
        fresh = self._runtime.create_session(self._agent_id, goal)
        self.end("completed")
        self._session = fresh
        return fresh

    def end(self, reason: EndReason) -> Session | None:
        """End the current session; the ended one, or None if there was none."""
        session, self._session = self.active(), None
        if session is not None:
            self._runtime.end_session(session.session_id, reason=reason)
        return session


def is_modern(ctx: RequestContext) -> bool:
    """Whether the request is written in the 2026-07-28 era."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def can_fill_forms(ctx: RequestContext) -> bool:
    """Whether the client says its user can be asked to fill in a form."""
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    # An empty declaration means form, by the specification; url alone does not.
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def text_result(text: str, *, is_error: bool = False, meta: dict[str, Any] | None = None) -> t.CallToolResult:
    """A tool result of one text."""
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)], is_error=is_error, _meta=meta)
