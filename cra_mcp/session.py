"""A session: one agent, one goal, one chain.

Rule: a session is known by its id and lives in the process that writes its chain. After ``session.ended`` nothing follows.
Source: specs/carp.md, "Sessions".
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cra_mcp.auth.principal import Principal
from cra_mcp.errors import RequestError
from cra_mcp.policy.model import Facts
from cra_mcp.resolution.model import Answer, Resolution

EndReason = Literal["completed", "timeout", "error", "cancelled"]
Status = Literal["active", "ending", "ended"]

_MAX_RESOLUTIONS = 256
_MAX_CURRENT = 32
_MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class Session:
    """Mutable state of one session; ``lock`` guards it across threads.

    Attributes:
        principal: who began it, and so whom it belongs to; None: whoever runs this process. What a request may do is its own
            principal's business.
        facts: what belongs to the session, and the roles of who began it; ``facts_for`` has those of a request.
        root_span: span of the session itself; parent of every call's span.
        resolution: the newest.
        current: the newest by the roles it was made for, used by calls that name none.
        recorded_answers: each answer the trace lists in full, and the sequence of the event that lists it.
        active_calls: calls under way; ``session.ended`` waits for them.
    """

    session_id: str
    trace_id: str
    root_span: str
    agent_id: str
    goal: str
    facts: Facts
    started_ns: int
    parent_session_id: str | None = None
    principal: Principal | None = None
    status: Status = "active"
    end_reason: EndReason | None = None
    resolution: Resolution | None = None
    current: dict[frozenset[str], Resolution] = field(default_factory=dict[frozenset[str], Resolution])
    resolutions: OrderedDict[str, Resolution] = field(default_factory=OrderedDict[str, Resolution])
    recorded_answers: dict[Answer, int] = field(default_factory=dict[Answer, int])
    seen_requests: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])
    active_calls: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def id(self) -> str:
        """The same as ``session_id``."""
        return self.session_id

    def __repr__(self) -> str:
        return f"Session(session_id={self.session_id!r}, agent_id={self.agent_id!r}, status={self.status!r})"

    def keep(self, resolution: Resolution) -> None:
        """Make ``resolution`` the current one; the oldest beyond a bound are forgotten (and so answer as unknown)."""
        self.resolution = resolution
        self.current[resolution.facts.roles] = resolution
        if len(self.current) > _MAX_CURRENT:
            self.current = {resolution.facts.roles: resolution}
        self.resolutions[resolution.resolution_id] = resolution
        if len(self.resolutions) > _MAX_RESOLUTIONS:
            self.resolutions.popitem(last=False)

    def outdate(self) -> None:
        """What was resolved so far no longer stands in for calls that name no resolution."""
        self.resolution = None
        self.current.clear()

    def facts_for(self, principal: Principal | None) -> Facts:
        """What policies see of a request of ``principal``; None: of whoever began the session."""
        if principal is None or principal.roles == self.facts.roles:
            return self.facts
        return replace(self.facts, roles=principal.roles)

    def see(self, request_id: str) -> None:
        """Remember a request id.

        Raises:
            RequestError: ``duplicate_request`` if it was seen before in this session.
        """
        with self.lock:
            if request_id in self.seen_requests:
                raise RequestError(
                    "duplicate_request", "this request_id was used before in this session", hint="make a new UUIDv7"
                )
            self.seen_requests[request_id] = None
            if len(self.seen_requests) > _MAX_REMEMBERED:
                self.seen_requests.popitem(last=False)

    def enter(self) -> None:
        """A call begins.

        Raises:
            RequestError: ``session_ended``.
        """
        with self.lock:
            if self.status != "active":
                raise RequestError("session_ended", "this session has ended", hint="start a new session")
            self.active_calls += 1

    def leave(self) -> None:
        """A call has ended."""
        with self.lock:
            self.active_calls -= 1

    def let_go(self) -> None:
        """The session has ended: drop what only calls need."""
        with self.lock:
            self.outdate()
            self.resolutions.clear()
            self.recorded_answers.clear()
            self.seen_requests.clear()

    def to_dict(self) -> Mapping[str, object]:
        """As plain JSON, for people and programs."""
        return {
            "session_id": self.session_id,
            "trace_id": self.trace_id,
            "agent_id": self.agent_id,
            "goal": self.goal,
            "status": self.status,
            "parent_session_id": self.parent_session_id,
            "resolution_id": self.resolution.resolution_id if self.resolution is not None else None,
        }
