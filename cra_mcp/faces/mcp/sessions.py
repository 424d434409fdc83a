"""Which session a request belongs to.

Rule: a session starts with the first request that needs one, not with the process, and belongs to one principal for good.
A transport decides how long it lives: this module has what they share, and the one session of a process.
Source: specs/mcp.md, "Connection and session".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cra_mcp.access import Access
from cra_mcp.auth.principal import Principal
from cra_mcp.errors import RequestError
from cra_mcp.faces.mcp.connection import RequestContext, principal_of
from cra_mcp.runtime import Runtime
from cra_mcp.session import EndReason, Session

Begin = Callable[[Principal, str, Session | None], Session]
"""Starts a session of a principal, for a goal, that works for another one. Raises as ``SessionHolder.start``."""


class SessionHolder(Protocol):
    """The session that one request belongs to, as handlers use it."""

    def active(self) -> Session | None:
        """The session, if one has started and not ended.

        Raises:
            RequestError: ``unknown_session``: the request names one that isn't the caller's.
        """
        ...

    def current(self) -> Session:
        """The session; started now if there is none.

        Raises:
            RequestError: ``unknown_session`` or ``session_ended``: the request names one that can't be used.
            TraceUnavailableError: a new chain can't be begun.
        """
        ...

    def start(self, goal: str, parent_session_id: str | None = None) -> Session:
        """Start a session for ``goal``; it is the current one from now on.

        Args:
            goal: what for.
            parent_session_id: an active session of the same principal that the new one works for; it stays open.

        Raises:
            RequestError: the goal can't be used, or the parent is unknown or has ended.
            TraceUnavailableError: a new chain can't be begun.
        """
        ...

    def end(self, reason: EndReason) -> Session | None:
        """End the session; the ended one, or None if there was none. Raises as ``active``."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a request: its session, and what it may see."""

    sessions: SessionHolder
    access: Access


class SessionFinder(Protocol):
    """Finds the session of a request; each transport has its own."""

    def of(self, ctx: RequestContext) -> SessionHolder:
        """The holder of the session that ``ctx`` belongs to. Starts and ends nothing."""
        ...


class ConnectionSession:
    """The session of one connection, with the sessions it works for below it.

    A session that is started for the current one as its parent is put on top of it; when it ends, the parent is current again.

    Args:
        runtime: where sessions are.
        principal: who opened the connection.
        goal: of sessions that start by themselves.
        begin: starts one; the runtime does by default.
    """

    def __init__(self, runtime: Runtime, principal: Principal, goal: str, begin: Begin | None = None) -> None:
        self._runtime = runtime
        self._principal = principal
        self._goal = goal
        self._begin_session = begin or runtime_begins(runtime)
        self._open: list[Session] = []
        self._closed = False

    def seen_by(self, principal: Principal) -> SessionHolder:
        """The session as a request of ``principal`` uses it: what that starts, it starts with its own roles."""
        return _OfRequest(self, principal)

    def active(self) -> Session | None:
        """See ``SessionHolder``."""
        while self._open and self._open[-1].status != "active":
            self._open.pop()
        return self._open[-1] if self._open else None

    def current(self, principal: Principal | None = None) -> Session:
        """See ``SessionHolder``. ``principal``: who asks, with roles of its own; None: who opened the connection."""
        session = self.active()
        if session is None:
            session = self._begin(principal or self._principal, self._goal, None)
        return session

    def start(self, goal: str, parent_session_id: str | None = None, *, principal: Principal | None = None) -> Session:
        """See ``SessionHolder``. Ends the sessions of this connection that the new one doesn't work for."""
        principal = principal or self._principal
        parent = own_session(self._runtime, principal, parent_session_id) if parent_session_id else None
        before = list(self._open)
        keep = before.index(parent) + 1 if parent is not None and parent in before else 0
        fresh = self._begin(principal, goal, parent)
        self._open = [*before[:keep], fresh]
        for session in reversed(before[keep:]):
            self._runtime.end_session(session.session_id)
        return fresh

    def end(self, reason: EndReason) -> Session | None:
        """See ``SessionHolder``."""
        session = self.active()
        if session is not None:
            self._open.pop()
            self._runtime.end_session(session.session_id, reason=reason)
        return session

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return any(session.active_calls for session in self._open)

    def close(self, reason: EndReason) -> None:
        """End all sessions of the connection; a request that comes after this gets no new one."""
        self._closed = True
        while self.end(reason) is not None:
            pass

    def _begin(self, principal: Principal, goal: str, parent: Session | None) -> Session:
        if self._closed:
            raise RequestError("session_ended", "the connection of this session has closed", hint="connect again")
        session = self._begin_session(principal, goal, parent)
        self._open.append(session)
        return session


@dataclass(frozen=True, slots=True)
class _OfRequest:
    """The session of a connection, for one request."""

    connection: ConnectionSession
    principal: Principal

    def active(self) -> Session | None:
        return self.connection.active()

    def current(self) -> Session:
        return self.connection.current(self.principal)

    def start(self, goal: str, parent_session_id: str | None = None) -> Session:
        return self.connection.start(goal, parent_session_id, principal=self.principal)

    def end(self, reason: EndReason) -> Session | None:
        return self.connection.end(reason)


def runtime_begins(runtime: Runtime) -> Begin:
    """Starting sessions without a bound on their number."""

    def begin(principal: Principal, goal: str, parent: Session | None) -> Session:
        parent_id = parent.session_id if parent is not None else None
        return runtime.create_session(goal=goal, principal=principal, parent_session_id=parent_id)

    return begin


class ProcessSession:
    """One session for everything that comes: a process with one host, on standard input and output."""

    def __init__(self, holder: ConnectionSession) -> None:
        self._holder = holder

    def of(self, ctx: RequestContext) -> SessionHolder:
        """See ``SessionFinder``."""
        return self._holder.seen_by(principal_of(ctx))


def own_session(runtime: Runtime, principal: Principal, session_id: str) -> Session:
    """An active session of ``principal``; another's answers exactly as an unknown one.

    Raises:
        RequestError: ``unknown_session`` or ``session_ended``.
    """
    session = runtime.get_session(session_id)
    if session is None or session.principal is None or session.principal.binding != principal.binding:
        raise RequestError("unknown_session", "there is no such session here", hint="start one with cra_start_session")
    if session.status != "active":
        raise RequestError("session_ended", "this session has ended", hint="start a new session")
    return session
