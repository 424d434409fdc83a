"""The gate: every call of an action goes through here, and only from here to a back end.

Rule: what approves a call is stored before the call is carried out; whatever becomes of a call leaves an event; if the store can't
take an event, nothing is carried out. Source: specs/carp.md, "Execution"; specs/trace.md, "Record before acting".
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import Answer, Approval, Asker
from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.canonical import canonical_bytes, lossy, sha256_hex
from cra_mcp.errors import ApprovalError, CanonicalError, CRAError, ExecutionError, TraceUnavailableError
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.gate.binding import Binding, Bindings, no_executor
from cra_mcp.gate.call import Call, ExecutionOutcome, Fault, Receipt, Status
from cra_mcp.gate.results import Measured, measure
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Decision
from cra_mcp.settings import RuntimeConfig
from cra_mcp.state.database import StateUnavailableError
from cra_mcp.trace.event import Draft, Head, format_timestamp
from cra_mcp.trace.store import TraceStore

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

UNKNOWN_ACTION = "unknown_action"
_MAX_ACTION_ID = 256
_WORKERS = 8
_DURABLE_RANK = 2  # high and critical: on disk before they run
_UNDECLARED = Decision(effect="deny", policy_id="undeclared", basis="default", reason="no such action", disclose=False)

_limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_gate_limiter")
_workers: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_gate_workers")


@dataclass(slots=True)
class _Attempt:
    """One call on its way through the gate; ``drafts`` are events not yet stored."""

    call: Call
    span: str
    parameters: Mapping[str, object]
    parameters_hash: str
    recorded: object = None
    drafts: list[Draft] = field(default_factory=list[Draft])

    def note(self, event_type: str, payload: Mapping[str, object]) -> None:
        """Add an event to be stored with the next ones."""
        self.drafts.append(Draft(event_type, payload, self.span, self.call.session.root_span))


class Gate:
    """Enforces the policies of a catalogue on every call.

    Args:
        catalogue: the loaded atlases; replaced as a whole when they change.
        bindings: what is known of each action.
        store: where events go.
        counters: what rate limits have been charged.
        ledger: approvals.
        config: limits and recording.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        bindings: Bindings,
        store: TraceStore,
        counters: Counters,
        ledger: ApprovalLedger,
        config: RuntimeConfig,
    ) -> None:
        self.catalogue = catalogue
        self._bindings = bindings
        self._store = store
        self._counters = counters
        self._ledger = ledger
        self._config = config
        self._open = AsyncExitStack()

    def use(self, catalogue: Catalogue) -> None:
        """Make ``catalogue`` the one in force; what was known of atlases no longer in it is dropped."""
        for atlas in self.catalogue.atlases:
            if atlas not in catalogue.atlases:
                self._bindings.forget(atlas)
        self.catalogue = catalogue

    async def __aenter__(self) -> Self:
        """Let back ends start what must live on this event loop."""
        await self._open.__aenter__()
        for backend in self._bindings.backends:
            if isinstance(backend, AbstractAsyncContextManager):
                await self._open.enter_async_context(cast("AbstractAsyncContextManager[object]", backend))
            else:
                self._open.push_async_callback(backend.aclose)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """End everything back ends started."""
        await self._open.__aexit__(kind, error, trace)

    async def execute(self, call: Call) -> ExecutionOutcome:
        """Decide a call and, if it is approved, carry it out.

        Never raises for anything the caller sent, or for what the action did: the outcome says it. The caller has entered
        the session.

        Raises:
            The backend's cancellation, after its outcome is stored.
        """
        attempt, fault = self._receive(call)
        try:
            binding = await self._authorise(attempt, fault)
        except (TraceUnavailableError, StateUnavailableError) as error:
            return self._outcome(attempt, "error", None, fault=_fault_of(error))
        if isinstance(binding, ExecutionOutcome):
            return binding
        return await self._carry_out(attempt, binding)

    # --- receive ---------------------------------------------------------------------------------------------------

    def _receive(self, call: Call) -> tuple[_Attempt, Fault | None]:
        """Take in what was sent: its hash, what is recorded of it, and what is wrong with its form."""
        parameters, data, fault = _normalise(call.parameters, self._config.max_parameters_bytes)
        attempt = _Attempt(
            call=call,
            span=self._config.new_id(),
            parameters=parameters,
            parameters_hash=sha256_hex(data),
        )
        found = self._find(call)
        redactor = None
        if found is not None:
            redactor = self._bindings.of(*found).redactor
        mode = self._config.recording
        payload: dict[str, object] = {
            "action_id": _shown_id(call.action_id),
            "parameters": None,
            "parameters_hash": attempt.parameters_hash,
        }
        if mode in {"none", "hash"}:
            payload["recording"] = mode
        elif len(data) > self._config.max_recorded_bytes:
            payload["recording"] = "hash"
            payload["parameters_bytes"] = len(data)
        else:
            kept = parameters if fault is None else lossy(call.parameters)
            if mode == "redacted" and redactor is not None:
                kept = redactor.apply(kept)
            payload["parameters"] = attempt.recorded = kept
            payload["recording"] = mode
        attempt.note("action.requested", payload)
        return attempt, fault

    def _find(self, call: Call) -> tuple[Atlas, Action] | None:
        """The action, if it is loaded now and part of the resolution the call is made under."""
        if call.action_id not in call.resolution.outcome.members:
            return None
        return self.catalogue.find(call.action_id)

    # --- decide ----------------------------------------------------------------------------------------------------

    async def _authorise(self, attempt: _Attempt, fault: Fault | None) -> Binding | ExecutionOutcome:
        found = self._find(attempt.call)
        if found is None:
            return self._refuse(attempt, _UNDECLARED)
        atlas, action = found
        decision = self._decide(atlas, action, attempt)
        if decision.effect == "deny" and decision.basis != "rate_limit":
            return self._refuse(attempt, decision)
        binding = self._bindings.of(atlas, action)
        fault = fault or _check(binding, attempt.parameters)
        if fault is not None:
            return self._refuse_parameters(attempt, fault)
        granted: Approval | None = None
        if decision.effect == "require_approval":
            answer = await self._approve(attempt, action, decision)
            if isinstance(answer, ExecutionOutcome):
                return answer
            granted = answer
        return await self._approve_now(attempt, atlas, binding, decision, granted)

    def _decide(self, atlas: Atlas, action: Action, attempt: _Attempt, *, approved: bool = False) -> Decision:
        now_us = self._config.clock_ns() // 1_000
        return atlas.policy_set.decide(
            action.action_id, attempt.call.resolution.facts, self._counters, now_us, approved=approved
        )

    async def _approve_now(
        self, attempt: _Attempt, atlas: Atlas, binding: Binding, decision: Decision, granted: Approval | None
    ) -> Binding | ExecutionOutcome:
        """The last word: limits are charged and the approval is stored, or the call is refused."""
        action = binding.action
        approved = granted is not None
        facts = attempt.call.resolution.facts
        if approved:
            decision = self._decide(atlas, action, attempt, approved=True)
        # Charging fails where another call took the last of a limit meanwhile: then policy is asked again.
        taken_us = self._now_us()
        while decision.effect == "allow" and not self._counters.take(decision.limits, facts, taken_us):
            decision = self._decide(atlas, action, attempt, approved=approved)
            taken_us = self._now_us()
        if decision.effect != "allow":
            return self._refuse(attempt, decision)
        attempt.note("policy.evaluated", _evaluated(action.action_id, decision))
        attempt.note(
            "action.approved",
            {
                "action_id": action.action_id,
                "resolution_id": attempt.call.resolution.resolution_id,
                "execution_id": attempt.call.execution_id,
                "approval_id": granted.approval_id if granted is not None else None,
            },
        )
        durable = approved or action.risk_tier.rank >= _DURABLE_RANK
        try:
            await self._store_drafts(attempt, durable=durable)
        except TraceUnavailableError:
            self._counters.give_back(decision.limits, facts, taken_us)
            raise
        return binding

    # --- refuse ----------------------------------------------------------------------------------------------------

    def _refuse(self, attempt: _Attempt, decision: Decision) -> ExecutionOutcome:
        """Deny a call. Hidden and unknown actions leave by the same steps, so that they can't be told apart."""
        action_id = _shown_id(attempt.call.action_id)
        violation = "rate_limit" if decision.basis == "rate_limit" else "denied_action"
        if decision.policy_id == "undeclared":
            violation = "unauthorized"
        attempt.note("policy.evaluated", _evaluated(action_id, decision))
        attempt.note(
            "policy.violated", {"action_id": action_id, "policy_id": decision.policy_id, "violation_type": violation}
        )
        attempt.note(
            "action.denied", {"action_id": action_id, "policy_id": decision.policy_id, "reason": decision.reason}
        )
        head = self._append(attempt)
        if not decision.disclose:
            return self._outcome(attempt, "denied", head, fault=unknown_action(attempt.call.action_id))
        details: dict[str, object] = {"policy_id": decision.policy_id, "reason": decision.reason}
        if decision.retry_after_us is not None:
            seconds = -(-decision.retry_after_us // 1_000_000)
            details["retry_after_seconds"] = seconds
            fault = Fault(
                "rate_limited",
                f"{action_id} is refused by policy {decision.policy_id}: {decision.reason or 'its limit is spent'}",
                hint=f"call it again in {seconds} s",
                details=details,
            )
        else:
            fault = Fault(
                "denied",
                f"{action_id} is denied by policy {decision.policy_id}: {decision.reason or 'no reason given'}",
                hint="don't call it again in this session; ask the person to change the policy if it is needed",
                details=details,
            )
        return self._outcome(attempt, "denied", head, fault=fault)

    def _refuse_parameters(self, attempt: _Attempt, fault: Fault) -> ExecutionOutcome:
        action_id = _shown_id(attempt.call.action_id)
        attempt.note(
            "policy.violated",
            {
                "action_id": action_id,
                "policy_id": "parameters_schema",
                "violation_type": "invalid_parameters",
                "faults": fault.details.get("recorded", []),
            },
        )
        attempt.note(
            "action.denied",
            {"action_id": action_id, "policy_id": "parameters_schema", "reason": "the parameters are not valid"},
        )
        head = self._append(attempt)
        shown = Fault(
            fault.code,
            fault.message,
            fault.hint,
            {key: fault.details[key] for key in fault.details if key != "recorded"},
        )
        return self._outcome(attempt, "error", head, fault=shown)

    # --- approve ---------------------------------------------------------------------------------------------------

    async def _approve(self, attempt: _Attempt, action: Action, decision: Decision) -> Approval | ExecutionOutcome:
        """A consumed approval for exactly this call; or what to answer instead."""
        call = attempt.call
        asked = await self._in_thread(
            lambda: self._ledger.latest(call.session.session_id, action.action_id, attempt.parameters_hash)
        )
        if asked is not None and asked.status == "granted":
            return await self._use(attempt, asked)
        if asked is not None and asked.status == "rejected" and asked.expires_at_us > self._now_us():
            return self._refuse_unapproved(attempt, asked, "approval.rejected")
        if asked is None or asked.status != "pending":
            asked = await self._request(attempt, action, decision)
        if call.asker is None:
            return self._leave_pending(attempt, asked)
        return await self._ask(attempt, asked, call.asker)

    async def _request(self, attempt: _Attempt, action: Action, decision: Decision) -> Approval:
        now_us = self._now_us()
        session = attempt.call.session
        approval = Approval(
            approval_id=self._config.new_id(),
            session_id=session.session_id,
            agent_id=session.agent_id,
            action_id=action.action_id,
            parameters_hash=attempt.parameters_hash,
            parameters=attempt.recorded,
            policy_id=decision.policy_id,
            reason=decision.reason,
            risk_tier=action.risk_tier.value,
            requested_at_us=now_us,
            expires_at_us=now_us + self._config.approval_ttl_s * 1_000_000,
        )
        attempt.note("policy.evaluated", _evaluated(action.action_id, decision))
        attempt.note(
            "approval.requested",
            {
                "approval_id": approval.approval_id,
                "action_id": approval.action_id,
                "policy_id": approval.policy_id,
                "parameters_hash": approval.parameters_hash,
                "expires_at": format_timestamp(approval.expires_at_us * 1_000),
            },
        )
        await self._store_drafts(attempt, durable=False)
        return await self._in_thread(lambda: self._ledger.request(approval))

    async def _ask(self, attempt: _Attempt, asked: Approval, asker: Asker) -> Approval | ExecutionOutcome:
        """Ask while the call waits; no answer in time is a no."""
        answer: Answer = "unanswered"
        try:
            with anyio.move_on_after(self._config.elicitation_timeout_s):
                answer = await asker.ask(asked)
        except anyio.get_cancelled_exc_class():
            with contextlib.suppress(TraceUnavailableError, StateUnavailableError):
                await self._in_thread(lambda: self._ledger.expire(asked.approval_id))
                self._refuse_unapproved(attempt, asked, "approval.expired")
            raise
        if answer == "unavailable":
            return self._leave_pending(attempt, asked)
        if answer == "unanswered":
            await self._in_thread(lambda: self._ledger.expire(asked.approval_id))
            return self._refuse_unapproved(attempt, asked, "approval.expired")
        try:
            settled = await self._in_thread(
                lambda: self._ledger.settle(
                    asked.approval_id, granted=answer == "granted", by=asked.agent_id, channel=asker.channel
                )
            )
        except ApprovalError:
            # Decided elsewhere meanwhile, or expired: what the ledger says holds.
            settled = await self._in_thread(lambda: self._ledger.get(asked.approval_id))
        if settled.status == "granted":
            return await self._use(attempt, settled)
        event = "approval.rejected" if settled.status == "rejected" else "approval.expired"
        return self._refuse_unapproved(attempt, settled, event)

    async def _use(self, attempt: _Attempt, granted: Approval) -> Approval | ExecutionOutcome:
        """Consume a granted approval: it serves one call."""
        if not await self._in_thread(lambda: self._ledger.consume(granted.approval_id)):
            return self._refuse_unapproved(attempt, granted, "approval.expired")
        attempt.note("approval.granted", _approval_payload(granted))
        return granted

    def _leave_pending(self, attempt: _Attempt, asked: Approval) -> ExecutionOutcome:
        head = self._append(attempt) if attempt.drafts else self._store.head(attempt.call.session.session_id)
        fault = Fault(
            "approval_pending",
            f"{asked.action_id} needs approval by policy {asked.policy_id}: {asked.reason or 'no reason given'}",
            hint=f"ask the person to run `cra-mcp approve {asked.approval_id}` in a terminal, then call it again with "
            "the same arguments",
            details={"approval_id": asked.approval_id, "policy_id": asked.policy_id, "reason": asked.reason},
        )
        return self._outcome(attempt, "pending_approval", head, fault=fault, approval=asked)

    def _refuse_unapproved(self, attempt: _Attempt, approval: Approval, event_type: str) -> ExecutionOutcome:
        word = event_type.removeprefix("approval.")
        attempt.note(event_type, _approval_payload(approval))
        attempt.note(
            "action.denied",
            {"action_id": approval.action_id, "policy_id": approval.policy_id, "reason": f"approval {word}"},
        )
        head = self._append(attempt)
        fault = Fault(
            f"approval_{word}",
            f"{approval.action_id} needs approval by policy {approval.policy_id}, and its approval was {word}"
            if word == "rejected"
            else f"{approval.action_id} needs approval by policy {approval.policy_id}, and nobody answered in time",
            hint="don't call it again unless the person asks for it",
            details={"approval_id": approval.approval_id, "policy_id": approval.policy_id},
        )
        return self._outcome(attempt, "denied", head, fault=fault, approval=approval)

    # --- carry out -------------------------------------------------------------------------------------------------

    async def _carry_out(self, attempt: _Attempt, binding: Binding) -> ExecutionOutcome:
        started_ns = self._config.clock_ns()
        try:
            result = await self._run(attempt, binding)
        except ExecutionError as error:
            return self._failed(attempt, started_ns, _fault_of(error))
        except anyio.get_cancelled_exc_class():
            self._failed(attempt, started_ns, Fault("cancelled", "the caller cancelled the call"))
            raise
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything; its text may hold secrets
            name = type(error).__name__
            return self._failed(attempt, started_ns, Fault("execution_failed", f"the action failed ({name})"))
        measured = measure(result, self._config.max_result_bytes)
        fault = _check_result(binding, measured)
        if fault is not None:
            return self._failed(attempt, started_ns, fault, measured=measured)
        if result.is_error:
            fault = Fault("tool_error", "the tool reported an error")
            return self._failed(attempt, started_ns, fault, measured=measured, result=measured.result)
        return self._succeeded(attempt, started_ns, measured)

    async def _run(self, attempt: _Attempt, binding: Binding) -> Result:
        action = binding.action
        if binding.run is None:
            raise no_executor(action)
        invocation = Invocation(
            action_id=action.action_id,
            session_id=attempt.call.session.session_id,
            execution_id=attempt.call.execution_id,
            parameters=attempt.parameters,
            on_progress=attempt.call.on_progress,
        )
        began = False
        with anyio.move_on_after(action.timeout_s):
            async with self._limiter():
                began = True
                return await binding.run(invocation)
        if began:
            raise ExecutionError(
                "timeout",
                f"{action.action_id} did not finish within {action.timeout_s:g} s and was ended",
                hint="its effects may have happened in part; check before calling it again",
            )
        raise ExecutionError(
            "busy", f"{self._config.max_concurrency} actions are running already", hint="call it again later"
        )

    def _succeeded(self, attempt: _Attempt, started_ns: int, measured: Measured) -> ExecutionOutcome:
        payload: dict[str, object] = {
            "action_id": attempt.call.action_id,
            "execution_id": attempt.call.execution_id,
            "duration_ms": self._elapsed_ms(started_ns),
            "result_hash": measured.hash,
            "result_bytes": measured.size,
        }
        if measured.cut:
            payload["result_cut"] = True
        attempt.note("action.executed", payload)
        try:
            head = self._append(attempt)
        except TraceUnavailableError as error:
            return self._unrecorded(attempt, error)
        return self._outcome(attempt, "success", head, result=measured.result)

    def _failed(
        self,
        attempt: _Attempt,
        started_ns: int,
        fault: Fault,
        *,
        measured: Measured | None = None,
        result: Result | None = None,
    ) -> ExecutionOutcome:
        payload: dict[str, object] = {
            "action_id": attempt.call.action_id,
            "execution_id": attempt.call.execution_id,
            "error_code": fault.code,
            "error_message": fault.message,
            "duration_ms": self._elapsed_ms(started_ns),
        }
        if measured is not None:
            payload["result_hash"] = measured.hash
            payload["result_bytes"] = measured.size
        attempt.note("action.failed", payload)
        try:
            head = self._append(attempt)
        except TraceUnavailableError as error:
            return self._unrecorded(attempt, error)
        return self._outcome(attempt, "error", head, fault=fault, result=result)

    def _unrecorded(self, attempt: _Attempt, error: TraceUnavailableError) -> ExecutionOutcome:
        """The action ran, and its outcome could not be stored: what isn't in the trace is not handed on."""
        fault = Fault(
            error.code,
            f"{attempt.call.action_id} was carried out, but its outcome could not be recorded, so it is withheld",
            hint=error.hint,
        )
        return self._outcome(attempt, "error", None, fault=fault)

    # --- record ----------------------------------------------------------------------------------------------------

    def _append(self, attempt: _Attempt, *, durable: bool = False) -> Head:
        """Store what is noted. On the caller's thread: it is a write to the kernel (or, if durable, a disk flush)."""
        drafts: Sequence[Draft] = attempt.drafts
        head = self._store.append(attempt.call.session.session_id, drafts, durable=durable)
        attempt.drafts = []
        return head

    async def _store_drafts(self, attempt: _Attempt, *, durable: bool) -> Head:
        if not durable and not self._store.remote:
            return self._append(attempt)
        return await self._in_thread(lambda: self._append(attempt, durable=durable))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work off the event loop, to its end even if the caller is cancelled meanwhile."""
        done: list[T] = []
        with anyio.CancelScope(shield=True):
            done.append(await anyio.to_thread.run_sync(work, limiter=_of_loop(_workers, _WORKERS)))
        return done[0]

    def _limiter(self) -> anyio.CapacityLimiter:
        return _of_loop(_limiters, self._config.max_concurrency)

    def _now_us(self) -> int:
        return self._config.clock_ns() // 1_000

    def _elapsed_ms(self, started_ns: int) -> float:
        return max(0, self._config.clock_ns() - started_ns) // 1_000 / 1_000

    def _outcome(
        self,
        attempt: _Attempt,
        status: Status,
        head: Head | None,
        *,
        result: Result | None = None,
        fault: Fault | None = None,
        approval: Approval | None = None,
    ) -> ExecutionOutcome:
        session = attempt.call.session
        return ExecutionOutcome(
            status=status,
            action_id=attempt.call.action_id,
            execution_id=attempt.call.execution_id,
            request_id=attempt.call.request_id,
            resolution_id=attempt.call.resolution.resolution_id,
            trace_id=session.trace_id,
            timestamp=head.timestamp if head is not None else format_timestamp(self._config.clock_ns()),
            receipt=Receipt(session.session_id, head.sequence, head.event_hash) if head is not None else None,
            result=result,
            fault=fault,
            approval=approval,
        )


def unknown_action(action_id: str) -> Fault:
    """What calling an unknown action answers; a hidden one answers the same."""
    return Fault(
        UNKNOWN_ACTION, f"Unknown action: {_shown_id(action_id)}", hint="list the actions and call one of them"
    )


def _shown_id(action_id: str) -> str:
    return cast("str", lossy(action_id[:_MAX_ACTION_ID]))


def _normalise(parameters: object, max_bytes: int) -> tuple[Mapping[str, object], bytes, Fault | None]:
    """``(parameters, canonical bytes, what is wrong with their form)``; None counts as no parameters."""
    if parameters is None:
        parameters = {}
    try:
        data = canonical_bytes(parameters)
    except CanonicalError as error:
        return {}, canonical_bytes(lossy(parameters)), _bad_form(error.message)
    if not isinstance(parameters, dict):
        return {}, data, _bad_form("the parameters must be a JSON object")
    if len(data) > max_bytes:
        return {}, data, _bad_form(f"the parameters have {len(data)} bytes, the limit is {max_bytes}")
    return cast("dict[str, object]", parameters), data, None


def _bad_form(message: str) -> Fault:
    return Fault(
        "invalid_parameters",
        f"invalid parameters: {message}",
        hint="send a JSON object that fits the action's parameters_schema",
        details={"recorded": [{"pointer": "", "keyword": "form"}]},
    )


def _check(binding: Binding, parameters: Mapping[str, object]) -> Fault | None:
    faults = binding.faults(parameters)
    if not faults:
        return None
    return Fault(
        "invalid_parameters",
        "invalid parameters: " + "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults),
        hint="correct them and call again",
        details={
            "faults": [{"pointer": fault.pointer, "message": fault.message} for fault in faults],
            "recorded": [{"pointer": fault.pointer, "keyword": fault.keyword} for fault in faults],
        },
    )


def _check_result(binding: Binding, measured: Measured) -> Fault | None:
    """What is wrong with a result; tool errors and cut results can't meet the schema and are marked otherwise."""
    if binding.returns is None or measured.result.is_error:
        return None
    if measured.cut:
        return Fault(
            "output_too_large",
            f"{binding.action.action_id} was carried out, but its result has {measured.size} bytes, which is over the limit",
            hint="ask for less at a time",
        )
    if binding.returns.is_valid(measured.result.value):
        return None
    return Fault(
        "invalid_result",
        f"{binding.action.action_id} was carried out, but its result does not fit its returns_schema, so it is withheld",
        hint="correct the action or its returns_schema in the atlas",
    )


def _evaluated(action_id: str, decision: Decision) -> dict[str, object]:
    return {
        "action_id": action_id,
        "policy_id": decision.policy_id,
        "result": decision.effect,
        "basis": decision.basis,
        "determining": list(decision.determining),
    }


def _approval_payload(approval: Approval) -> dict[str, object]:
    return {
        "approval_id": approval.approval_id,
        "action_id": approval.action_id,
        "policy_id": approval.policy_id,
        "by": approval.decided_by,
        "channel": approval.channel,
        "grade": approval.grade,
    }


def _fault_of(error: CRAError) -> Fault:
    return Fault(error.code, error.message, error.hint)


def _of_loop(variable: "anyio.lowlevel.RunVar[anyio.CapacityLimiter]", size: int) -> anyio.CapacityLimiter:
    """A limiter of the running event loop: never the default one, which the transports share."""
    try:
        return variable.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(size)
        variable.set(limiter)
        return limiter
