"""A call on its way through the gate, and what every stage does with it: note events, store them, answer.

Rule: events are noted first and stored together; an answer carries the receipt of the last one stored.
Source: specs/carp.md, "Execution"; specs/trace.md, "Record before acting".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from cra_mcp.approval.model import Approval
from cra_mcp.errors import TraceUnavailableError
from cra_mcp.execution.backend import Result
from cra_mcp.gate.call import Call, ExecutionOutcome, Fault, Question, Receipt, Status, shown_id
from cra_mcp.json_bounds import parts
from cra_mcp.policy.model import Charge
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.event import Draft, Head, format_timestamp
from cra_mcp.trace.store import TraceStore

T = TypeVar("T")

PENDING = "x.cra.call.pending"
OUTCOMES = frozenset({"action.executed", "action.failed", "action.denied", PENDING})
"""What becomes of a call: each leaves exactly one of these."""

_WORKERS = 8
_MANY_PARTS = 2_000
_workers: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_gate_workers")


@dataclass(slots=True)
class Attempt:
    """One call on its way through the gate.

    Attributes:
        span: of this call; its events have it.
        parameters: as they are checked and carried out.
        parameters_hash: lower-case hex SHA-256 of their canonical form.
        recorded: what the trace keeps of them.
        charges: what was taken from budgets for it, at that instant.
        drafts: events not yet stored.
        decided_us: the instant policy was last asked for, microseconds since the epoch.
        timed: the decision depends on that instant.
        ended: an event that says what became of the call is noted.
    """

    call: Call
    span: str
    parameters: Mapping[str, object]
    parameters_hash: str
    recorded: object = None
    charges: tuple[Charge, ...] = ()
    drafts: list[Draft] = field(default_factory=list[Draft])
    decided_us: int = 0
    timed: bool = False
    ended: bool = False

    @property
    def at(self) -> str | None:
        """The instant that was decided for, as the trace states it; None where the decision doesn't depend on it."""
        return format_timestamp(self.decided_us * 1_000) if self.timed else None

    def conceal(self, called: str | None) -> None:
        """Mark what is noted as undisclosed: its agent may see a call of something unknown in it, by the name ``called``."""
        mark: dict[str, object] = {"disclosed": False, **({"called": called} if called is not None else {})}
        self.drafts = [
            draft if isinstance(draft.payload, bytes) else draft._replace(payload={**draft.payload, **mark})
            for draft in self.drafts
        ]

    def note(self, event_type: str, payload: Mapping[str, object]) -> None:
        """Add an event to be stored with the next ones."""
        self.ended = self.ended or event_type in OUTCOMES
        self.drafts.append(Draft(event_type, payload, self.span, self.call.session.root_span))


class Recorder:
    """Stores what attempts note, and makes their answers."""

    def __init__(self, store: TraceStore, config: RuntimeConfig) -> None:
        self._store = store
        self._clock_ns = config.clock_ns

    def append(self, attempt: Attempt, *, durable: bool = False) -> Head:
        """Store what is noted. On the caller's thread: it is a write to the kernel (or, if durable, a disk flush).

        Raises:
            TraceUnavailableError: nothing was stored.
        """
        head = self._store.append(attempt.call.session.session_id, attempt.drafts, durable=durable)
        attempt.drafts = []
        return head

    async def store(self, attempt: Attempt, *, durable: bool) -> Head:
        """As ``append``, off the event loop where it may wait."""
        if not durable and not self._store.remote:
            return self.append(attempt)
        return await in_thread(lambda: self.append(attempt, durable=durable))

    def fail_undecided(self, attempt: Attempt, fault: Fault) -> Head | None:
        """Record that a call has ended before anything was decided on it; None where that can't be stored either."""
        payload = {
            "action_id": shown_id(attempt.call.action_id),
            "execution_id": attempt.call.execution_id,
            "error_code": fault.code,
            "error_message": fault.message,
            "duration_ms": 0,
        }
        attempt.note("action.failed", payload)
        try:
            return self.append(attempt)
        except TraceUnavailableError:
            return None

    def outcome(
        self,
        attempt: Attempt,
        status: Status,
        head: Head | None,
        *,
        result: Result | None = None,
        fault: Fault | None = None,
        approval: Approval | None = None,
        explained: bool = True,
    ) -> ExecutionOutcome:
        """The answer to a call; ``head`` is its last event, None if none could be stored. ``explained``: policies explain it."""
        session = attempt.call.session
        return ExecutionOutcome(
            status=status,
            action_id=attempt.call.action_id,
            execution_id=attempt.call.execution_id,
            request_id=attempt.call.request_id,
            resolution_id=attempt.call.resolution.resolution_id,
            trace_id=session.trace_id,
            timestamp=head.timestamp if head is not None else format_timestamp(self._clock_ns()),
            receipt=Receipt(session.session_id, head.sequence, head.event_hash) if head is not None else None,
            result=result,
            fault=fault,
            approval=approval,
            question=self._question(attempt) if status == "denied" and explained else None,
        )

    def _question(self, attempt: Attempt) -> Question:
        call = attempt.call
        at_us = attempt.decided_us or self._clock_ns() // 1_000  # none was decided on for an action that isn't there
        return Question(call.action_id, call.resolution.facts, attempt.parameters, at_us)


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work off the event loop, to its end even if the caller is cancelled meanwhile."""
    done: list[T] = []
    with anyio.CancelScope(shield=True):
        done.append(await anyio.to_thread.run_sync(work, limiter=limiter_of_loop(_workers, _WORKERS)))
    return done[0]


async def beside(value: object, work: Callable[[], T]) -> T:
    """Run work on ``value`` here, or off the event loop where it has many parts."""
    return work() if parts(value, _MANY_PARTS) < _MANY_PARTS else await in_thread(work)


def limiter_of_loop(variable: "anyio.lowlevel.RunVar[anyio.CapacityLimiter]", size: int) -> anyio.CapacityLimiter:
    """A limiter of the running event loop: never the default one, which the transports share."""
    try:
        return variable.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(size)
        variable.set(limiter)
        return limiter
