"""Sessions over HTTP.

2025 era: one for each MCP session, which is its connection. 2026 era, where there is none: the session a request names in
``_meta["dev.cra/session"]``, or else the current one of its principal.
Rule: a session is used by its own principal only; another's answers exactly as an unknown one. What is unused for long ends.
Source: specs/mcp.md, "Connection and session".
"""

import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

import anyio
import anyio.to_thread

from cra_mcp.auth.principal import Binding, Principal
from cra_mcp.errors import LimitError, RequestError
from cra_mcp.faces.mcp import names
from cra_mcp.faces.mcp.connection import RequestContext, is_modern, principal_of
from cra_mcp.faces.mcp.http.answers import Refusal, RefusedError
from cra_mcp.faces.mcp.http.options import Limits
from cra_mcp.faces.mcp.sessions import ConnectionSession, SessionHolder, own_session, runtime_begins
from cra_mcp.runtime import Runtime
from cra_mcp.session import EndReason, Session

CONNECTION_SCOPE: Final = "cra.connection"
"""Where the id of a request's MCP session is, in its ASGI scope."""

_WORTH_COLLECTING: Final = 100
_FLUSHES_AT_ONCE: Final = 16
_RETRY_S: Final = "30"
_FULL: Final = Refusal(503, "too_many_sessions", "the server has too many sessions open", "try again later")
_TOO_MANY: Final = Refusal(429, "too_many_sessions", "you have too many sessions open", "end one with DELETE")


class HttpSessions:
    """Finds the session of a request over HTTP, and ends those nobody uses."""

    def __init__(
        self, runtime: Runtime, goal: str, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime
        self._goal = goal
        self._limits = limits
        self._clock = clock
        self._connections: dict[str, tuple[Binding, ConnectionSession | None]] = {}
        self._live: dict[Binding, list[str]] = {}
        self._begin = runtime_begins(runtime)
        self._used: dict[str, float] = {}
        self._current: dict[Binding, Session] = {}
        self._stopped = False
        self._closed = 0

    def of(self, ctx: RequestContext) -> SessionHolder:
        """See ``SessionFinder``."""
        principal = principal_of(ctx)
        if is_modern(ctx):
            return _PrincipalSession(self, principal, _named(ctx))
        return self._of_connection(ctx, principal)

    # --- 2025 era --------------------------------------------------------------------------------------------------

    def open(self, connection: str, owner: Binding) -> None:
        """A connection of ``owner`` has come; its session starts with the first request that needs one.

        Raises:
            RefusedError: there are too many, of this owner or in all.
        """
        if len(self._connections) >= self._limits.max_sessions:
            raise RefusedError(_FULL, {"retry-after": _RETRY_S})
        if (
            sum(1 for theirs, _ in self._connections.values() if theirs == owner)
            >= self._limits.max_sessions_per_principal
        ):
            raise RefusedError(_TOO_MANY, {"retry-after": _RETRY_S})
        self._connections[connection] = (owner, None)

    def close(self, connection: str, reason: EndReason) -> None:
        """A connection has gone, and its session ends. Safe to repeat."""
        _, session = self._connections.pop(connection, (None, None))
        self._closed += 1
        if session is not None:
            session.close(reason)

    def _of_connection(self, ctx: RequestContext, principal: Principal) -> SessionHolder:
        return self.on(ctx.request.scope.get(CONNECTION_SCOPE) if ctx.request is not None else None, principal)

    def on(self, connection: str | None, principal: Principal) -> SessionHolder:
        """The session of a connection, as its owner uses it."""
        owner, found = self._connections.get(connection or "", (None, None))
        if connection is None or owner is None or owner != principal.binding:
            return _CLOSED
        if found is None:
            found = ConnectionSession(self._runtime, principal, self._goal, self._create)
            self._connections[connection] = (owner, found)
        return found.seen_by(principal)

    # --- 2026 era --------------------------------------------------------------------------------------------------

    def begin(self, principal: Principal, goal: str | None, parent: Session | None) -> Session:
        """Start a session that is the principal's current one from now on. Raises as ``SessionHolder.start``."""
        session = self._create(principal, self._goal if goal is None else goal, parent)
        self._current[principal.binding] = session
        self.touch(session)
        return session

    def current_of(self, principal: Principal) -> Session | None:
        """The principal's current session, if it hasn't ended."""
        session = self._current.get(principal.binding)
        return session if session is not None and session.status == "active" else None

    def make_current(self, session: Session) -> None:
        """Requests of the session's principal that name none belong to it from now on."""
        if session.principal is not None:
            self._current[session.principal.binding] = session

    def touch(self, session: Session) -> None:
        """A session is in use."""
        self._used[session.session_id] = self._clock()

    def _create(self, principal: Principal, goal: str, parent: Session | None) -> Session:
        if self._stopped:
            raise _gone()
        owner = principal.binding
        self._live = {
            whose: kept
            for whose, theirs in self._live.items()
            if (kept := [session_id for session_id in theirs if self._is_active(session_id)])
        }
        if len(self._live.get(owner, ())) >= self._limits.max_sessions_per_principal:
            raise LimitError("you have too many sessions open", hint="end one with cra_end_session")
        if sum(map(len, self._live.values())) >= self._limits.max_sessions:
            raise LimitError("the server has too many sessions open", hint="try again later")
        session = self._begin(principal, goal, parent)
        self._live.setdefault(owner, []).append(session.session_id)
        return session

    def _is_active(self, session_id: str) -> bool:
        session = self._runtime.get_session(session_id)
        return session is not None and session.status == "active"

    def end_idle(self) -> float:
        """End the sessions of the 2026 era that were unused for too long; seconds until the next may be.

        A call under way is use.
        """
        now = self._clock()
        wait = self._limits.session_idle_s
        for session_id, used in list(self._used.items()):
            session = self._runtime.get_session(session_id)
            if session is None or session.status != "active":
                del self._used[session_id]
            elif session.active_calls:
                self._used[session_id] = now
            elif now - used >= self._limits.session_idle_s:
                del self._used[session_id]
                self._runtime.end_session(session_id, reason="timeout")
            else:
                wait = min(wait, used + self._limits.session_idle_s - now)
        for owner, session in list(self._current.items()):
            if session.status != "active":
                del self._current[owner]
        return max(wait, 0.0)

    def collect(self) -> None:
        """Give back what closed connections took up, once it is as much as what is open takes.

        What the SDK keeps for a connection are cycles, which Python would find after many thousands of further calls: an idle
        server would keep them for good.
        """
        if self._closed >= max(len(self._connections), _WORTH_COLLECTING):
            self._closed = 0
            gc.collect()

    async def end_all(self) -> None:
        """End all sessions, as the server stops: each is flushed to the disk, so many at once. None starts any more.

        Those with calls under way end with the last of them.
        """
        self._stopped = True
        limiter = anyio.CapacityLimiter(_FLUSHES_AT_ONCE)

        async def in_thread(end: Callable[[], None]) -> None:
            await anyio.to_thread.run_sync(end, limiter=limiter)

        async with anyio.create_task_group() as group:
            for _, session in self._connections.values():
                if session is not None:
                    group.start_soon(in_thread, partial(session.close, "cancelled"))
            for session_id in self._used:
                group.start_soon(in_thread, partial(self._runtime.end_session, session_id, reason="cancelled"))

    def stop(self) -> None:
        """End what is left of sessions; none starts any more."""
        self._stopped = True
        for connection in list(self._connections):
            self.close(connection, "cancelled")
        for session_id in self._used:
            self._runtime.end_session(session_id, reason="cancelled")
        self._used.clear()
        self._current.clear()

    @property
    def runtime(self) -> Runtime:
        """Where the sessions are."""
        return self._runtime


class _PrincipalSession:
    """The session of one request of the 2026 era."""

    def __init__(self, sessions: HttpSessions, principal: Principal, named: object) -> None:
        self._sessions = sessions
        self._principal = principal
        self._named = named

    def active(self) -> Session | None:
        if self._named is None:
            return self._sessions.current_of(self._principal)
        session_id = self._named if isinstance(self._named, str) else ""
        try:
            return own_session(self._sessions.runtime, self._principal, session_id)
        except RequestError as error:
            if error.code == "session_ended":
                return None
            raise

    def current(self) -> Session:
        session = self.active()
        if session is None and self._named is not None:
            raise RequestError("session_ended", "this session has ended", hint="start one with cra_start_session")
        if session is None:
            return self._sessions.begin(self._principal, None, None)
        self._sessions.touch(session)
        return session

    def start(self, goal: str, parent_session_id: str | None = None) -> Session:
        parent = own_session(self._sessions.runtime, self._principal, parent_session_id) if parent_session_id else None
        session = self._sessions.begin(self._principal, goal, parent)
        self._named = session.session_id
        return session

    def end(self, reason: EndReason) -> Session | None:
        session = self.active()
        if session is None:
            return None
        self._sessions.runtime.end_session(session.session_id, reason=reason)
        parent_id = session.parent_session_id
        parent = self._sessions.runtime.get_session(parent_id) if parent_id is not None else None
        if parent is not None and parent.status == "active":
            self._sessions.make_current(parent)
        return session


class _Closed:
    """The session of a connection that has gone."""

    def active(self) -> Session | None:
        return None

    def current(self) -> Session:
        raise _gone()

    def start(self, goal: str, parent_session_id: str | None = None) -> Session:
        del goal, parent_session_id
        raise _gone()

    def end(self, reason: EndReason) -> Session | None:
        del reason


_CLOSED: Final = _Closed()


def _gone() -> RequestError:
    return RequestError("session_ended", "the connection of this session has closed", hint="connect again")


def _named(ctx: RequestContext) -> object:
    """What a request names as its session; None if nothing."""
    meta = cast("Mapping[str, object]", ctx.meta or {})
    return meta.get(names.SESSION_META)
