"""Values of the policy engine: policies, the facts of a request, and the decision.

Rule: frozen values only; everything here is plain data.
Source: specs/policy.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

PolicyType = Literal["deny", "require_approval", "rate_limit", "allow"]
Scope = Literal["session", "agent", "tenant", "global"]
Effect = Literal["allow", "require_approval", "deny"]
Basis = Literal["deny", "require_approval", "rate_limit", "allow", "default"]


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
    """All given parts must hold; an empty part always holds."""

    risk_tiers: frozenset[RiskTier] = frozenset()
    agents: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset()
    context_matches: tuple[tuple[str, str], ...] = ()
    time_window: TimeWindow | None = None
    principals: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``max_calls`` approved calls in any window of ``window_us`` microseconds, counted per ``scope``.

    ``limit_id`` names the counter; all actions a policy matches share it.
    """

    limit_id: str
    max_calls: int
    window_us: int
    scope: Scope = "agent"


EVIDENCE = ("client_elicitation", "application", "local_cli", "authenticated_approver")
"""Grades of evidence that a person consented, weakest first (specs/policy.md, "Evidence")."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule.

    ``order`` is its position in the file order of its atlas; ``limit`` is set for rate_limit only, ``min_evidence`` (a grade) for
    require_approval only.
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


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """What the engine knows of an action when policies are compiled."""

    action_id: str
    risk_tier: RiskTier = RiskTier.LOW
    capabilities: frozenset[str] = frozenset()


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
        basis: type of the deciding policy (a spent rate limit decides ``deny`` on basis ``rate_limit``).
        reason: one line for the model and the person.
        disclose: False hides the action and the refusal (it must look unknown).
        determining: ids of all matching policies of the deciding type, most important first.
        limits: what to charge when the call is approved.
        retry_after_us: microseconds until every spent limit admits a call; None otherwise.
        min_evidence: grade an approval must have at least, where one is asked for; None: any will do.
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

    @property
    def retry_after_seconds(self) -> int | None:
        """``retry_after_us`` in whole seconds, rounded up: waiting that long is enough."""
        return None if self.retry_after_us is None else -(-self.retry_after_us // 1_000_000)
