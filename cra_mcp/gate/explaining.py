"""Explaining what the gate would answer: as a call would be decided, without making it.

Rule: nothing is charged, recorded or asked for. The steps are those of a call, in the same order: what is refused whatever its
arguments is refused before they are looked at, then comes the kill switch, then their form, then policy with them.
Source: specs/policy.md, "Explaining".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.canonical import lossy
from cra_mcp.gate.arguments import without_nulls
from cra_mcp.gate.call import Question
from cra_mcp.gate.intake import check_form
from cra_mcp.gate.refusing import UNDECLARED, evaluated, is_denied
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.explain import Shown, explain, instant
from cra_mcp.policy.explanation import Explanation, decision_form
from cra_mcp.policy.model import Decision, Facts
from cra_mcp.schema_check import SchemaFault, compile_schema
from cra_mcp.schema_check import explain as schema_faults
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.detect.detectors import Detectors
from cra_mcp.trace.detect.own import load_patterns
from cra_mcp.trace.redact import redactor_for


@dataclass(frozen=True, slots=True)
class CallExplanation:
    """What the gate would answer to a call, and how that comes about.

    Attributes:
        atlas_id: whose action it is; None for one that no loaded atlas declares.
        policy: what policy says, every policy told; of the last time the gate would have asked.
        decision: what the gate would go by: that of policy, or that everything of this agent or atlas is frozen.
        faults: what is wrong with the arguments, values kept out; the call would be refused for them.
        event: payload of the ``policy.evaluated`` that would be recorded; None where the call ends before that.
    """

    atlas_id: str | None
    policy: Explanation
    decision: Decision
    faults: tuple[SchemaFault, ...]
    event: Mapping[str, object] | None

    @property
    def at(self) -> str:
        """The instant, RFC 3339."""
        return instant(self.policy.at_us)

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "action_id": self.policy.action_id,
            "atlas_id": self.atlas_id,
            "at": self.at,
            "approved": self.policy.approved,
            "arguments": self.policy.arguments,
            "decision": decision_form(self.decision),
            "invalid_arguments": [
                {"pointer": fault.pointer, "keyword": fault.keyword, "message": fault.message} for fault in self.faults
            ],
            **{key: value for key, value in self.policy.to_dict().items() if key in {"policies", "layers"}},
            "event": None if self.event is None else {"event_type": "policy.evaluated", "payload": dict(self.event)},
        }


Frozen = Callable[[Atlas, Facts], Decision | None]


def explain_call(
    question: Question, catalogue: Catalogue, counters: Counters, frozen: Frozen, config: RuntimeConfig
) -> CallExplanation:
    """Explain what would become of a call.

    Args:
        question: the call.
        catalogue: the loaded atlases.
        counters: read, never charged.
        frozen: the refusal of a call that is frozen; None if it isn't.
        config: says which detectors hide secrets in arguments and context, besides what the action's schema marks.

    Raises:
        SettingsError: patterns of the configuration can't be used.
    """
    found = catalogue.find(question.action_id)
    if found is None:
        nothing = Explanation(question.action_id, question.at_us, question.approved, "not_needed", UNDECLARED, (), ())
        return CallExplanation(None, nothing, UNDECLARED, (), evaluated(question.action_id, UNDECLARED, None))
    atlas, action = found
    if question.arguments is not None:
        question = replace(question, arguments=without_nulls(question.arguments, action.parameters_schema)[0])
    policies = atlas.policy_set
    at = instant(question.at_us) if policies.timed else None
    reads_args = policies.reads_args(action.action_id, question.facts)
    shown = _shown(action, question, config, catalogue.detectors(question.action_id))

    def ask(arguments: Mapping[str, object] | None, decision: Decision) -> Explanation:
        return explain(
            policies,
            action.facts,
            question.facts,
            counters,
            question.at_us,
            args=arguments,
            approved=question.approved,
            shown=shown,
            decision=decision,
        )

    def answer(policy: Explanation, decision: Decision, *faults: SchemaFault) -> CallExplanation:
        undecided = reads_args and question.arguments is None and not is_denied(decision)
        event = None if faults or undecided else evaluated(action.action_id, decision, at)
        return CallExplanation(atlas.atlas_id, policy, decision, faults, event)

    early = policies.before_arguments(action.action_id, question.facts, counters, question.at_us)
    first = ask(None if reads_args else question.arguments, early)
    decision = early if is_denied(early) else frozen(atlas, question.facts) or early
    if is_denied(decision):
        return answer(first, decision)
    faults = [] if question.arguments is None else _faults(action, question.arguments, config)
    if faults or (reads_args and question.arguments is None):
        return answer(first, decision, *faults)
    decision = policies.decide(
        action.action_id,
        question.facts,
        counters,
        question.at_us,
        approved=question.approved,
        args=question.arguments or {},
    )
    return answer(ask(question.arguments, decision), decision)


def _faults(action: Action, arguments: Mapping[str, object], config: RuntimeConfig) -> list[SchemaFault]:
    form = check_form(arguments, config.max_parameters_bytes)
    if form is not None:
        return [SchemaFault("", "form", form.message.removeprefix("invalid parameters: "))]
    if compile_schema(action.parameters_schema).is_valid(arguments):
        return []
    return schema_faults(action.parameters_schema, arguments, masked=True)


def _shown(action: Action, question: Question, config: RuntimeConfig, added: frozenset[str]) -> Shown:
    """As a trace would show them, but for tokens."""
    own = load_patterns(config.redact_patterns) if config.redact_patterns is not None else {}
    detectors = Detectors(config.detectors, own=own).adding(added)
    arguments: object = dict(question.arguments or {})
    redactor = redactor_for(action.parameters_schema)
    if redactor is not None:
        arguments = redactor.apply(arguments)
    return Shown(detectors.value(lossy(arguments))[0], detectors.value(lossy(dict(question.facts.context)))[0])
