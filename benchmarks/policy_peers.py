"""The peers of the policy benchmark: Cedar (cedarpy) and casbin, given the same policies and asked the same questions.

Cedar has what ``cra-mcp policy export`` writes. Casbin has a row for each glob of each policy, and its conditions as
expressions; limits are left out for it, which only makes it faster. Both are loaded once, and asked through their fastest public
call with requests made before. Neither knows time windows of zones, so nobody here has any.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import casbin
import cedarpy

from cra_mcp.policy.conditions import higher
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.export.cedar import cedar_policies, cedar_request, cedar_schema
from cra_mcp.policy.export.form import express
from cra_mcp.policy.model import ActionFacts, Facts, Policy

Ask = Callable[[str], bool]
"""Whether an action is allowed at once."""

_MODEL = """
[request_definition]
r = act, agent, risk, caps, ctx
[policy_definition]
p = act, rule, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = globMatch(r.act, p.act) && eval(p.rule)
"""


def ours(policies: Sequence[Policy], actions: Sequence[ActionFacts], facts: Facts, now_us: int) -> Ask:
    engine, counters = compile_policies(policies, actions, "deny"), Counters()
    return lambda action_id: engine.decide(action_id, facts, counters, now_us).effect == "allow"


def cedar(policies: Sequence[Policy], actions: Sequence[ActionFacts], facts: Facts) -> Ask:
    """Requests are made before, and the schema is not asked each time: parsed policies, a request, and nothing else."""
    form = express(policies, actions, "deny")
    text = cedar_policies(form)
    assert cedarpy.validate_policies(text, cedar_schema(form)).validation_passed
    parsed, entities = cedarpy.PolicySet.from_str(text), cedarpy.Entities.from_json_str("[]")
    requests = {
        action.action_id: cedar_request(form, "bench", action.action_id, facts, approved=False) for action in actions
    }
    return lambda action_id: cedarpy.is_authorized(requests[action_id], parsed, entities).allowed


def casbin_enforcer(policies: Sequence[Policy], actions: Sequence[ActionFacts], facts: Facts) -> Ask:
    model = casbin.Model()
    model.load_model_from_text(_MODEL)
    enforcer = casbin.Enforcer(model)
    for policy in policies:
        if policy.type not in {"rate_limit", "budget"}:
            for glob in policy.actions:
                enforcer.add_policy(glob, _rule(policy), "allow" if policy.type == "allow" else "deny")
    requests = {
        action.action_id: (
            action.action_id,
            facts.agent_id,
            higher(action.risk_tier, facts.task_risk).value,
            sorted(action.capabilities),
            dict(facts.context),
        )
        for action in actions
    }
    return lambda action_id: enforcer.enforce(*requests[action_id])


def _rule(policy: Policy) -> str:
    conditions = policy.conditions
    parts = [_any(f"globMatch(r_agent, {glob!r})" for glob in conditions.agents)]
    parts.append(_any(f"r_risk == {tier.value!r}" for tier in sorted(conditions.risk_tiers)))
    parts.append(_any(f"{name!r} in r_caps" for name in sorted(conditions.capabilities)))
    parts += [f"globMatch(r_ctx[{key!r}], {glob!r})" for key, glob in conditions.context_matches]
    return " and ".join(part for part in parts if part) or "True"


def _any(parts: Iterable[str]) -> str:
    joined = " or ".join(parts)
    return f"({joined})" if joined else ""


def without_windows(policies: Sequence[Policy]) -> list[Policy]:
    return [replace(each, conditions=replace(each.conditions, time_window=None)) for each in policies]
