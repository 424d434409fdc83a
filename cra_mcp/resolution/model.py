"""What is asked for, and what a requester may know and do: the forms of CARP resolve.

Source: specs/carp.md, "Resolution"; specs/schemas/carp-resolution.schema.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cra_mcp.atlas.model import Action, Atlas, ContextBlock
from cra_mcp.policy.model import Decision, Facts

DecisionType = Literal["allow", "partial", "requires_approval", "deny"]


class Query(NamedTuple):
    """What is asked for; the same query with the same outcome has the same resolution."""

    goal: str
    hints: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    atlas_ids: tuple[str, ...] = ()


class ResolutionDecision(NamedTuple):
    """The decision of a resolution: CARP's ``decision``. ``reason`` is empty where there is none."""

    type: DecisionType
    reason: str


@dataclass(frozen=True, slots=True)
class Permission:
    """An action of a resolution and what policy says of it before its arguments are known."""

    atlas: Atlas
    action: Action
    decision: Decision

    @property
    def action_id(self) -> str:
        """The action's id."""
        return self.action.action_id

    @property
    def name(self) -> str:
        """The action's name, for people."""
        return self.action.name

    @property
    def reason(self) -> str:
        """Why policy denies it, or asks for approval; empty where it gives no reason."""
        return self.decision.reason

    def __repr__(self) -> str:
        return f"Permission(action_id={self.action_id!r}, effect={self.decision.effect!r})"

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
        hidden: refused actions that must look unknown, by id.
        digest: lower-case hex SHA-256 of the canonical form of all three with their policies.
    """

    decision_type: DecisionType
    reason: str
    allowed: tuple[Permission, ...]
    denied: tuple[Permission, ...]
    hidden: Mapping[str, Permission]
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
    def decision(self) -> "ResolutionDecision":
        """The decision on all that was considered, and why."""
        return ResolutionDecision(self.outcome.decision_type, self.outcome.reason)

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

    def __repr__(self) -> str:
        return (
            f"Resolution(resolution_id={self.resolution_id!r}, decision={self.decision_type!r}, "
            f"allowed={len(self.allowed_actions)}, denied={len(self.denied_actions)}, "
            f"context_blocks={len(self.context_blocks)})"
        )

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
