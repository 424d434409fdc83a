"""Values of the policy engine: policies, the facts of a request, and the decision.

Rule: frozen values only; everything here is plain data.
Source: specs/policy.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from cra_mcp.policy.expression import Expression

PolicyType = Literal["deny", "require_approval", "rate_limit", "budget", "allow"]
Scope = Literal["session", "agent", "tenant", "global"]
Effect = Literal["allow", "require_approval", "deny"]
Basis = Literal["deny", "require_approval", "rate_limit", "budget", "allow", "default", "freeze"]


class RiskTier(StrEnum):
    """How much an action or task can break. Ordered by ``rank`` (0 lowest)."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Position in the order low < medium < high < critical."""
        return _RANKS[self]


_RANKS: dict[RiskTier, int] = {tier: rank for rank, tier in enumerate(RiskTier)}


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Part of a day in a time zone: ``start`` inclusive, ``end`` exclusive; crosses midnight if ``end`` <= ``start``.

    Attributes:
        start: minutes after local midnight, 0-1439.
        end: minutes after local midnight, 0-1440.
        timezone: IANA name.
        days: 0 (Monday) to 6; the day a window *starts* on. Empty means every day.
    """

    start: int
    end: int
    timezone: str = "UTC"
    days: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Conditions:
    """All given parts must hold; an empty part always holds.

    ``arguments`` is a JSON Schema as canonical JSON: a text, so that equal conditions are equal values.
    """

    risk_tiers: frozenset[RiskTier] = frozenset()
    agents: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset()
    context_matches: tuple[tuple[str, str], ...] = ()
    time_window: TimeWindow | None = None
    principals: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset()
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``max_calls`` approved calls in any window of ``window_us`` microseconds, counted per ``scope``.

    ``limit_id`` names the counter; all actions a policy matches share it.
    """

    limit_id: str
    max_calls: int
    window_us: int
    scope: Scope = "agent"


MICRO = 1_000_000
"""Costs are whole millionths of their unit, so that adding them up is exact."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most ``max_cost`` spent in any window of ``window_us`` microseconds, added up per ``scope``.

    Attributes:
        budget_id: names the counter; all actions a policy matches share it.
        max_cost: millionths of ``unit``.
        unit: what is spent: ``calls``, or any other name.
        cost: what a call costs; None: 1 if the unit is ``calls``, else what its action declares.
        reserve: millionths held until the result tells the cost; None where the cost is known before.
    """

    budget_id: str
    max_cost: int
    window_us: int
    unit: str = "calls"
    scope: Scope = "agent"
    cost: Expression | None = None
    reserve: int | None = None

    @property
    def reads_args(self) -> bool:
        """Whether what a call takes from it depends on the arguments; a reserve doesn't."""
        return self.cost is not None and self.reserve is None and self.cost.reads("args")


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call takes from a budget: ``amount`` in millionths. ``policy_id`` is whose budget it is."""

    budget: Budget
    amount: int
    policy_id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A policy that can't be decided before the arguments are known.

    Attributes:
        expression: its ``when``; "" if it has none.
        arguments: its ``conditions.arguments`` as canonical JSON; "" if it has none.
    """

    policy_id: str
    type: PolicyType
    reason: str
    expression: str
    arguments: str


EVIDENCE = ("client_elicitation", "application", "local_cli", "authenticated_approver")
"""Grades of evidence that a person consented, weakest first (specs/policy.md, "Evidence")."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule.

    ``order`` is its position in the file order of its atlas; ``limit`` is set for rate_limit only, ``budget`` for budget only,
    ``min_evidence`` (a grade) for require_approval only. ``when`` must hold besides the conditions.
    """

    policy_id: str
    type: PolicyType
    actions: tuple[str, ...] = ("*",)
    reason: str = ""
    disclose: bool = True
    priority: int = 0
    conditions: Conditions = field(default_factory=Conditions)
    limit: Limit | None = None
    order: int = 0
    min_evidence: str | None = None
    when: Expression | None = None
    budget: Budget | None = None

    @property
    def may_read_args(self) -> bool:
        """Whether it can't be decided before the arguments are known."""
        return bool(self.conditions.arguments) or (self.when is not None and self.when.reads("args"))


@dataclass(frozen=True, slots=True)
class Layer:
    """Policies that govern every action besides those of its atlas: the operator's, or those of an overlay atlas.

    Attributes:
        overlay_id: goes before the ids of its policies.
        policies: in file order.
        default_effect: what holds, for this layer, where none of its policies decides.
    """

    overlay_id: str
    policies: tuple[Policy, ...]
    default_effect: Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """What the engine knows of an action when policies are compiled.

    ``parameters`` is its parameters_schema; ``cost`` what a call of it costs, if it says so.
    """

    action_id: str
    risk_tier: RiskTier = RiskTier.LOW
    capabilities: frozenset[str] = frozenset()
    parameters: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a requester brings to a decision; the same for every action of one resolution."""

    agent_id: str
    session_id: str
    tenant: str = "default"
    task_risk: RiskTier = RiskTier.LOW
    context: Mapping[str, object] = field(default_factory=dict[str, object])
    subject: str = "local"
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy says of one call.

    Attributes:
        effect: allow, require_approval or deny.
        policy_id: the deciding policy; ``default`` where none applied.
        basis: type of the deciding policy (a spent limit decides ``deny`` on basis ``rate_limit`` or ``budget``).
        reason: one line for the model and the person.
        disclose: False hides the action and the refusal (it must look unknown).
        determining: ids of all matching policies of the deciding type, most important first.
        limits: what to charge when the call is approved.
        charges: what to take from budgets then, likewise.
        retry_after_us: microseconds until every spent limit admits a call; None otherwise.
        min_evidence: grade an approval must have at least, where one is asked for; None: any will do.
        waiting: what the arguments decide; only where they are not known yet.
        errors: ids of the policies consulted whose conditions couldn't be evaluated, in file order. They failed closed.
    """

    effect: Effect
    policy_id: str
    basis: Basis
    reason: str = ""
    disclose: bool = True
    determining: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    retry_after_us: int | None = None
    errors: tuple[str, ...] = ()
    min_evidence: str | None = None
    charges: tuple[Charge, ...] = ()
    waiting: tuple[Waiting, ...] = ()

    @property
    def retry_after_seconds(self) -> int | None:
        """``retry_after_us`` in whole seconds, rounded up: waiting that long is enough."""
        return None if self.retry_after_us is None else -(-self.retry_after_us // 1_000_000)
