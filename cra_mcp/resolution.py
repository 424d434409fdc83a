"""CARP resolve: what this requester may know and do for this goal.

Rule: deciding is pure; what depends only on the outcome of the policies is built once per outcome and shared. An undisclosed
action is left out as if it did not exist; the payload for the trace knows it.
Source: specs/carp.md, "Resolution".
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import orjson

from cra_mcp.atlas.model import Action, Atlas, ContextBlock
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.canonical import canonical_bytes, sha256_hex
from cra_mcp.errors import RequestError
from cra_mcp.policy.conditions import TRUE, Test, compile_conditions
from cra_mcp.policy.engine import PolicySet
from cra_mcp.policy.model import MICRO, Charge, Conditions, Decision, Facts, Limit, Waiting
from cra_mcp.policy.windows import Schedule

DecisionType = Literal["allow", "partial", "requires_approval", "deny"]

_MEMO_SIZE = 512
_WORD = re.compile(r"\w+")
_HINT_WEIGHT = 2

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Query(NamedTuple):
    """What is asked for; the same query with the same outcome has the same resolution."""

    goal: str
    hints: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    atlas_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permission:
    """An action of a resolution and what policy says of it before its arguments are known."""

    atlas: Atlas
    action: Action
    decision: Decision

    def to_dict(self) -> dict[str, object]:
        """The CARP ``allowed_actions`` entry."""
        action = self.action
        entry: dict[str, object] = {
            "action_id": action.action_id,
            "name": action.name,
            "description": action.description,
            "parameters_schema": action.parameters_schema,
            "risk_tier": action.risk_tier.value,
            "requires_confirmation": self.decision.effect == "require_approval",
            "idempotent": action.idempotent,
        }
        if action.returns_schema is not None:
            entry["returns_schema"] = action.returns_schema
        if self.decision.limits:
            tightest = min(self.decision.limits, key=lambda limit: limit.max_calls / limit.window_us)
            entry["rate_limit"] = {
                "max_calls": tightest.max_calls,
                "window_seconds": tightest.window_us // 1_000_000,
            }
        return entry


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of a resolution that depends on policy alone; shared by every resolution with the same outcome.

    Attributes:
        allowed: what may be called, approval or not, in atlas load order then manifest order.
        denied: refused actions that may be told of.
        hidden: refused actions that must look unknown.
        digest: lower-case hex SHA-256 of the canonical form of all three with their policies.
    """

    decision_type: DecisionType
    reason: str
    allowed: tuple[Permission, ...]
    denied: tuple[Permission, ...]
    hidden: tuple[Permission, ...]
    constraints: tuple[Mapping[str, object], ...]
    members: frozenset[str]
    digest: str
    recorded: Mapping[str, object]


class Resolution(NamedTuple):
    """What a requester may know and do until ``expires_at_us`` (microseconds since the epoch).

    ``answer`` is shared by every resolution of the same query with the same outcome.
    """

    resolution_id: str
    request_id: str
    timestamp: str
    trace_id: str
    ttl_seconds: int
    expires_at_us: int
    query: Query
    facts: Facts
    answer: "Answer"

    @property
    def outcome(self) -> Outcome:
        """What policy makes of every action considered."""
        return self.answer.outcome

    @property
    def context_blocks(self) -> tuple[ContextBlock, ...]:
        """The documents for the goal, most important first."""
        return self.answer.context_blocks

    @property
    def decision_type(self) -> DecisionType:
        """``allow``, ``partial``, ``requires_approval`` or ``deny``."""
        return self.outcome.decision_type

    @property
    def allowed_actions(self) -> tuple[Permission, ...]:
        """What may be called, approval or not."""
        return self.outcome.allowed

    @property
    def denied_actions(self) -> tuple[Permission, ...]:
        """What may not be called and may be told of."""
        return self.outcome.denied

    def to_dict(self) -> dict[str, object]:
        """The CARP resolution message (specs/schemas/carp-resolution.schema.json)."""
        decision: dict[str, object] = {"type": self.outcome.decision_type}
        if self.outcome.reason:
            decision["reason"] = self.outcome.reason
        return {
            "carp_version": "1.0",
            "resolution_id": self.resolution_id,
            "request_id": self.request_id,
            "timestamp": self.timestamp,
            "decision": decision,
            "context_blocks": [block_message(block) for block in self.context_blocks],
            "allowed_actions": [permission.to_dict() for permission in self.outcome.allowed],
            "denied_actions": [
                {
                    "action_id": permission.action.action_id,
                    "reason": permission.decision.reason,
                    "policy_id": permission.decision.policy_id,
                }
                for permission in self.outcome.denied
            ],
            "constraints": list(self.outcome.constraints),
            "ttl_seconds": self.ttl_seconds,
            "trace_id": self.trace_id,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Outcome and context of one query; compared by identity, since the resolver shares it.

    ``timed``: they depend on the instant.
    """

    outcome: Outcome
    context_blocks: tuple[ContextBlock, ...]
    block_ids: tuple[str, ...]
    timed: bool


def block_message(block: ContextBlock) -> dict[str, object]:
    """The CARP ``context_blocks`` entry of a block."""
    return {
        "block_id": block.block_id,
        "source": block.source,
        "content_type": block.content_type,
        "content": block.content,
        "priority": block.priority,
        "token_estimate": block.token_estimate,
        "metadata": {"name": block.name, "pack_id": block.pack_id},
    }


class Resolver:
    """Answers queries against one catalogue. Holds nothing but memos, so it is replaced when the catalogue is."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._scopes: OrderedDict[Hashable, _Scope] = OrderedDict()
        self._outcomes: OrderedDict[Hashable, Outcome] = OrderedDict()
        self._queries: OrderedDict[Query, _Known] = OrderedDict()
        # Blocks without conditions need no evaluation, and most atlases have no others.
        self._conditions = {
            (atlas.atlas_id, block.block_id): _condition_of(atlas, block)
            for atlas in catalogue.atlases
            for block in atlas.context_blocks
            if block.conditions != Conditions()
        }
        self._schedules = tuple(
            (atlas.atlas_id, Schedule(window))
            for atlas in catalogue.atlases
            for window in {block.conditions.time_window for block in atlas.context_blocks}
            if window is not None
        )

    def answer(self, query: Query, facts: Facts, now_us: int) -> Answer:
        """What policy makes of every action the query considers, and the context for it.

        Raises:
            RequestError: ``unknown_atlas`` or ``unknown_capability``.
        """
        known = self._queries.get(query)
        if known is None:
            known = _remember(self._queries, query, lambda: _Known(self._scope(query)))
        policies = tuple([policy_set.outcome(facts, now_us) for policy_set in known.scope.policy_sets])
        left_out = self._left_out(facts, now_us) if self._conditions else _NOTHING
        key = (policies, left_out)
        found = known.answers.get(key)
        if found is None:
            found = _remember(known.answers, key, lambda: self._build(query, known.scope, facts, now_us, key))
        return found

    def ttl_seconds(self, query: Query, now_us: int, ttl_seconds: int) -> int:
        """``ttl_seconds``, cut at the next instant at which a time window of a considered atlas opens or closes.

        Raises:
            RequestError: ``unknown_atlas`` or ``unknown_capability``.
        """
        boundary = self.next_boundary(query, now_us)
        return ttl_seconds if boundary is None else max(0, min(ttl_seconds, (boundary - now_us) // 1_000_000))

    def next_boundary(self, query: Query, now_us: int) -> int | None:
        """The first instant after ``now_us`` at which a time window of a considered atlas opens or closes; None if none does.

        Raises:
            RequestError: ``unknown_atlas`` or ``unknown_capability``.
        """
        scope = self._scope(query)
        changes = [policy_set.next_boundary(now_us) for policy_set in scope.policy_sets]
        if self._schedules:
            considered = {atlas.atlas_id for atlas in scope.atlases}
            changes += [each.next_change(now_us) for atlas_id, each in self._schedules if atlas_id in considered]
        return min((change for change in changes if change is not None), default=None)

    def _scope(self, query: Query) -> "_Scope":
        key = (query.atlas_ids, query.capabilities)
        found = self._scopes.get(key)
        return found or _remember(self._scopes, key, lambda: _build_scope(self.catalogue, query))

    def _left_out(self, facts: Facts, now_us: int) -> frozenset[tuple[str, str]]:
        """Blocks whose condition doesn't hold or can't be evaluated: what is not known to be needed is not shown."""
        return frozenset(key for key, test in self._conditions.items() if test(facts, now_us) != TRUE)

    def _build(self, query: Query, scope: "_Scope", facts: Facts, now_us: int, key: "_AnswerKey") -> Answer:
        outcome = _remember(
            self._outcomes,
            (query.atlas_ids, query.capabilities, key[0]),
            lambda: _build_outcome(scope, facts, now_us),
        )
        blocks = _rank(scope, query, key[1])
        timed = bool(self._conditions) or any(policy_set.timed for policy_set in scope.policy_sets)
        return Answer(outcome, blocks, tuple(block.block_id for block in blocks), timed)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a query considers: ``members`` and ``packs`` are None where nothing restricts them."""

    atlases: tuple[Atlas, ...]
    members: frozenset[str] | None
    packs: frozenset[tuple[str, str]] | None
    policy_sets: tuple[PolicySet, ...]


_AnswerKey = tuple[tuple[object, ...], frozenset[tuple[str, str]]]
_NOTHING: frozenset[tuple[str, str]] = frozenset()


class _Known:
    """A query asked before: what it considers, and its answers by outcome."""

    __slots__ = ("answers", "scope")

    def __init__(self, scope: _Scope) -> None:
        self.scope = scope
        self.answers: OrderedDict[Hashable, Answer] = OrderedDict()


def _build_scope(catalogue: Catalogue, query: Query) -> _Scope:
    known = {atlas.atlas_id for atlas in catalogue.atlases}
    unknown = [atlas_id for atlas_id in query.atlas_ids if atlas_id not in known]
    if unknown:
        raise RequestError("unknown_atlas", f"no loaded atlas is called {_quoted(unknown)}", hint="see list_atlases()")
    wanted = frozenset(query.atlas_ids) or known
    atlases = tuple(atlas for atlas in catalogue.atlases if atlas.atlas_id in wanted)
    policy_sets = tuple(atlas.policy_set for atlas in atlases)
    if not query.capabilities:
        return _Scope(atlases, None, None, policy_sets)
    offered = {capability.capability_id for atlas in atlases for capability in atlas.capabilities}
    unknown = [capability for capability in query.capabilities if capability not in offered]
    if unknown:
        raise RequestError("unknown_capability", f"no considered atlas has the capability {_quoted(unknown)}")
    members: set[str] = set()
    packs: set[tuple[str, str]] = set()
    for atlas in atlases:
        for capability in atlas.capabilities:
            if capability.capability_id in query.capabilities:
                members.update(capability.actions)
                packs.update((atlas.atlas_id, pack) for pack in capability.context_packs)
    return _Scope(atlases, frozenset(members), frozenset(packs), policy_sets)


def _build_outcome(scope: _Scope, facts: Facts, now_us: int) -> Outcome:
    permissions = [
        Permission(atlas, action, decision)
        for atlas in scope.atlases
        for action, decision in zip(atlas.actions, atlas.policy_set.preview(facts, now_us), strict=True)
        if scope.members is None or action.action_id in scope.members
    ]
    allowed = tuple(item for item in permissions if item.decision.effect != "deny")
    denied = tuple(item for item in permissions if item.decision.effect == "deny" and item.decision.disclose)
    hidden = tuple(item for item in permissions if item.decision.effect == "deny" and not item.decision.disclose)
    approvals = [item for item in allowed if item.decision.effect == "require_approval"]
    decision_type, reason = _summarise(len(allowed), len(approvals), len(denied))
    constraints = (*_constraints(allowed), *_waiting(allowed))
    recorded: dict[str, object] = {
        "allowed": [item.action.action_id for item in allowed],
        "denied": [
            {"action_id": item.action.action_id, "policy_id": item.decision.policy_id}
            for item in permissions
            if item.decision.effect == "deny"
        ],
        "requires_approval": [
            {"action_id": item.action.action_id, "policy_id": item.decision.policy_id} for item in approvals
        ],
    }
    return Outcome(
        decision_type=decision_type,
        reason=reason,
        allowed=allowed,
        denied=denied,
        hidden=hidden,
        constraints=constraints,
        members=frozenset(item.action.action_id for item in permissions),
        digest=sha256_hex(canonical_bytes({**recorded, "constraints": list(constraints)})),
        recorded=recorded,
    )


def _summarise(usable: int, approvals: int, denied: int) -> tuple[DecisionType, str]:
    if usable == 0:
        return "deny", "no action is usable for this request"
    if approvals == usable:
        return "requires_approval", "every usable action needs approval"
    if approvals or denied:
        return "partial", f"{usable} usable, {approvals} of them with approval; {denied} denied"
    return "allow", ""


def _constraints(allowed: Iterable[Permission]) -> tuple[Mapping[str, object], ...]:
    """Rules that wait for the call: limits and approvals, in order of first appearance."""
    limits: dict[str, tuple[Limit, list[str]]] = {}
    budgets: dict[str, tuple[Charge, list[str]]] = {}
    approvals: dict[str, tuple[Decision, list[str]]] = {}
    for item in allowed:
        for charge in item.decision.charges:
            budgets.setdefault(charge.budget.budget_id, (charge, []))[1].append(item.action.action_id)
        for limit in item.decision.limits:
            limits.setdefault(limit.limit_id, (limit, []))[1].append(item.action.action_id)
        if item.decision.effect == "require_approval":
            approvals.setdefault(item.decision.policy_id, (item.decision, []))[1].append(item.action.action_id)
    found: list[Mapping[str, object]] = [
        {
            "constraint_id": limit_id,
            "type": "rate_limit",
            "parameters": {
                "max_calls": limit.max_calls,
                "window_seconds": limit.window_us // 1_000_000,
                "scope": limit.scope,
                "actions": actions,
            },
        }
        for limit_id, (limit, actions) in limits.items()
    ]
    found.extend(
        {
            "constraint_id": budget_id,
            "type": "budget",
            "parameters": {
                "max_cost": charge.budget.max_cost / MICRO,
                "unit": charge.budget.unit,
                "window_seconds": charge.budget.window_us // 1_000_000,
                "scope": charge.budget.scope,
                "actions": actions,
            },
        }
        for budget_id, (charge, actions) in budgets.items()
    )
    found.extend(
        {
            "constraint_id": policy_id,
            "type": "require_approval",
            "parameters": {"reason": decision.reason, "actions": actions},
        }
        for policy_id, (decision, actions) in approvals.items()
    )
    return tuple(found)


def _waiting(allowed: Iterable[Permission]) -> Iterator[Mapping[str, object]]:
    """What the arguments of a call decide, in order of first appearance."""
    found: dict[str, tuple[Waiting, list[str]]] = {}
    for item in allowed:
        for waiting in item.decision.waiting:
            found.setdefault(f"{item.atlas.atlas_id}/{waiting.policy_id}", (waiting, []))[1].append(
                item.action.action_id
            )
    for waiting, actions in found.values():
        parameters: dict[str, object] = {"policy_type": waiting.type, "reason": waiting.reason, "actions": actions}
        if waiting.expression:
            parameters["when"] = waiting.expression
        if waiting.arguments:
            parameters["arguments"] = orjson.loads(waiting.arguments)
        yield {"constraint_id": waiting.policy_id, "type": "arguments", "parameters": parameters}


def _rank(scope: _Scope, query: Query, left_out: frozenset[tuple[str, str]]) -> tuple[ContextBlock, ...]:
    goal = _words(query.goal)
    hints = _words(" ".join(query.hints))
    ranked: list[tuple[int, int, str, str, ContextBlock]] = []
    for atlas in scope.atlases:
        for block in atlas.context_blocks:
            if scope.packs is not None and (atlas.atlas_id, block.pack_id) not in scope.packs:
                continue
            if (atlas.atlas_id, block.block_id) in left_out:
                continue
            relevance = relevance_of(block, goal, hints)
            ranked.append((-block.priority, -relevance, block.block_id, atlas.atlas_id, block))
    ranked.sort(key=lambda entry: entry[:4])
    return tuple(entry[4] for entry in ranked)


def relevance_of(block: ContextBlock, goal: frozenset[str], hints: frozenset[str]) -> int:
    """How many of a block's keywords the goal has, and twice as many for the hints (specs/carp.md, "Relevance")."""
    score = 0
    for keyword in block.keywords:
        words = _words(keyword)
        if words and words <= goal:
            score += 1
        if words and words <= hints:
            score += _HINT_WEIGHT
    return score


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))


def _condition_of(atlas: Atlas, block: ContextBlock) -> Test:
    capabilities = frozenset(
        capability.capability_id for capability in atlas.capabilities if block.pack_id in capability.context_packs
    )
    return compile_conditions(block.conditions, capabilities=capabilities)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:100]) for name in names)


def _remember(memo: OrderedDict[K, T], key: K, build: Callable[[], T]) -> T:
    """Memo of bounded size, oldest out first. A lost race builds a value twice, which is harmless: values are equal."""
    found = memo.get(key)
    if found is None:
        found = memo[key] = build()
        if len(memo) > _MEMO_SIZE:
            memo.popitem(last=False)
    return found
