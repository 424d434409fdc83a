"""Comparing policies: requests that one side lets through more widely than the other, each tried on both engines.

Rule: what is told is true, because both engines said it. What is not told may still differ: this is a search, of many requests that
differ where policies and schemas do, not a proof.
Source: specs/policy.md, "Comparing".
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, Literal

from cra_mcp.analysis.candidates import OTHER, arguments, contexts, histories, instants, literals, texts_for
from cra_mcp.atlas.model import Atlas
from cra_mcp.policy.conditions import compile_globs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import UNDECLARED, PolicySet
from cra_mcp.policy.explain import instant
from cra_mcp.policy.model import EVIDENCE, ActionFacts, Decision, Facts, Policy, RiskTier
from cra_mcp.schema_check import Validator, compile_schema

MAX_REQUESTS: Final = 3_000
"""Of one action, unless the caller says otherwise."""

INVALID: Final = Decision("deny", "parameters_schema", "default", "the arguments are not valid")
_WIDTH: Final = {"deny": 0, "require_approval": 1, "allow": 2}
_ROLES = ("admin", "operator", "approver", "agent", "auditor")


@dataclass(frozen=True, slots=True)
class Request:
    """One call. ``before``: how many approved ones went before it, and how many microseconds; ``by_other``: of another agent."""

    action_id: str
    facts: Facts
    args: Mapping[str, object]
    at_us: int
    before: tuple[int, int] = (0, 0)
    by_other: bool = False

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        facts, (calls, gap_us) = self.facts, self.before
        return {
            "action_id": self.action_id,
            "arguments": dict(self.args),
            "agent_id": facts.agent_id,
            "principal": facts.subject,
            "roles": sorted(facts.roles),
            "risk_tier": facts.task_risk.value,
            "context": dict(facts.context),
            "at": instant(self.at_us),
            "calls_before": calls,
            **({"seconds_before": gap_us / 1_000_000, "by_another_agent": self.by_other} if calls else {}),
        }


@dataclass(frozen=True, slots=True)
class Change:
    """A request that is answered otherwise. ``wider``: it needs less, or is no longer refused."""

    direction: Literal["wider", "narrower"]
    request: Request
    old: Decision
    new: Decision

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""

        def told(decision: Decision) -> dict[str, object]:
            return {"effect": decision.effect, "policy_id": decision.policy_id, "min_evidence": decision.min_evidence}

        return {
            "direction": self.direction,
            "old": told(self.old),
            "new": told(self.new),
            "request": self.request.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class _Side:
    """One action as one of the two sides knows it."""

    policy_set: PolicySet
    action: ActionFacts
    schema: Validator
    policies: tuple[Policy, ...]
    samples: tuple[Mapping[str, object], ...]

    def decide(self, request: Request) -> Decision:
        if not self.schema.is_valid(request.args):
            return INVALID
        counters = Counters()
        calls, gap_us = request.before
        earlier = replace(request.facts, agent_id=OTHER) if request.by_other else request.facts
        for _ in range(calls):
            at_us = request.at_us - gap_us
            found = self._ask(request, earlier, counters, at_us, approved=True)
            if found.effect != "allow" or not counters.take(found.limits, earlier, at_us, found.charges):
                break
        return self._ask(request, request.facts, counters, request.at_us)

    def _ask(
        self, request: Request, facts: Facts, counters: Counters, at_us: int, *, approved: bool = False
    ) -> Decision:
        return self.policy_set.decide(request.action_id, facts, counters, at_us, approved=approved, args=request.args)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found.

    Attributes:
        changes: the wider ones first.
        unsearched: actions for which no arguments were found that either side takes: nothing is known of these.
        requests: how many were tried.
    """

    changes: tuple[Change, ...]
    unsearched: tuple[str, ...]
    requests: int

    @property
    def is_wider(self) -> bool:
        """Whether the new side was found to let more through."""
        return any(change.direction == "wider" for change in self.changes)

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "wider": self.is_wider,
            "changes": [change.to_dict() for change in self.changes],
            "unsearched": list(self.unsearched),
            "requests": self.requests,
        }


def compare(old: Sequence[Atlas], new: Sequence[Atlas], max_requests: int = MAX_REQUESTS) -> Comparison:
    """Find what ``new`` answers otherwise: of each action and each pair of answers and deciding policies one request.

    Args:
        old: atlases, governed by their overlays.
        new: likewise.
        max_requests: to be tried for one action.
    """
    sides = (_sides(old), _sides(new))
    found: list[Change] = []
    unsearched: list[str] = []
    tried = 0
    for action_id in dict.fromkeys([*sides[0], *sides[1]]):
        changes, valid, requests = _compare(action_id, sides[0].get(action_id), sides[1].get(action_id), max_requests)
        found += changes
        tried += requests
        if not valid:
            unsearched.append(action_id)
    return Comparison(tuple(sorted(found, key=lambda change: change.direction != "wider")), tuple(unsearched), tried)


def _sides(atlases: Sequence[Atlas]) -> dict[str, _Side]:
    found: dict[str, _Side] = {}
    for atlas in atlases:
        layers = (atlas.policies, *(layer.policies for layer in atlas.policy_set.overlays))
        for action in atlas.actions:
            about = [each for layer in layers for each in layer if compile_globs(each.actions)(action.action_id)]
            schema = compile_schema(action.parameters_schema)
            samples = [case.args for case in atlas.cases if case.action_id == action.action_id]
            valid = tuple(each for each in samples if schema.is_valid(each))
            found[action.action_id] = _Side(atlas.policy_set, action.facts, schema, tuple(about), valid)
    return found


def _compare(action_id: str, old: _Side | None, new: _Side | None, max_requests: int) -> tuple[list[Change], bool, int]:
    """Changes, whether any arguments were valid, and how many requests were tried."""
    known = [side for side in (old, new) if side is not None]
    seen: dict[object, Change] = {}
    valid, requests = False, 0
    for request in _requests(action_id, known, max_requests):
        requests += 1
        was = UNDECLARED if old is None else old.decide(request)
        now = UNDECLARED if new is None else new.decide(request)
        valid = valid or not {INVALID.policy_id, UNDECLARED.policy_id} >= {was.policy_id, now.policy_id}
        if _width(was) == _width(now):
            continue
        direction: Literal["wider", "narrower"] = "wider" if _width(now) > _width(was) else "narrower"
        key = (direction, was.effect, was.policy_id, now.effect, now.policy_id)
        seen.setdefault(key, Change(direction, request, was, now))
    return list(seen.values()), valid, requests


def _width(decision: Decision) -> tuple[int, int]:
    """How much is possible: approval with weaker evidence is wider, too."""
    grade = -1 if decision.min_evidence is None else EVIDENCE.index(decision.min_evidence)
    return _WIDTH[decision.effect], -grade if decision.effect == "require_approval" else 0


def _requests(action_id: str, sides: Sequence[_Side], most: int) -> Iterator[Request]:
    """The usual request, then those that differ from it in one respect, in two, and some in all: as many as allowed."""
    dimensions = _dimensions(sides)
    for chosen in _combinations([len(each) for each in dimensions], most):
        args, agent, tier, context, at_us, roles, subject, history = (
            each[place] for each, place in zip(dimensions, chosen, strict=True)
        )
        before, by_other = history
        facts = Facts(agent, "session", "default", tier, context, subject, roles)
        yield Request(action_id, facts, args, at_us, before, by_other)


def _dimensions(sides: Sequence[_Side]) -> list[Sequence[Any]]:
    """What is tried of each part of a request, the usual value first; in the order of ``_requests``."""
    policies = [policy for side in sides for policy in side.policies]
    texts = [
        each
        for each in literals([policy.when for policy in policies if policy.when is not None])
        if isinstance(each, str)
    ]
    globs = [glob for policy in policies for glob in policy.conditions.agents]
    subjects = [glob for policy in policies for glob in policy.conditions.principals]
    samples = [sample for side in sides for sample in side.samples]
    return [
        arguments([side.action for side in sides], policies, samples),
        texts_for([*globs, *texts], "agent"),
        list(RiskTier),
        contexts(policies),
        instants(policies),
        [frozenset[str](), *(frozenset({role}) for role in _ROLES), frozenset(_ROLES)],
        texts_for([*subjects, *texts], "local"),
        [(before, other) for before in histories(policies) for other in ((False, True) if before[0] else (False,))],
    ]


def _combinations(sizes: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    usual = [0 for _ in sizes]
    tried: set[tuple[int, ...]] = set()

    def fresh(*changes: tuple[int, int]) -> Iterator[tuple[int, ...]]:
        chosen = usual.copy()
        for dimension, place in changes:
            chosen[dimension] = place
        if tuple(chosen) not in tried and len(tried) < most:
            tried.add(tuple(chosen))
            yield tuple(chosen)

    yield from fresh()
    for dimension, size in enumerate(sizes):
        for place in range(1, size):
            yield from fresh((dimension, place))
    chance = random.Random(1)  # noqa: S311 - the same requests every time
    pairs = [(one, other) for one in range(len(sizes)) for other in range(one)]
    for one, other in pairs:
        places = list(product(range(1, sizes[one]), range(1, sizes[other])))
        for here, there in chance.sample(places, min(len(places), most // len(pairs))):
            yield from fresh((one, here), (other, there))
    for _ in range(most):
        yield from fresh(*((dimension, chance.randrange(size)) for dimension, size in enumerate(sizes)))
