"""A pytest plugin for authors of atlases: the real runtime with the clock stopped and nothing carried out.

Rule: what decides is the gate that decides in production, trace and all; only time and the back ends are replaced.
Source: specs/atlas.md, "Tests in Python".

It is asked for by name, ``pytest_plugins = ["cra_mcp.testing"]`` in ``conftest.py``: a plugin that every pytest in the environment
loads by itself would cost those that don't want it. A test takes the fixture ``cra``::

    from cra_mcp.testing import Governed, assert_allowed, assert_denied, assert_needs_approval

    def test_large_refunds_need_a_person(cra: Governed) -> None:
        cra.load_atlas("./my-atlas")
        assert_allowed(cra.call("ticket.get", {"ticket_id": "T-1"}))
        assert_denied(cra.call("ticket.delete", {"ticket_id": "T-1"}), policy_id="no-deletion")
        asked = cra.call("refund.create", {"order_id": "O-1001", "amount_cents": 90_000, "reason": "It came too late."})
        assert_needs_approval(asked)
        assert_allowed(cra.approve(asked))
        assert [each.action_id for each in cra.backend.calls] == ["ticket.get", "refund.create"]
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import pytest

if TYPE_CHECKING:
    from cra_mcp.atlas.model import Action, Atlas
    from cra_mcp.auth.principal import Role
    from cra_mcp.compose import CRARuntime
    from cra_mcp.execution.backend import BoundAction, Invocation, Result
    from cra_mcp.gate.call import ExecutionOutcome
    from cra_mcp.trace.event import Event

__all__ = [
    "Answer",
    "FrozenClock",
    "Governed",
    "RecordedCall",
    "RecordingBackend",
    "assert_allowed",
    "assert_denied",
    "assert_needs_approval",
]

START = "2026-01-05T12:00:00Z"
"""Where the clock stands at first: a Monday at noon, as in policy tests."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXECUTORS = ("python", "command", "http", "mcp")
_NOTHING: Mapping[str, object] = {}


class FrozenClock:
    """A wall clock that stands still until it is moved. Called, it gives nanoseconds since the epoch."""

    def __init__(self, start: str = START) -> None:
        self._now = _instant(start)

    def __call__(self) -> int:
        """Nanoseconds since the epoch."""
        return (self._now - _EPOCH) // _MICROSECOND * 1_000

    @property
    def now(self) -> datetime:
        """The instant, in UTC."""
        return self._now

    def set(self, text: str) -> None:
        """Put it at an instant with an offset, such as ``2026-01-05T18:30:00Z``.

        Raises:
            ValueError: there is no such instant, or the text names none without a guess.
        """
        self._now = _instant(text)

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Move it on."""
        self._now += timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call that would have been carried out."""

    action_id: str
    parameters: Mapping[str, object]
    session_id: str


class RecordingBackend:
    """Stands in for every back end: it keeps what it is asked to do, and does nothing.

    Attributes:
        calls: those approved so far, in order.
        answers: by action id, the value to answer with (or a function of the parameters); None for others. An exception is raised.
    """

    executor_type: ClassVar[str] = "recording"

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self.answers: dict[str, object] = {}

    def bind(self, action: "Action", atlas: "Atlas") -> "BoundAction":
        """See ``Backend.bind``."""
        return self._run

    async def aclose(self) -> None:
        """See ``Backend.aclose``: nothing was started."""

    async def _run(self, invocation: "Invocation") -> "Result":
        from cra_mcp.execution.backend import Result  # noqa: PLC0415 - not for a run that only collects tests

        self.calls.append(RecordedCall(invocation.action_id, dict(invocation.parameters), invocation.session_id))
        answer = self.answers.get(invocation.action_id)
        if callable(answer):
            answer = cast("Callable[[Mapping[str, object]], object]", answer)(invocation.parameters)
        if isinstance(answer, BaseException):
            raise answer
        return Result(answer)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call, and the events it left.

    Attributes:
        outcome: what the caller is told.
        events: what the trace was told, in order: more than the caller where a refusal isn't disclosed.
    """

    action_id: str
    parameters: Mapping[str, object]
    outcome: "ExecutionOutcome"
    events: Sequence["Event"] = field(repr=False)

    @property
    def allowed(self) -> bool:
        """Whether the call was approved: whatever its action then answered, or if it has no executor."""
        return self._payload("action.approved") is not None

    @property
    def denied(self) -> bool:
        """Whether policy refused it. A call whose parameters are not valid was not refused by policy."""
        return self.outcome.status == "denied"

    @property
    def pending(self) -> bool:
        """Whether it waits for approval."""
        return self.outcome.status == "pending_approval"

    @property
    def policy_id(self) -> str | None:
        """The policy that is named for the decision, undisclosed ones included; ``parameters_schema`` for invalid parameters."""
        for event_type in ("action.denied", "policy.evaluated"):
            payload = self._payload(event_type)
            if payload is not None:
                return str(payload["policy_id"])
        return None

    @property
    def value(self) -> object:
        """What the action answered."""
        return self.outcome.value

    def _payload(self, event_type: str) -> Mapping[str, object] | None:
        found = [event.payload for event in self.events if event.event_type == event_type]
        return found[-1] if found else None

    def __str__(self) -> str:
        """What happened, in a line for whoever reads a failed test."""
        what = "allowed" if self.allowed else "waiting for approval" if self.pending else self.outcome.status
        fault = self.outcome.fault
        said = f": {fault.message}" if fault is not None else ""
        return f"{self.action_id} was {what} by {self.policy_id or 'nothing'}{said}"


class Governed:
    """A runtime under test.

    Attributes:
        runtime: the real one, with its traces in memory.
        clock: its clock, which stands still.
        backend: what carries out actions: it only keeps the calls.
    """

    def __init__(self, runtime: "CRARuntime", clock: FrozenClock, backend: RecordingBackend) -> None:
        self.runtime = runtime
        self.clock = clock
        self.backend = backend
        self._sessions: dict[str, str] = {}

    def load_atlas(self, path: str | Path) -> None:
        """Load an atlas, as ``CRARuntime.load_atlas`` does."""
        self.runtime.load_atlas(path)

    def call(
        self,
        action_id: str,
        parameters: Mapping[str, object] = _NOTHING,
        *,
        agent_id: str = "agent",
        task_risk: str = "low",
        context: Mapping[str, object] = _NOTHING,
        subject: str = "local",
        roles: Sequence[str] = ("agent",),
        tenant: str = "default",
    ) -> Answer:
        """Call an action as a requester would. Calls of one requester share a session; facts are as in policy tests."""
        facts = repr((agent_id, task_risk, sorted(context.items()), subject, sorted(roles), tenant))
        session_id = self._sessions.get(facts)
        if session_id is None:
            from cra_mcp.auth.principal import Principal  # noqa: PLC0415 - as above

            session = self.runtime.create_session(
                agent_id,
                "a test",
                risk_tier=task_risk,
                context=context,
                principal=Principal(subject, tenant, frozenset(cast("Sequence[Role]", roles)), agent_id=agent_id),
            )
            session_id = self._sessions[facts] = session.session_id
        return self._call(session_id, action_id, parameters)

    def approve(self, answer: Answer) -> Answer:
        """Grant the approval a call waits for, and make it again in its session.

        The grant is worth ``application``: of a policy that asks for better evidence, the call goes on waiting.

        Raises:
            AssertionError: it waits for none.
        """
        __tracebackhide__ = True
        approval = answer.outcome.approval
        if approval is None or not answer.pending:
            msg = f"expected a call that waits for approval, but {answer}"
            raise AssertionError(msg)
        self.runtime.settle_approval(approval.approval_id, granted=True, by="a test")
        return self._call(answer.events[0].session_id, answer.action_id, answer.parameters)

    def _call(self, session_id: str, action_id: str, parameters: Mapping[str, object]) -> Answer:
        before = self.runtime.newest_sequence(session_id)
        outcome = self.runtime.execute_blocking(session_id, action_id, dict(parameters))
        events = self.runtime.get_trace(session_id, after=-1 if before is None else before)
        return Answer(action_id, parameters, outcome, tuple(events))


def assert_allowed(answer: Answer, *, policy_id: str | None = None) -> None:
    """Fail unless the call was approved, by ``policy_id`` if one is named (``default`` where none decided).

    Raises:
        AssertionError: it wasn't.
    """
    __tracebackhide__ = True
    _expect(answer, answer.allowed, "allowed", policy_id)


def assert_denied(answer: Answer, *, policy_id: str | None = None) -> None:
    """Fail unless policy refused the call, and ``policy_id`` is named for it if one is given (of an overlay: ``OVERLAY/POLICY``).

    Raises:
        AssertionError: it didn't. A call refused for parameters that are not valid is no denial.
    """
    __tracebackhide__ = True
    _expect(answer, answer.denied, "denied", policy_id)


def assert_needs_approval(answer: Answer, *, policy_id: str | None = None) -> None:
    """Fail unless the call waits for approval, asked for by ``policy_id`` if one is given.

    Raises:
        AssertionError: it doesn't.
    """
    __tracebackhide__ = True
    _expect(answer, answer.pending, "held for approval", policy_id)


def _expect(answer: Answer, holds: bool, what: str, policy_id: str | None) -> None:
    __tracebackhide__ = True
    if not holds or policy_id not in (None, answer.policy_id):
        by = f" by {policy_id}" if policy_id is not None else ""
        msg = f"expected {answer.action_id} to be {what}{by}, but {answer}"
        raise AssertionError(msg)


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        msg = f"{text!r} says no offset from UTC: end it with Z"
        raise ValueError(msg)
    return found.astimezone(UTC)


@pytest.fixture
def cra_clock() -> FrozenClock:
    """The clock of the runtime under test."""
    return FrozenClock()


@pytest.fixture
def cra_backend() -> RecordingBackend:
    """What is asked of back ends: kept, not carried out."""
    return RecordingBackend()


@pytest.fixture
def cra_runtime(cra_clock: FrozenClock, cra_backend: RecordingBackend) -> Generator["CRARuntime"]:
    """A runtime without atlases: frozen time, traces and approvals in memory, back ends that record."""
    from cra_mcp.compose import CRARuntime  # noqa: PLC0415 - not for a run that only collects tests
    from cra_mcp.settings import RuntimeConfig  # noqa: PLC0415 - as above

    config = RuntimeConfig(store="memory", clock_ns=cra_clock)
    with CRARuntime(config, backends=dict.fromkeys(_EXECUTORS, cra_backend)) as runtime:
        yield runtime


@pytest.fixture
def cra(cra_runtime: "CRARuntime", cra_clock: FrozenClock, cra_backend: RecordingBackend) -> Governed:
    """The runtime under test, its clock and its back end."""
    return Governed(cra_runtime, cra_clock, cra_backend)
