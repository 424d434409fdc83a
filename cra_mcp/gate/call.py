"""Values that enter and leave the gate: a call and what became of it.

Source: specs/carp.md, "Execution".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from cra_mcp.actions.client import Client
from cra_mcp.approval.model import Approval, Asker
from cra_mcp.auth.principal import Principal, Recheck
from cra_mcp.canonical import lossy
from cra_mcp.execution.backend import Progress, Result
from cra_mcp.policy.model import Facts
from cra_mcp.resolution.model import Resolution
from cra_mcp.session import Session

_MAX_ACTION_ID = 256

LeftOut = Literal["added_by_host", "null"]
Status = Literal["success", "error", "denied", "pending_approval"]


def shown_id(action_id: str) -> str:
    """An action id as it may be recorded and shown, whatever was sent as one."""
    return cast("str", lossy(action_id[:_MAX_ACTION_ID]))


@dataclass(frozen=True, slots=True)
class Call:
    """A wish to have an action carried out.

    ``resolution`` is the one it is made under. ``parameters`` are as they arrived: any value at all. ``asker`` is how the
    caller's person can be asked for approval while the call waits; without one, approval is left pending. ``client`` is
    whom the action may talk back to. ``otel`` has the ``trace_id`` and ``span_id`` of the OpenTelemetry span it is made in.
    ``principal`` makes the call (None: whoever began the session), with the roles that ``resolution`` was made for; ``recheck``
    tells, after a wait, whether its credential still stands for it.
    ``called`` is what the caller asked for, where that is not the action id (a published name, a URI). ``offered`` is False
    where nothing of the kind that was asked for has that name: the call is one of an unknown action, whatever has its id.
    ``host_arguments`` are names that the caller's program adds by itself; ``left_out`` says which arguments don't count, by
    RFC 6901 pointer, and why.
    """

    session: Session
    resolution: Resolution
    action_id: str
    parameters: object
    request_id: str
    execution_id: str
    asker: Asker | None = None
    on_progress: Progress | None = None
    client: Client | None = None
    otel: Mapping[str, str] | None = None
    principal: Principal | None = None
    recheck: Recheck | None = None
    called: str | None = None
    offered: bool = True
    host_arguments: frozenset[str] = frozenset()
    left_out: tuple[tuple[str, LeftOut], ...] = ()

    @property
    def by(self) -> Principal | None:
        """Who makes it; None: whoever runs this process."""
        return self.principal or self.session.principal


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call has no result. ``code`` is stable; ``hint`` says what can be done."""

    code: str
    message: str
    hint: str | None = None
    details: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where the outcome stands in the trace: its event's sequence and hash."""

    session_id: str
    sequence: int
    event_hash: str


@dataclass(frozen=True, slots=True)
class Question:
    """A call to be explained.

    Attributes:
        facts: what its requester would bring.
        arguments: None: not known.
        approved: as if somebody who may had approved it.
        at_us: microseconds since the epoch.
    """

    action_id: str
    facts: Facts
    arguments: Mapping[str, object] | None
    at_us: int
    approved: bool = False


@dataclass(frozen=True, slots=True)
class ExecutionOutcome:
    """What became of a call. ``result`` is set on success, and where a tool itself reported an error.

    ``question`` is set where policy denied it: what to ask for an explanation. It has the arguments, and is not part of the answer.
    """

    status: Status
    action_id: str
    execution_id: str
    request_id: str
    resolution_id: str | None
    trace_id: str
    timestamp: str
    receipt: Receipt | None
    result: Result | None = None
    fault: Fault | None = None
    approval: Approval | None = None
    question: Question | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        code = f", code={self.fault.code!r}" if self.fault is not None else ""
        return (
            f"ExecutionOutcome(status={self.status!r}, action_id={self.action_id!r}{code}, "
            f"execution_id={self.execution_id!r})"
        )

    @property
    def value(self) -> object:
        """The JSON value the action returned; None if it returned content only or did not succeed."""
        return self.result.value if self.result is not None else None

    def to_dict(self) -> dict[str, object]:
        """The CARP execute response (specs/schemas/carp-execution.schema.json)."""
        message: dict[str, object] = {
            "carp_version": "1.0",
            "execution_id": self.execution_id,
            "request_id": self.request_id,
            "resolution_id": self.resolution_id,
            "timestamp": self.timestamp,
            "status": self.status,
            "trace_id": self.trace_id,
        }
        if self.result is not None:
            content = self.result.content
            message["result"] = (
                self.result.value
                if content is None
                else {
                    "content": list(content),
                    "structured": self.result.value,
                }
            )
        if self.fault is not None:
            details = dict(self.fault.details)
            if self.fault.hint:
                details["hint"] = self.fault.hint
            message["error"] = {"code": self.fault.code, "message": self.fault.message, "details": details}
        return message
