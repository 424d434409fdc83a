"""The sessions of one runtime: begun, found, ended, and what is recorded of them outside a call.

Rule: a session that can't begin its chain doesn't exist; one that has ended takes no event any more.
Source: specs/carp.md, "Sessions".
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import cast

from cra_mcp.atlas.registry import Catalogue
from cra_mcp.auth.principal import LOCAL_SUBJECT, Principal
from cra_mcp.canonical import digest, lossy
from cra_mcp.errors import CRAError, RequestError, TraceError, TraceUnavailableError
from cra_mcp.policy.model import Facts, RiskTier
from cra_mcp.runtime import arguments
from cra_mcp.runtime.watching import Watchers
from cra_mcp.session import EndReason, Session
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.event import Draft
from cra_mcp.trace.store import TraceStore

_MAX_GOAL = 10_000
_MAX_AGENT_ID = 256
_MAX_ENDED = 1_000
_log = logging.getLogger("cra_mcp")


class Sessions:
    """Sessions by id; of ended ones the last thousand."""

    def __init__(self, config: RuntimeConfig, store: TraceStore) -> None:
        self._config = config
        self._store = store
        self._sessions: dict[str, Session] = {}
        self._ended: deque[str] = deque()
        self._lock = threading.RLock()
        self.watchers = Watchers()

    def begin(
        self,
        catalogue: Catalogue,
        *,
        agent_id: str,
        goal: str,
        parent: Session | None,
        risk_tier: RiskTier,
        context: Mapping[str, object],
        principal: Principal | None,
    ) -> Session:
        """Start a session and its chain.

        A parent's chain says that it has got a child; a child whose parent can't say so is ended again.

        Raises:
            RequestError: ``invalid_request``.
            TraceUnavailableError: the chain can't be begun, or the parent's can't be written.
        """
        if not 1 <= len(arguments.text("agent_id", agent_id)) <= _MAX_AGENT_ID:
            raise RequestError("invalid_request", "agent_id must have 1 to 256 characters")
        check_goal(arguments.text("goal", goal))
        session_id = self._config.new_id()
        session = Session(
            session_id=session_id,
            trace_id=parent.trace_id if parent is not None else self._config.new_id(),
            root_span=self._config.new_id(),
            agent_id=agent_id,
            goal=goal,
            facts=replace(
                facts_outside(self._config, principal),
                agent_id=agent_id,
                session_id=session_id,
                task_risk=risk_tier,
                context=dict(context),
            ),
            started_ns=self._config.clock_ns(),
            parent_session_id=parent.session_id if parent is not None else None,
            principal=principal,
        )
        payload = _started(session, catalogue)
        self._store.begin(session_id, session.trace_id)
        try:
            self.record(session, "session.started", payload)
        except TraceError:
            self._release(session_id)
            raise
        with self._lock:
            self._sessions[session_id] = session
        if parent is not None:
            try:
                self.record(parent, "x.cra.session.child", {"session_id": session_id, "agent_id": agent_id})
            except TraceError:
                self.end(session, "error")
                raise
        return session

    def get(self, session_id: str) -> Session | None:
        """A session, ended ones included."""
        return self._sessions.get(session_id)

    def known(self, session_id: str) -> Session:
        """A session, ended ones included.

        Raises:
            RequestError: ``unknown_session``.
        """
        session = self._sessions.get(arguments.text("session_id", session_id))
        if session is None:
            raise unknown_session()
        return session

    def running(self, session_id: str) -> Session:
        """A session that takes calls.

        Raises:
            RequestError: ``unknown_session`` or ``session_ended``.
        """
        session = self.known(session_id)
        if session.status != "active":
            raise RequestError("session_ended", "this session has ended", hint="start a new session")
        return session

    def active(self) -> list[Session]:
        """Every session that takes calls."""
        with self._lock:
            return [session for session in self._sessions.values() if session.status == "active"]

    def end(self, session: Session, reason: EndReason) -> None:
        """Take no call any more; calls under way are the last in its chain. Safe to repeat."""
        with session.lock:
            if session.status == "active":
                session.status = "ending"
                session.end_reason = reason
        self.finish(session)

    def finish(self, session: Session) -> None:
        """Write ``session.ended`` if the session is ending and nothing is under way any more."""
        with session.lock:
            if session.status != "ending" or session.active_calls:
                return
            session.status = "ended"
        payload = {
            "reason": session.end_reason or "completed",
            "duration_ms": max(0, self._config.clock_ns() - session.started_ns) // 1_000 / 1_000,
        }
        # A full disk must not keep a session open: the missing event is what the trace then shows.
        with suppress(TraceError):
            self.record(session, "session.ended", payload)
        self._release(session.session_id)
        session.let_go()
        self._forget_oldest(session)

    def _release(self, session_id: str) -> None:
        """Give up a chain. Whoever ends a session can do nothing about a disk that fails; whoever runs this must know."""
        try:
            self._store.release(session_id)
        except TraceUnavailableError as error:
            _log.error("the end of the trace of session %s may be lost: %s", session_id, error.message)

    def _forget_oldest(self, ended: Session) -> None:
        """Keep a bounded number of ended sessions: those are only asked for to say that they have ended."""
        with self._lock:
            self._ended.append(ended.session_id)
            if len(self._ended) > _MAX_ENDED:
                self._sessions.pop(self._ended.popleft(), None)

    def record(self, session: Session, event_type: str, payload: Mapping[str, object]) -> None:
        """Add one event to a session's chain.

        Raises:
            TraceUnavailableError: it can't be stored.
        """
        self._store.append(session.session_id, [Draft(event_type, payload, session.root_span)])
        self.watchers.grown(session.session_id)

    def record_error(
        self,
        session: Session,
        request_id: str | None,
        error: CRAError,
        *,
        received: Mapping[str, object] | None = None,
        principal: Principal | None = None,
    ) -> None:
        """Record what was wrong with a request, and the request itself if ``received`` says what it was. Raises as ``record``.

        ``principal``: who made it, where that is what is wrong with it.
        """
        drafts: list[Draft] = []
        if received is not None:
            drafts.append(Draft("carp.request.received", received, session.root_span))
        payload: dict[str, object] = {"error_code": error.code, "error_message": error.message}
        if request_id is not None:
            payload["request_id"] = request_id
        if principal is not None:
            payload["principal"] = principal.of_request()
        drafts.append(Draft("error.occurred", cast("Mapping[str, object]", lossy(payload)), session.root_span))
        self._store.append(session.session_id, drafts)
        self.watchers.grown(session.session_id)

    def recorded(self, session: Session, request_id: str | None, error: RequestError) -> RequestError:
        """``error``, recorded: to be raised. Raises as ``record``."""
        self.record_error(session, request_id, error)
        return error


def unknown_session() -> RequestError:
    """What naming a session answers that isn't there, or is somebody else's."""
    return RequestError("unknown_session", "there is no such session here", hint="start one with create_session()")


def facts_outside(config: RuntimeConfig, principal: Principal | None) -> Facts:
    """What policies see of a principal outside a session; None: whoever runs this process."""
    if principal is None:
        return Facts(agent_id=config.agent_id, session_id="", tenant=config.tenant, subject=LOCAL_SUBJECT)
    return Facts(
        agent_id=principal.agent_id,
        session_id="",
        tenant=principal.tenant,
        subject=principal.subject,
        roles=principal.roles,
    )


def check_goal(goal: str) -> None:
    """Refuse a goal that is too long.

    Raises:
        RequestError: ``invalid_request``.
    """
    if len(goal) > _MAX_GOAL:
        raise RequestError("invalid_request", f"goal must have 0 to {_MAX_GOAL} characters")


def risk_tier_of(tier: RiskTier | str) -> RiskTier:
    """The tier of that name.

    Raises:
        RequestError: ``invalid_request``.
    """
    try:
        return RiskTier(tier)
    except ValueError:
        raise RequestError("invalid_request", "risk_tier must be low, medium, high or critical") from None


def _started(session: Session, catalogue: Catalogue) -> dict[str, object]:
    payload: dict[str, object] = {
        "agent_id": session.agent_id,
        "goal": lossy(session.goal),
        "atlases": [
            {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest}
            for atlas in catalogue.atlases
        ],
        "policy_digest": digest([[atlas.atlas_id, atlas.policy_set.digest] for atlas in catalogue.atlases]),
        "risk_tier": session.facts.task_risk.value,
        "tenant": session.facts.tenant,
    }
    if catalogue.shadow:
        payload["mode"] = "shadow"
    if catalogue.overlays:
        payload["overlays"] = [overlay.to_dict() for overlay in catalogue.overlays]
    if session.parent_session_id is not None:
        payload["parent_session_id"] = session.parent_session_id
    if session.principal is not None:
        payload["principal"] = session.principal.to_dict()
    if session.facts.context:
        payload["context"] = lossy(session.facts.context)
    return payload
