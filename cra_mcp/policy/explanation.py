"""Values of an explanation: every policy that was considered, what it asked and read, and what came of it.

Rule: plain data, complete: whoever reads it can work out the decision without the engine.
Source: specs/policy.md, "Explaining".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cra_mcp.policy.model import MICRO, Decision, Policy

TruthName = Literal["false", "true", "error", "unknown"]
Outcome = Literal["decides", "applies", "does_not_apply", "waits", "other_actions"]
"""What became of a policy.

``decides``: it is one of those that determine the decision. ``applies``: it matches and another type, or its own room, came before.
``waits``: it needs arguments that are not known. ``other_actions``: none of its globs matches the action.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One condition of a policy.

    Attributes:
        name: as in the policy; ``context_matches/KEY`` for each key of that.
        wanted: what the policy says, as it is written.
        values: what it read, by name, masked.
        missing: names of what it read and found missing.
        withheld: what it reads and can't be given exactly, each with what it holds, in words.
        faults: of ``arguments``: pointers into the arguments that break the schema, at most five.
    """

    name: str
    truth: TruthName
    wanted: object
    values: Mapping[str, object]
    missing: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "condition": self.name,
            "result": self.truth,
            "wanted": self.wanted,
            "read": dict(self.values),
            **({"missing": list(self.missing)} if self.missing else {}),
            **({"withheld": list(self.withheld)} if self.withheld else {}),
            **({"faults": list(self.faults)} if self.faults else {}),
        }


@dataclass(frozen=True, slots=True)
class Room:
    """What the counter of a limit or budget holds for this requester, and what this call would take.

    Attributes:
        maximum: in millionths of ``unit``, as all amounts here.
        spent: in the window that ends at the instant.
        takes: what the call costs; None where that can't be told (yet).
        fits: whether there is room for it; None before the arguments that tell are known.
        wait_us: until it would fit; None where waiting doesn't help, or ``fits`` is None.
        withheld: of an expression that tells what the call costs, as for a condition.
    """

    unit: str
    maximum: int
    window_us: int
    scope: str
    spent: int
    takes: int | None
    fits: bool | None
    wait_us: int | None
    withheld: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """As plain JSON, amounts in ``unit`` and times in seconds, waits rounded up."""
        return {
            "unit": self.unit,
            "maximum": self.maximum / MICRO,
            "window_seconds": self.window_us / 1_000_000,
            "scope": self.scope,
            "spent": self.spent / MICRO,
            "takes": None if self.takes is None else self.takes / MICRO,
            "fits": self.fits,
            "wait_seconds": None if self.wait_us is None else -(-self.wait_us // 1_000_000),
            **({"withheld": list(self.withheld)} if self.withheld else {}),
        }


@dataclass(frozen=True, slots=True)
class Considered:
    """One policy.

    Attributes:
        policy: named as in decisions, after its overlay.
        layer: overlay it belongs to; "" for the atlas.
        glob: the first of its globs that matches the action; None if none does, and nothing else was asked then.
        parts: its conditions, in the order of the specification, ``when`` last.
        truth: all of them together.
        outcome: what became of it.
        consulted: whether its type is that of the decision, or comes before.
        room: of a limit or budget that applies.
    """

    policy: Policy
    layer: str
    glob: str | None
    parts: tuple[Part, ...]
    truth: TruthName
    outcome: Outcome
    consulted: bool
    room: Room | None = None

    @property
    def applies(self) -> bool:
        """Whether it matches: what can't be evaluated restricts, and doesn't allow."""
        return self.glob is not None and (
            self.truth == "true" or (self.truth == "error" and self.policy.type != "allow")
        )

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        policy = self.policy
        return {
            "policy_id": policy.policy_id,
            "type": policy.type,
            "overlay": self.layer or None,
            "priority": policy.priority,
            "actions": list(policy.actions),
            "glob": self.glob,
            "conditions": [part.to_dict() for part in self.parts],
            "result": self.truth,
            "failed_closed": self.glob is not None and self.truth == "error",
            "outcome": self.outcome,
            "consulted": self.consulted,
            "reason": policy.reason or None,
            "disclose": policy.disclose,
            **({"room": self.room.to_dict()} if self.room is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class LayerState:
    """An overlay, or the atlas (``overlay`` ""), and whether it lets the call through.

    ``covered``: one of its allow or require_approval policies matches; None while arguments that tell are unknown.
    """

    overlay: str
    default_effect: Literal["allow", "deny"]
    covered: bool | None

    @property
    def closed(self) -> bool | None:
        """Whether it refuses for want of a policy that lets the call through."""
        return False if self.default_effect == "allow" else None if self.covered is None else not self.covered

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "overlay": self.overlay or None,
            "default_effect": self.default_effect,
            "covered": self.covered,
            "closed": self.closed,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a decision comes about.

    Attributes:
        at_us: the instant decided for, microseconds since the epoch.
        arguments: ``given``; ``not_needed``, where no policy reads them; ``unknown``: the decision is what the best arguments
            would be told, as if no limit were spent.
        decision: what the engine says.
        policies: in the order of evaluation: by type, then priority, then file order, overlays before the atlas.
        layers: overlays in load order, then the atlas. None of either for an action that isn't declared.
    """

    action_id: str
    at_us: int
    approved: bool
    arguments: Literal["given", "not_needed", "unknown"]
    decision: Decision
    policies: tuple[Considered, ...]
    layers: tuple[LayerState, ...]

    def to_dict(self) -> dict[str, object]:
        """As plain JSON; the instant is told by whoever can write one."""
        return {
            "action_id": self.action_id,
            "approved": self.approved,
            "arguments": self.arguments,
            "decision": decision_form(self.decision),
            "policies": [each.to_dict() for each in self.policies],
            "layers": [each.to_dict() for each in self.layers],
        }


def decision_form(decision: Decision) -> dict[str, object]:
    """A decision as plain JSON."""
    return {
        "effect": decision.effect,
        "policy_id": decision.policy_id,
        "basis": decision.basis,
        "reason": decision.reason,
        "disclose": decision.disclose,
        "determining": list(decision.determining),
        "errors": list(decision.errors),
        "retry_after_seconds": decision.retry_after_seconds,
        "min_evidence": decision.min_evidence,
        "waiting": [each.policy_id for each in decision.waiting],
    }
