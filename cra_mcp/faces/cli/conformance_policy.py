"""Runs conformance vectors of kind ``policy`` against the engine.

Rule: nothing is decided here; a vector's input goes through the same functions as an atlas and an agent's call.
Source: specs/conformance/policy/README.md.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.compiler import default_effect, policy_from_manifest
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.model import ActionFacts, Decision, Facts, Layer, RiskTier

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run(vector: Mapping[str, object]) -> object:
    """Return what the engine makes of ``vector["input"]``, to be compared with ``vector["expect"]``.

    Raises:
        ValueError: a policy can't be used.
    """
    given = cast("Mapping[str, object]", vector["input"])
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate(_objects(given, "policies"))]
    actions = [
        ActionFacts(
            action_id=cast("str", action["action_id"]),
            risk_tier=RiskTier(cast("str", action.get("risk_tier", "low"))),
            capabilities=frozenset(cast("Sequence[str]", action.get("capabilities", ()))),
            parameters=cast("Mapping[str, object]", action.get("parameters_schema", {"type": "object"})),
            cost=cast("float | None", action.get("cost")),
        )
        for action in _objects(given, "actions")
    ]
    default = default_effect(policies, cast("str | None", given.get("default_effect")))
    engine = compile_policies(policies, actions, default, [_layer(each) for each in _objects(given, "overlays")])
    counters = Counters()
    decisions: list[dict[str, object]] = []
    for call in _objects(given, "calls"):
        facts, now_us = _facts(cast("Mapping[str, object]", call["facts"])), _instant_us(cast("str", call["at"]))
        approved = bool(call.get("approved", False))
        action_id, args = cast("str", call["action_id"]), cast("Mapping[str, object] | None", call.get("args", {}))
        if args is None:
            decisions.append(_plain(engine.foresee(action_id, facts, now_us)))
            continue
        decision = engine.decide(action_id, facts, counters, now_us, approved=approved, args=args)
        if decision.effect == "allow":
            counters.take(decision.limits, facts, now_us, decision.charges)
            if "result" in call:
                done = Inputs(facts, now_us, args, call["result"])
                for charge, cost in engine.settle(action_id, decision.charges, done):
                    if cost is not None:
                        counters.settle(charge, facts, now_us, cost)
        decisions.append(_plain(decision))
    return {"decisions": decisions}


def _layer(given: Mapping[str, object]) -> Layer:
    overlay_id = cast("str", given["overlay_id"])
    policies = [
        policy_from_manifest(policy, order, namespace=overlay_id)
        for order, policy in enumerate(_objects(given, "policies"))
    ]
    return Layer(overlay_id, tuple(policies), default_effect(policies, cast("str | None", given.get("default_effect"))))


def _facts(given: Mapping[str, object]) -> Facts:
    return Facts(
        agent_id=cast("str", given["agent_id"]),
        session_id=cast("str", given["session_id"]),
        tenant=cast("str", given.get("tenant", "default")),
        task_risk=RiskTier(cast("str", given.get("task_risk", "low"))),
        context=cast("Mapping[str, object]", given.get("context", {})),
        subject=cast("str", given.get("subject", "local")),
        roles=frozenset(cast("Sequence[str]", given.get("roles", ()))),
    )


def _plain(decision: Decision) -> dict[str, object]:
    plain: dict[str, object] = {
        "effect": decision.effect,
        "policy_id": decision.policy_id,
        "basis": decision.basis,
        "determining": list(decision.determining),
        "disclose": decision.disclose,
    }
    if decision.retry_after_seconds is not None:
        plain["retry_after_seconds"] = decision.retry_after_seconds
    if decision.errors:
        plain["errors"] = list(decision.errors)
    if decision.waiting:
        plain["waiting"] = [each.policy_id for each in decision.waiting]
    return plain


def _instant_us(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def _objects(given: Mapping[str, object], key: str) -> Sequence[Mapping[str, object]]:
    return cast("Sequence[Mapping[str, object]]", given.get(key, ()))
