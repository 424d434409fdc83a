"""What policy makes of every action that a query considers, before its arguments are known.

Rule: pure; it depends on the outcome of the policies alone, so that it is built once per outcome.
Source: specs/carp.md, "Resolution".
"""

from collections.abc import Iterable, Iterator, Mapping

import orjson

from cra_mcp.canonical import canonical_bytes, sha256_hex
from cra_mcp.policy.model import MICRO, Charge, Decision, Facts, Limit, Waiting
from cra_mcp.resolution.model import DecisionType, Outcome, Permission
from cra_mcp.resolution.scope import Scope


def outcome_of(scope: Scope, facts: Facts, now_us: int) -> Outcome:
    """Ask the policies of each atlas for each of its actions."""
    permissions = [
        Permission(atlas, action, decision)
        for atlas in scope.atlases
        for action, decision in zip(atlas.actions, atlas.policy_set.preview(facts, now_us), strict=True)
        if scope.members is None or action.action_id in scope.members
    ]
    allowed = tuple(item for item in permissions if item.decision.effect != "deny")
    denied = tuple(item for item in permissions if item.decision.effect == "deny" and item.decision.disclose)
    hidden = {
        item.action.action_id: item
        for item in permissions
        if item.decision.effect == "deny" and not item.decision.disclose
    }
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
