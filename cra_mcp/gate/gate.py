"""The gate: every call of an action goes through here, and only from here to a back end.

Rule: what approves a call is stored before the call is carried out; whatever becomes of a call leaves an event; if the store can't
take an event, nothing is carried out. Source: specs/carp.md, "Execution"; specs/trace.md, "Record before acting".
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Self, cast

import anyio

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import Approval
from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import CredentialError, TraceUnavailableError
from cra_mcp.execution.backend import Retaining
from cra_mcp.gate.approving import Approving
from cra_mcp.gate.arguments import without_unmeant
from cra_mcp.gate.attempt import Attempt, Recorder, beside
from cra_mcp.gate.binding import Binding, Bindings
from cra_mcp.gate.call import Call, ExecutionOutcome, Fault, Question
from cra_mcp.gate.charging import Charging
from cra_mcp.gate.executing import Executing, fault_of
from cra_mcp.gate.intake import check_parameters, receive
from cra_mcp.gate.refusing import UNDECLARED, evaluated, is_denied, refuse, refuse_parameters
from cra_mcp.gate.shadow import note_shadow
from cra_mcp.gate.standing import check_again, refuse_lapsed
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet
from cra_mcp.policy.model import Decision, Facts
from cra_mcp.resolution.model import Permission
from cra_mcp.settings import RuntimeConfig
from cra_mcp.state.database import Database, StateUnavailableError
from cra_mcp.state.freezes import SCHEMA, Freezes
from cra_mcp.trace.store import TraceStore

if TYPE_CHECKING:
    from types import TracebackType

    from cra_mcp.gate.explaining import CallExplanation

_DURABLE_RANK = 2  # high and critical


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
        self._charging = Charging(counters)
        self._shadow_counters = Counters()  # of this process: what was never enforced is not kept
        self._config = config
        self._executing = Executing(config, self._recorder, self._charging, self._policy_set_of)
        self._open = AsyncExitStack()

    def use(self, catalogue: Catalogue) -> None:
        """Make ``catalogue`` the one in force; what was known of, or runs for, atlases no longer in it is dropped."""
        for atlas in self.catalogue.atlases:
            if atlas not in catalogue.atlases:
                self._bindings.forget(atlas)
        self.catalogue = catalogue
        for backend in self._bindings.backends:
            if isinstance(backend, Retaining):
                backend.retain(catalogue.atlases)

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

    def prepare(self, call: Call) -> Call:
        """The call with the arguments that count, before anything is made of them."""
        found = self._find(call)
        return call if found is None else without_unmeant(call, found[1].parameters_schema)

    async def execute(self, call: Call) -> ExecutionOutcome:
        """Decide a call and, if it is approved, carry it out.

        Never raises for anything the caller sent, or for what the action did: the outcome says it. The caller has entered
        the session.

        Raises:
            The backend's cancellation, after its outcome is stored.
        """
        found = self._find(call)
        redactor = self._bindings.of(*found).redactor if found is not None else None
        known = found is not None
        attempt, fault = await beside(call.parameters, lambda: receive(call, redactor, self._config, found=known))
        try:
            binding = await self._authorise(attempt, fault)
        except TraceUnavailableError as error:
            return self._recorder.outcome(attempt, "error", None, fault=fault_of(error))
        except StateUnavailableError as error:
            head = self._recorder.fail_undecided(attempt, fault_of(error))
            return self._recorder.outcome(attempt, "error", head, fault=fault_of(error))
        except anyio.get_cancelled_exc_class():
            if not attempt.ended:
                self._recorder.fail_undecided(attempt, Fault("cancelled", "the caller cancelled the call"))
            raise
        if isinstance(binding, ExecutionOutcome):
            return binding
        return await self._executing.carry_out(attempt, binding)

    def explain(self, question: Question) -> "CallExplanation":
        """Explain what would become of a call. Nothing is charged, recorded or asked for."""
        from cra_mcp.gate.explaining import explain_call  # noqa: PLC0415 - on the way of no call

        return explain_call(question, self.catalogue, self._counters, self._frozen, self._config)

    def _find(self, call: Call) -> tuple[Atlas, Action] | None:
        """The action, if it is loaded now, part of the resolution the call is made under, and not hidden in it."""
        if not call.offered or call.action_id not in call.resolution.outcome.members or self._hidden(call) is not None:
            return None
        return self.catalogue.find(call.action_id)

    def _hidden(self, call: Call) -> Permission | None:
        """What the resolution says of an action it hides, while the atlas is the same: it ends before time says otherwise.

        A call of it takes the steps of a call of an unknown action: nothing is bound, compiled or evaluated for it.
        """
        hidden = call.resolution.outcome.hidden.get(call.action_id)
        return hidden if hidden is not None and self.catalogue.holds(hidden.atlas) else None

    def _policy_set_of(self, action_id: str) -> PolicySet | None:
        found = self.catalogue.find(action_id)
        return found[0].policy_set if found is not None else None

    # --- decide ----------------------------------------------------------------------------------------------------

    async def _authorise(self, attempt: Attempt, fault: Fault | None) -> Binding | ExecutionOutcome:
        found = self._find(attempt.call)
        if found is None:
            return refuse(self._recorder, attempt, self._unseen(attempt))
        atlas, action = found
        facts = attempt.call.resolution.facts
        # What is denied whatever its arguments is refused before anything is said of them.
        reads_args = atlas.policy_set.reads_args(action.action_id, facts)
        attempt.decided_us = self._config.clock_ns() // 1_000
        attempt.timed = atlas.policy_set.timed
        decision = atlas.policy_set.before_arguments(action.action_id, facts, self._counters, attempt.decided_us)
        if not is_denied(decision):  # what looks unknown goes on looking so
            decision = self._frozen(atlas, facts) or decision
        if is_denied(decision):
            return refuse(self._recorder, attempt, decision)
        binding = self._bindings.of(atlas, action)
        fault = fault or await beside(attempt.parameters, lambda: check_parameters(binding, attempt.parameters))
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

    def _unseen(self, attempt: Attempt) -> Decision:
        """The decision on a call of what is hidden or unknown."""
        hidden = self._hidden(attempt.call) if attempt.call.offered else None
        if hidden is None:
            return UNDECLARED
        attempt.decided_us = self._config.clock_ns() // 1_000
        attempt.timed = hidden.atlas.policy_set.timed
        return hidden.decision

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
        if granted is not None:
            try:
                await check_again(attempt.call)
            except CredentialError as error:
                self._approving.note_unused(attempt, granted)
                return refuse_lapsed(self._recorder, attempt, fault_of(error))
            decision = self._frozen(atlas, facts) or self._decide(atlas, action, attempt, approved=True)
        # Charging fails where another call took the last of a limit meanwhile: then policy is asked again.
        # Charged for the instant that was decided on, which is the one the trace states.
        while decision.effect == "allow" and not await self._charging.take(decision, facts, attempt.decided_us):
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
            await self._charging.give_back(decision, facts, attempt.decided_us)
            raise
        if refusal is not None:
            await self._charging.give_back(decision, facts, attempt.decided_us)
            return refusal
        attempt.charges = decision.charges
        return binding

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

    def close(self) -> None:
        """Close the state that calls depend on."""
        self.freezes.close()
        self._counters.close()
