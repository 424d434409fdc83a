"""The gate: every call of an action goes through here, and only from here to a back end.

Rule: what approves a call is stored before the call is carried out; whatever becomes of a call leaves an event; if the store can't
take an event, nothing is carried out. Source: specs/carp.md, "Execution"; specs/trace.md, "Record before acting".
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, cast

import anyio
import anyio.lowlevel

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import Approval
from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import AskError, CRAError, ExecutionError, TraceUnavailableError
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.gate.approving import Approving
from cra_mcp.gate.asking import RecordedClient
from cra_mcp.gate.attempt import Attempt, Recorder, in_thread, limiter_of_loop
from cra_mcp.gate.binding import Binding, Bindings, no_executor
from cra_mcp.gate.call import Call, ExecutionOutcome, Fault, Question
from cra_mcp.gate.intake import check_parameters, receive
from cra_mcp.gate.refusing import UNDECLARED, evaluated, is_denied, refuse, refuse_parameters
from cra_mcp.gate.results import Measured, measure, recorded_result
from cra_mcp.gate.shadow import note_shadow
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import MICRO, Charge, Decision, Facts
from cra_mcp.settings import RuntimeConfig
from cra_mcp.state.database import Database, StateUnavailableError
from cra_mcp.state.freezes import SCHEMA, Freezes
from cra_mcp.trace.store import TraceStore

if TYPE_CHECKING:
    from types import TracebackType

    from cra_mcp.gate.explaining import CallExplanation

_DURABLE_RANK = 2  # high and critical

_limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_gate_limiter")


class Gate:
    """Enforces the policies of a catalogue on every call.

    Args:
        catalogue: the loaded atlases; replaced as a whole when they change.
        bindings: what is known of each action.
        store: where events go.
        counters: what rate limits have been charged.
        ledger: approvals.
        config: limits and recording.
        freezes: the kill switch; None: one of this process alone.
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
        freezes: Freezes | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.freezes = freezes or Freezes(Database(None, SCHEMA), None, lambda: config.clock_ns() // 1_000)
        self._bindings = bindings
        self._recorder = Recorder(store, config)
        self._approving = Approving(ledger, self._recorder, config)
        self._counters = counters
        self._shadow_counters = Counters()  # of this process: what was never enforced is not kept
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
        found = self._find(call)
        redactor = self._bindings.of(*found).redactor if found is not None else None
        attempt, fault = receive(call, redactor, self._config)
        try:
            binding = await self._authorise(attempt, fault)
        except (TraceUnavailableError, StateUnavailableError) as error:
            return self._recorder.outcome(attempt, "error", None, fault=_fault_of(error))
        if isinstance(binding, ExecutionOutcome):
            return binding
        return await self._carry_out(attempt, binding)

    def explain(self, question: Question) -> "CallExplanation":
        """Explain what would become of a call. Nothing is charged, recorded or asked for."""
        from cra_mcp.gate.explaining import explain_call  # noqa: PLC0415 - on the way of no call

        return explain_call(question, self.catalogue, self._counters, self._frozen, self._config)

    def _find(self, call: Call) -> tuple[Atlas, Action] | None:
        """The action, if it is loaded now and part of the resolution the call is made under."""
        if call.action_id not in call.resolution.outcome.members:
            return None
        return self.catalogue.find(call.action_id)

    # --- decide ----------------------------------------------------------------------------------------------------

    async def _authorise(self, attempt: Attempt, fault: Fault | None) -> Binding | ExecutionOutcome:
        found = self._find(attempt.call)
        if found is None:
            return refuse(self._recorder, attempt, UNDECLARED)
        atlas, action = found
        facts = attempt.call.resolution.facts
        # What is denied whatever its arguments is refused before anything is said of them.
        reads_args = atlas.policy_set.reads_args(action.action_id, facts)
        if reads_args:
            attempt.decided_us = self._config.clock_ns() // 1_000
            attempt.timed = atlas.policy_set.timed
            decision = atlas.policy_set.foresee(action.action_id, facts, attempt.decided_us)
        else:
            decision = self._decide(atlas, action, attempt)
        if not is_denied(decision):  # what looks unknown goes on looking so
            decision = self._frozen(atlas, facts) or decision
        if is_denied(decision):
            return refuse(self._recorder, attempt, decision)
        binding = self._bindings.of(atlas, action)
        fault = fault or check_parameters(binding, attempt.parameters)
        if fault is not None:
            return refuse_parameters(self._recorder, attempt, fault)
        if reads_args:
            decision = self._decide(atlas, action, attempt)
            if is_denied(decision):
                return refuse(self._recorder, attempt, decision)
        granted: Approval | None = None
        if decision.effect == "require_approval":
            answer = await self._approving.consent(attempt, action, decision)
            if isinstance(answer, ExecutionOutcome):
                return answer
            granted = answer
        return await self._approve_now(attempt, atlas, binding, decision, granted)

    def _decide(self, atlas: Atlas, action: Action, attempt: Attempt, *, approved: bool = False) -> Decision:
        attempt.decided_us = now_us = self._config.clock_ns() // 1_000
        attempt.timed = atlas.policy_set.timed
        return atlas.policy_set.decide(
            action.action_id,
            attempt.call.resolution.facts,
            self._counters,
            now_us,
            approved=approved,
            args=attempt.parameters,
        )

    def _frozen(self, atlas: Atlas, facts: Facts) -> Decision | None:
        """The refusal of a call that is frozen, or of which nobody can tell; None if it isn't."""
        try:
            freeze = self.freezes.holding(facts.agent_id, atlas.atlas_id)
        except StateUnavailableError as error:
            return Decision("deny", "freeze", "freeze", error.message)
        if freeze is None:
            return None
        what = "everything" if freeze.kind == "all" else f"{freeze.kind} {freeze.name}"
        return Decision("deny", "freeze", "freeze", f"{what} is frozen: {freeze.reason or 'no reason given'}")

    async def _approve_now(
        self, attempt: Attempt, atlas: Atlas, binding: Binding, decision: Decision, granted: Approval | None
    ) -> Binding | ExecutionOutcome:
        """The last word: limits are charged and the approval is stored, or the call is refused."""
        action = binding.action
        approved = granted is not None
        facts = attempt.call.resolution.facts
        if approved:
            decision = self._frozen(atlas, facts) or self._decide(atlas, action, attempt, approved=True)
        # Charging fails where another call took the last of a limit meanwhile: then policy is asked again.
        # Charged for the instant that was decided on, which is the one the trace states.
        while decision.effect == "allow" and not await self._take(decision, facts, attempt.decided_us):
            decision = self._decide(atlas, action, attempt, approved=approved)
        if decision.effect != "allow":
            if granted is not None:
                self._approving.note_unused(attempt, granted)
            return refuse(self._recorder, attempt, decision)
        try:
            # Used up last of all, so that a call refused by a limit costs no consent.
            refusal = await self._approving.use(attempt, granted) if granted is not None else None
            if refusal is None:
                await self._store_approval(attempt, atlas, action, decision, granted)
        except (TraceUnavailableError, StateUnavailableError):
            await self._give_back(decision, facts, attempt.decided_us)
            raise
        if refusal is not None:
            await self._give_back(decision, facts, attempt.decided_us)
            return refusal
        attempt.charges = decision.charges
        return binding

    async def _take(self, decision: Decision, facts: Facts, taken_us: int) -> bool:
        """Charge a call, off the event loop where that waits for a disk. Raises ``StateUnavailableError``."""
        if self._counters.blocks(decision.limits, decision.charges):
            return await in_thread(lambda: self._counters.take(decision.limits, facts, taken_us, decision.charges))
        return self._counters.take(decision.limits, facts, taken_us, decision.charges)

    async def _give_back(self, decision: Decision, facts: Facts, taken_us: int) -> None:
        """Undo a charge; one that can't be undone stays, which refuses calls and admits none."""
        with suppress(StateUnavailableError):
            await in_thread(lambda: self._counters.give_back(decision.limits, facts, taken_us, decision.charges))

    async def _store_approval(
        self, attempt: Attempt, atlas: Atlas, action: Action, decision: Decision, granted: Approval | None
    ) -> None:
        """Store what approves a call; where its class is durable, on disk before it runs."""
        mode: Mapping[str, object] = {}
        if atlas.shadow_set is not None:
            mode = {"mode": "shadow"}
            note_shadow(attempt, action, atlas.shadow_set, self._shadow_counters)
        attempt.note("policy.evaluated", {**evaluated(action.action_id, decision, attempt.at), **mode})
        attempt.note(
            "action.approved",
            {
                "action_id": action.action_id,
                "resolution_id": attempt.call.resolution.resolution_id,
                "execution_id": attempt.call.execution_id,
                "approval_id": granted.approval_id if granted is not None else None,
                **mode,
            },
        )
        await self._recorder.store(attempt, durable=self._is_durable(action, granted))

    def _is_durable(self, action: Action, granted: Approval | None) -> bool:
        """Whether a power cut must not lose what approves a call (specs/trace.md, "Durability")."""
        least = self._config.durability
        by_risk = granted is not None or action.risk_tier.rank >= _DURABLE_RANK
        if action.durability is None:
            return by_risk or least == "durable"
        return action.durability == "durable" or least == "durable" or (least == "risk" and by_risk)

    # --- carry out -------------------------------------------------------------------------------------------------

    async def _carry_out(self, attempt: Attempt, binding: Binding) -> ExecutionOutcome:
        started_ns = self._config.clock_ns()
        try:
            result = await self._run(attempt, binding)
        except (ExecutionError, AskError, TraceUnavailableError) as error:
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
            return self._failed(
                attempt,
                started_ns,
                fault,
                measured=measured,
                result=measured.result,
                kept=self._kept(binding, measured),
            )
        kept = self._kept(binding, measured)
        if attempt.charges:
            kept = {**kept, "costs": await self._settle(attempt, result.value)}
        return self._succeeded(attempt, started_ns, measured, kept)

    async def _run(self, attempt: Attempt, binding: Binding) -> Result:
        action = binding.action
        if binding.run is None:
            raise no_executor(action)
        client = attempt.call.client
        invocation = Invocation(
            action_id=action.action_id,
            session_id=attempt.call.session.session_id,
            execution_id=attempt.call.execution_id,
            parameters=attempt.parameters,
            on_progress=attempt.call.on_progress,
            client=RecordedClient(client, action, attempt, self._recorder) if client is not None else None,
        )
        began = False
        limiter = self._limiter()
        with anyio.move_on_after(action.timeout_s):
            await _enter(limiter)
            began = True
            try:
                return await binding.run(invocation)
            finally:
                limiter.release()
        if began:
            raise ExecutionError(
                "timeout",
                f"{action.action_id} did not finish within {action.timeout_s:g} s and was ended",
                hint="its effects may have happened in part; check before calling it again",
            )
        raise ExecutionError(
            "busy", f"{self._config.max_concurrency} actions are running already", hint="call it again later"
        )

    async def _settle(self, attempt: Attempt, value: object) -> list[dict[str, object]]:
        """Put what the result tells in the place of what was reserved; return what the call has cost, by policy."""
        facts = attempt.call.resolution.facts
        costs = {charge.policy_id: charge.amount for charge in attempt.charges}
        found = self.catalogue.find(attempt.call.action_id)
        if found is not None:
            inputs = Inputs(facts, attempt.decided_us, attempt.parameters, value)
            policy_set = found[0].policy_set
            for charge, cost in policy_set.settle(attempt.call.action_id, attempt.charges, inputs):
                if cost is not None and await self._settle_one(charge, facts, attempt.decided_us, cost):
                    costs[charge.policy_id] = cost
        return [
            {"policy_id": charge.policy_id, "unit": charge.budget.unit, "cost": costs[charge.policy_id] / MICRO}
            for charge in attempt.charges
        ]

    async def _settle_one(self, charge: Charge, facts: Facts, taken_us: int, cost: int) -> bool:
        """Whether it could be settled; what can't be leaves the reserve spent."""
        try:
            if self._counters.blocks((), (charge,)):
                await in_thread(lambda: self._counters.settle(charge, facts, taken_us, cost))
            else:
                self._counters.settle(charge, facts, taken_us, cost)
        except StateUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Close the state that calls depend on."""
        self.freezes.close()
        self._counters.close()

    def _succeeded(
        self, attempt: Attempt, started_ns: int, measured: Measured, kept: Mapping[str, object]
    ) -> ExecutionOutcome:
        payload: dict[str, object] = {
            "action_id": attempt.call.action_id,
            "execution_id": attempt.call.execution_id,
            "duration_ms": self._elapsed_ms(started_ns),
            "result_hash": measured.hash,
            "result_bytes": measured.size,
            **kept,
        }
        if measured.cut:
            payload["result_cut"] = True
        attempt.note("action.executed", payload)
        try:
            head = self._recorder.append(attempt)
        except TraceUnavailableError as error:
            return self._unrecorded(attempt, error)
        return self._recorder.outcome(attempt, "success", head, result=measured.result)

    def _failed(
        self,
        attempt: Attempt,
        started_ns: int,
        fault: Fault,
        *,
        measured: Measured | None = None,
        result: Result | None = None,
        kept: Mapping[str, object] = MappingProxyType({}),
    ) -> ExecutionOutcome:
        payload: dict[str, object] = {
            "action_id": attempt.call.action_id,
            "execution_id": attempt.call.execution_id,
            "error_code": fault.code,
            "error_message": fault.message,
            "duration_ms": self._elapsed_ms(started_ns),
            **kept,
        }
        if measured is not None:
            payload["result_hash"] = measured.hash
            payload["result_bytes"] = measured.size
        attempt.note("action.failed", payload)
        try:
            head = self._recorder.append(attempt)
        except TraceUnavailableError as error:
            return self._unrecorded(attempt, error)
        return self._recorder.outcome(attempt, "error", head, fault=fault, result=result)

    def _kept(self, binding: Binding, measured: Measured) -> Mapping[str, object]:
        """What the event of the outcome keeps of a result."""
        return recorded_result(measured, binding.result_redactor, self._config)

    def _unrecorded(self, attempt: Attempt, error: TraceUnavailableError) -> ExecutionOutcome:
        """The action ran, and its outcome could not be stored: what isn't in the trace is not handed on."""
        fault = Fault(
            error.code,
            f"{attempt.call.action_id} was carried out, but its outcome could not be recorded, so it is withheld",
            hint=error.hint,
        )
        return self._recorder.outcome(attempt, "error", None, fault=fault)

    def _limiter(self) -> anyio.CapacityLimiter:
        return limiter_of_loop(_limiters, self._config.max_concurrency)

    def _elapsed_ms(self, started_ns: int) -> float:
        return max(0, self._config.clock_ns() - started_ns) // 1_000 / 1_000


async def _enter(limiter: anyio.CapacityLimiter) -> None:
    """Take a slot; where one is free without the round through the event loop that waiting takes."""
    try:
        limiter.acquire_nowait()
    except anyio.WouldBlock:
        await limiter.acquire()


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


def _fault_of(error: CRAError) -> Fault:
    lacking = error.capability if isinstance(error, AskError) else None
    return Fault(error.code, error.message, error.hint, {"capability": lacking} if lacking is not None else {})
