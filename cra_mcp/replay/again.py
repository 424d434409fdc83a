"""Replay: every resolution and every decision of a trace, made again from the atlases it names, and compared.

Rule: deterministic on any machine: the instants are the trace's, and nothing else is read. What a trace doesn't hold can't be
decided again; it is counted, not guessed. Source: specs/trace.md, "Replay".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cra_mcp.errors import RequestError
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import UNDECLARED
from cra_mcp.policy.model import Charge, Decision, Facts, Limit
from cra_mcp.replay.library import Case, Library, Timeline
from cra_mcp.replay.recorded import Asked, Evaluation, RecordedCall, RecordedSession
from cra_mcp.resolution.model import Answer

LIMITS = frozenset({"rate_limit", "budget"})
"""What refuses a call for what was called before."""

_COMPARED = ("decision_type", "allowed", "denied", "requires_approval", "context_blocks", "digest")


@dataclass(frozen=True, slots=True)
class Divergence:
    """One place where a trace and its replay differ.

    Attributes:
        sequence: of the event that says otherwise.
        action_id: None for a resolution.
        recorded: what differs, as the trace has it.
        recomputed: the same, as the atlases have it.
    """

    sequence: int
    action_id: str | None
    recorded: Mapping[str, object]
    recomputed: Mapping[str, object]

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "sequence": self.sequence,
            "action_id": self.action_id,
            "recorded": dict(self.recorded),
            "recomputed": dict(self.recomputed),
        }


@dataclass(slots=True)
class Replayed:
    """What the replay of one trace found.

    Attributes:
        resolutions: how many were made again.
        decisions: how many were.
        assumed: of those, decisions that rest on what is outside of the trace: limits and budgets that other sessions share,
            and the kill switch.
        undetermined: decisions that can't be made again: what they read is hidden, or only its hash was kept.
        divergences: in the order of the chain.
    """

    session_id: str
    resolutions: int = 0
    decisions: int = 0
    assumed: int = 0
    undetermined: int = 0
    divergences: list[Divergence] = field(default_factory=list[Divergence])

    @property
    def ok(self) -> bool:
        """Nothing differs."""
        return not self.divergences

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "session_id": self.session_id,
            "ok": self.ok,
            "resolutions": self.resolutions,
            "decisions": self.decisions,
            "assumed": self.assumed,
            "undetermined": self.undetermined,
            "divergences": [divergence.to_dict() for divergence in self.divergences],
        }


class RecordedCounters(Counters):
    """Counters of one session. What other sessions have charged is taken from the decision that is made again."""

    __slots__ = ("assumed", "spent_elsewhere")

    def __init__(self) -> None:
        super().__init__()
        self.assumed = False
        self.spent_elsewhere: frozenset[str] = frozenset()

    def retry_after_us(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """As ``Counters.retry_after_us``; of a wider limit what the trace says."""
        if limit.scope == "session":
            return super().retry_after_us(limit, facts, now_us)
        self.assumed = True
        return 1 if limit.limit_id.rpartition("/")[2] in self.spent_elsewhere else 0

    def room_after_us(self, charge: Charge, facts: Facts, now_us: int) -> int | None:
        """As ``Counters.room_after_us``; of a wider budget what the trace says."""
        if charge.budget.scope == "session":
            return super().room_after_us(charge, facts, now_us)
        self.assumed = True
        return 1 if charge.policy_id in self.spent_elsewhere else 0

    def take(self, limits: Sequence[Limit], facts: Facts, now_us: int, charges: Sequence[Charge] = ()) -> bool:
        """As ``Counters.take``, for the limits and budgets of the session alone."""
        return super().take(
            [limit for limit in limits if limit.scope == "session"],
            facts,
            now_us,
            [charge for charge in charges if charge.budget.scope == "session"],
        )


def replay(session: RecordedSession, library: Library) -> Replayed:
    """Decide a trace again.

    Raises:
        TraceError: ``atlas_missing`` or ``not_replayable``.
    """
    timeline = library.timeline(session)
    found = Replayed(session.session_id)
    for asked in session.asked:
        _resolve_again(asked, timeline, found)
    pending: list[tuple[int, int, RecordedCall, Evaluation | None]] = []
    for call in session.calls:
        pending.extend((each.at_us, each.sequence, call, each) for each in call.evaluations)
        if not call.evaluations:
            pending.append((call.requested_us, call.sequence, call, None))
    counters = RecordedCounters()
    # By instant, since limits are charged in that order; concurrent calls may be stored in another.
    for _, _, call, evaluation in sorted(pending, key=lambda entry: entry[:2]):
        again = _Again(library, timeline.case(call), call, counters, found)
        if evaluation is None:
            again.unevaluated()
        else:
            again.evaluated(evaluation)
    found.divergences.sort(key=lambda divergence: divergence.sequence)
    return found


def _resolve_again(asked: Asked, timeline: Timeline, found: Replayed) -> None:
    found.resolutions += 1
    recorded: dict[str, object]
    try:
        answer = timeline.resolver(asked.sequence).answer(asked.query, asked.facts, asked.at_us)
    except RequestError as error:
        recomputed: dict[str, object] = {"error_code": error.code}
    else:
        recomputed = _recorded_form(answer) if asked.answer is not None else {"error_code": None}
    if asked.answer is None:
        if asked.error_code not in {"unknown_atlas", "unknown_capability"}:
            return  # refused for its form, before any atlas was asked
        recorded = {"error_code": asked.error_code}
    else:
        recorded = {name: asked.answer[name] for name in _COMPARED if name in asked.answer}
    differing = [name for name in recorded if recorded[name] != recomputed.get(name)]
    if differing and asked.masked:
        found.undetermined += 1
    elif differing:
        found.divergences.append(
            Divergence(
                asked.sequence,
                None,
                {name: recorded[name] for name in differing},
                {name: recomputed.get(name) for name in (*differing, "error_code") if name in recomputed},
            )
        )


def _recorded_form(answer: Answer) -> dict[str, object]:
    outcome = answer.outcome
    return {
        **outcome.recorded,
        "decision_type": outcome.decision_type,
        "context_blocks": list(answer.block_ids),
        "digest": outcome.digest,
    }


class _Again:
    """One decision of one call."""

    def __init__(
        self, library: Library, case: Case, call: RecordedCall, counters: RecordedCounters, found: Replayed
    ) -> None:
        self._library = library
        self._case = case
        self._call = call
        self._counters = counters
        self._found = found

    def evaluated(self, evaluation: Evaluation) -> None:
        """Make a recorded decision again, and charge what it charged."""
        if evaluation.basis == "freeze":  # an operator's hand, which no policy explains
            self._found.decisions += 1
            self._found.assumed += 1
            return
        self._counters.spent_elsewhere = frozenset(evaluation.determining)
        decision = self._decide(evaluation.at_us, consented=evaluation.consented)
        if decision is None:
            return
        recorded = _form(evaluation.result, evaluation.policy_id, evaluation.basis, evaluation.determining)
        recomputed = _form(decision.effect, decision.policy_id, decision.basis, decision.determining)
        if recorded != recomputed:
            self._differs(evaluation.sequence, recorded, recomputed)
        elif decision.effect == "allow" and self._call.approved:
            self._counters.take(decision.limits, self._case.asked.facts, evaluation.at_us, decision.charges)

    def unevaluated(self) -> None:
        """A call that left no decision: its parameters were refused, it was broken off, or waits for consent asked for before."""
        call = self._call
        if call.invalid:
            self._check_parameters()
            return
        if call.broken_off:
            self._found.decisions += 1
            self._found.assumed += 1
            return
        self._counters.spent_elsewhere = frozenset()
        decision = self._decide(call.requested_us, consented=False)
        if decision is not None and decision.effect != "require_approval":
            self._differs(call.sequence, {"result": "require_approval"}, {"result": decision.effect})

    def _decide(self, at_us: int, *, consented: bool) -> Decision | None:
        """The decision; None where it reads arguments that the trace doesn't hold."""
        self._found.decisions += 1
        self._counters.assumed = False
        decision = decide(self._case, self._call, self._counters, at_us, consented=consented)
        if decision is None:
            self._found.undetermined += 1
        elif self._counters.assumed:
            self._found.assumed += 1
        return decision

    def _check_parameters(self) -> None:
        self._found.decisions += 1
        call = self._call
        if call.formless:
            return
        if self._case.found is None or call.parameters is None:
            self._found.undetermined += 1
        elif self._library.parameters(*self._case.found).is_valid(call.parameters):
            self._differs(call.sequence, {"violation_type": "invalid_parameters"}, {"violation_type": None})

    def _differs(self, sequence: int, recorded: Mapping[str, object], recomputed: Mapping[str, object]) -> None:
        if self._case.asked.masked:  # what was hidden may have decided
            self._found.undetermined += 1
            return
        self._found.divergences.append(Divergence(sequence, self._call.action_id, recorded, recomputed))


def decide(case: Case, call: RecordedCall, counters: Counters, at_us: int, *, consented: bool) -> Decision | None:
    """What policy says of a recorded call; None where it reads arguments that the trace doesn't hold."""
    if case.found is None:
        return UNDECLARED
    atlas, action = case.found
    facts, policies = case.asked.facts, atlas.policy_set
    reads_args = policies.reads_args(action.action_id, facts)
    if not consented:  # as the gate does
        early = policies.before_arguments(action.action_id, facts, counters, at_us)
        if early.effect == "deny" or not reads_args:
            return early
    if not reads_args:
        return policies.decide(action.action_id, facts, counters, at_us, approved=True)
    if call.parameters is None:
        return None
    return policies.decide(action.action_id, facts, counters, at_us, approved=consented, args=call.parameters)


def _form(result: str, policy_id: str, basis: str, determining: tuple[str, ...]) -> dict[str, object]:
    return {"result": result, "policy_id": policy_id, "basis": basis, "determining": list(determining)}
