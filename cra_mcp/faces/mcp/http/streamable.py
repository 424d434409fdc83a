"""Streamable HTTP at one path: stateful sessions of the 2025 era, single requests of the 2026 era.

Rule: the SDK's session manager has the protocol; this adds that a governed session lives and ends with its MCP session.
Source: MCP specification 2025-11-25 and 2026-07-28, "Streamable HTTP".
"""

from http import HTTPStatus
from uuid import uuid4

from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Message, Receive, Scope, Send

from cra_mcp.faces.mcp.connection import PRINCIPAL_SCOPE
from cra_mcp.faces.mcp.http.answers import RefusedError
from cra_mcp.faces.mcp.http.identity import owner_of
from cra_mcp.faces.mcp.http.options import Limits
from cra_mcp.faces.mcp.http.posts import PostedSession
from cra_mcp.faces.mcp.http.sessions import CONNECTION_SCOPE, HttpSessions
from cra_mcp.faces.mcp.server import GovernedServer

_HEADER = MCP_SESSION_ID_HEADER.encode("ascii")


class StreamableHttp(StreamableHTTPSessionManager):
    """The ASGI app at ``/mcp``; ``run()`` is its life.

    What begins with an underscore here is not public in the SDK: its version is pinned, and tests notice if it changes.
    """

    def __init__(self, server: GovernedServer, sessions: HttpSessions, limits: Limits) -> None:
        super().__init__(
            server,
            session_idle_timeout=limits.session_idle_s,
            max_request_body_size=limits.max_body_bytes,
            max_sessions=None,  # ``HttpSessions`` counts them, those of the other transport too
        )
        self._sessions = sessions
        self._governed = server
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        session_id = next((value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER), None)
        if scope["method"] == "DELETE" and session_id is not None:
            send = self._ending(session_id, send)
        # Not ``asgi_app``: that reads the body once more, and it has been, within the same bound.
        try:
            await self._handle_request({**scope, CONNECTION_SCOPE: session_id}, receive, send)
        except RefusedError as error:
            if session_id in self._server_instances:
                said = f"a message was refused: {error.refusal.message}"
                principal = scope[PRINCIPAL_SCOPE]
                self._governed.record_error(lambda: self._sessions.on(session_id, principal), "invalid_request", said)
            raise

    async def end_sessions(self) -> None:
        """End every MCP session and the calls under way in it, as the server stops.

        Cancelling the tasks of sessions, as ``run()`` does at its end, takes the SDK a second for each call under way: it waits for
        an answer to be written that nobody takes any more.
        """
        self._stopping = True
        await self._sessions.end_all()
        for session_id, transport in list(self._server_instances.items()):
            await self._discard_session(session_id, transport)

    def _ending(self, session_id: str, send: Send) -> Send:
        """Ends the governed session before its client is told that the MCP session has ended."""

        async def ended_first(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
                self._sessions.close(session_id, "completed")
            await send(message)

        return ended_first

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        session_id = uuid4().hex
        if requestor is not None:
            self._sessions.open(session_id, owner_of(requestor))
            self._session_owners[session_id] = requestor
        transport = PostedSession(session_id, idle_timeout=self.session_idle_timeout)
        self._server_instances[session_id] = transport
        return transport

    async def _discard_session(self, session_id: str, transport: StreamableHTTPServerTransport) -> None:
        idle = transport.idle_scope is not None and transport.idle_scope.cancel_called
        self._sessions.close(session_id, "cancelled" if self._stopping else "timeout" if idle else "completed")
        await super()._discard_session(session_id, transport)
