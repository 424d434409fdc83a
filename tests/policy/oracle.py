"""The policy specification, read out literally. Slow, without state, and shares nothing with the engine but its values.

Every function follows one section of specs/policy.md; where the engine disagrees with it, the engine is wrong.
"""

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cra_mcp.policy.model import ActionFacts, Facts, RiskTier

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TRUE, FALSE, ERROR = "true", "false", "error"
TIERS = ["low", "medium", "high", "critical"]


@lru_cache(maxsize=100_000)
def glob_matches(pattern, text):
    if pattern == "":
        return text == ""
    if pattern[0] == "*":
        return any(glob_matches(pattern[1:], text[skipped:]) for skipped in range(len(text) + 1))
    return text[:1] == pattern[0] and glob_matches(pattern[1:], text[1:])


def wall_clock(now_us, zone):
    moment = EPOCH + timedelta(microseconds=now_us)
    return moment.astimezone(UTC if zone == "UTC" else ZoneInfo(zone)).replace(tzinfo=None)


def window_is_open(window, now_us):
    wall = wall_clock(now_us, window.timezone)
    today = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (today - timedelta(days=1), today):
        if window.days and day.weekday() not in window.days:
            continue
        opens = day + timedelta(minutes=window.start)
        closes = day + timedelta(minutes=window.end)
        if window.end <= window.start:
            closes += timedelta(days=1)
        if opens <= wall < closes:
            return True
    return False


def all_of(results):
    results = list(results)
    if FALSE in results:
        return FALSE
    return ERROR if ERROR in results else TRUE


def truth(value):
    return TRUE if value else FALSE


def context_match(context, key, pattern):
    if key not in context or not isinstance(context[key], str):
        return ERROR
    return truth(glob_matches(pattern, context[key]))


def conditions_hold(conditions, action, facts, now_us):
    results = []
    if conditions.risk_tiers:
        risk = max(str(action.risk_tier), str(facts.task_risk), key=TIERS.index)
        results.append(truth(risk in [str(tier) for tier in conditions.risk_tiers]))
    if conditions.agents:
        results.append(truth(any(glob_matches(pattern, facts.agent_id) for pattern in conditions.agents)))
    if conditions.principals:
        results.append(truth(any(glob_matches(pattern, facts.subject) for pattern in conditions.principals)))
    if conditions.roles:
        results.append(truth(any(role in facts.roles for role in conditions.roles)))
    if conditions.capabilities:
        results.append(truth(any(name in action.capabilities for name in conditions.capabilities)))
    for key, pattern in conditions.context_matches:
        results.append(context_match(facts.context, key, pattern))
    if conditions.time_window is not None:
        results.append(truth(window_is_open(conditions.time_window, now_us)))
    return all_of(results)


def concerns(policy, action):
    return any(glob_matches(pattern, action.action_id) for pattern in policy.actions)


def applies(policy, action, facts, now_us):
    result = conditions_hold(policy.conditions, action, facts, now_us)
    return concerns(policy, action) and (result == TRUE if policy.type == "allow" else result in (TRUE, ERROR))


def counted_for(limit, facts):
    return {
        "session": ("session", facts.session_id),
        "agent": ("agent", facts.tenant, facts.agent_id),
        "tenant": ("tenant", facts.tenant),
        "global": ("global",),
    }[limit.scope]


def wait_us(limit, facts, now_us, charges):
    """How long until fewer than ``max_calls`` charges lie in the window that ends then."""
    times = [time for name, who, time in charges if name == limit.limit_id and who == counted_for(limit, facts)]
    for wait in sorted({0, *(max(0, time + limit.window_us - now_us) for time in times)}):
        if sum(time > now_us + wait - limit.window_us for time in times) < limit.max_calls:
            return wait
    raise AssertionError


class World(NamedTuple):
    """``policies`` are in file order."""

    policies: list
    actions: list
    default_effect: str


def decide(world, action_id, facts, now_us, charges, *, approved=False):
    """``charges`` are (limit id, whom it is counted for, instant)."""
    action = next((action for action in world.actions if action.action_id == action_id), None)
    if action is None:
        return answer("deny", "undeclared", "default", disclose=False)
    in_order = sorted(enumerate(world.policies), key=lambda entry: (-entry[1].priority, entry[0]))
    applying = [policy for _, policy in in_order if applies(policy, action, facts, now_us)]

    def of_type(name):
        return [policy for policy in applying if policy.type == name]

    def failed(consulted):
        return [
            policy.policy_id
            for policy in world.policies
            if policy.type in ["deny", "require_approval", "rate_limit", "allow"][:consulted]
            and concerns(policy, action)
            and conditions_hold(policy.conditions, action, facts, now_us) == ERROR
        ]

    denying, approving, limiting, allowing = map(of_type, ("deny", "require_approval", "rate_limit", "allow"))
    limits = {policy.limit for policy in limiting}
    if denying:
        hidden = any(not policy.disclose for policy in denying)
        return answer("deny", denying[0].policy_id, "deny", denying, disclose=not hidden, errors=failed(1))
    if approving and not approved:
        named = approving[0].policy_id
        return answer("require_approval", named, "require_approval", approving, limits=limits, errors=failed(2))
    waits = {policy.policy_id: wait_us(policy.limit, facts, now_us, charges) for policy in limiting}
    spent = [policy for policy in limiting if waits[policy.policy_id] > 0]
    if spent:
        retry = max(waits.values())
        return answer("deny", spent[0].policy_id, "rate_limit", spent, retry=retry, errors=failed(3))
    granted = approving or allowing
    if granted:
        errors = failed(3 if approving else 4)
        return answer("allow", granted[0].policy_id, granted[0].type, granted, limits=limits, errors=errors)
    limits = limits if world.default_effect == "allow" else ()
    return answer(world.default_effect, "default", "default", limits=limits, errors=failed(4))


def answer(effect, policy_id, basis, determining=(), *, disclose=True, limits=(), retry=None, errors=()):
    return {
        "effect": effect,
        "policy_id": policy_id,
        "basis": basis,
        "determining": [policy.policy_id for policy in determining],
        "disclose": disclose,
        "limits": set(limits),
        "retry_after_us": retry,
        "errors": list(errors),
    }


def charge(decision, facts, now_us):
    """What an allowed call adds to the charges."""
    return [(limit.limit_id, counted_for(limit, facts), now_us) for limit in decision["limits"]]


def run_vector(vector, policy_from_manifest, default_effect):
    """Answer a conformance vector. Only reading the policies is left to the package."""
    given = vector["input"]
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate(given["policies"])]
    actions = [
        ActionFacts(
            action["action_id"], RiskTier(action.get("risk_tier", "low")), frozenset(action.get("capabilities", ()))
        )
        for action in given["actions"]
    ]
    world = World(policies, actions, default_effect(policies, given.get("default_effect")))
    charges, decisions = [], []
    for call in given["calls"]:
        facts = Facts(**{**call["facts"], "task_risk": RiskTier(call["facts"].get("task_risk", "low"))})
        now_us = (datetime.fromisoformat(call["at"]) - EPOCH) // timedelta(microseconds=1)
        decision = decide(world, call["action_id"], facts, now_us, charges, approved=call.get("approved", False))
        if decision["effect"] == "allow":
            charges.extend(charge(decision, facts, now_us))
        plain = {key: decision[key] for key in ("effect", "policy_id", "basis", "determining", "disclose")}
        if decision["retry_after_us"] is not None:
            plain["retry_after_seconds"] = math.ceil(decision["retry_after_us"] / 1_000_000)
        if decision["errors"]:
            plain["errors"] = decision["errors"]
        decisions.append(plain)
    return {"decisions": decisions}
