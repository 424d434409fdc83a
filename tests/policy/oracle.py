"""The policy specification, read out literally. Slow, without state, and shares nothing with the engine but its values.

Every function follows one section of specs/policy.md; where the engine disagrees with it, the engine is wrong.
"""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from zoneinfo import ZoneInfo

import jsonschema

from cra_mcp.policy.model import ActionFacts, Facts, Layer, RiskTier

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TRUE, FALSE, ERROR, UNKNOWN = "true", "false", "error", "unknown"
TIERS = ["low", "medium", "high", "critical"]
TYPES = ["deny", "require_approval", "rate_limit", "budget", "allow"]


class Asked(NamedTuple):
    """Everything an expression can read."""

    action: object
    facts: object
    now_us: int
    args: dict
    result: object = None


class NoValueError(Exception):
    """An expression has no value."""


def member(value, *names):
    for name in names:
        if not isinstance(value, dict) or name not in value:
            raise NoValueError
        value = value[name]
    return value


def number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoValueError
    return value


def whole(value):
    if isinstance(number(value), float) and not value.is_integer():
        raise NoValueError
    return int(value)


def text(value):
    if not isinstance(value, str) or "\0" in value:
        raise NoValueError
    return value


def texts(value):
    if not isinstance(value, list):
        raise NoValueError
    return [text(item) for item in value]


MEANINGS = {
    "true": lambda asked: True,
    "args.amount > 500": lambda asked: number(member(asked.args, "amount")) > 500,
    "args.amount <= 20.5": lambda asked: number(member(asked.args, "amount")) <= 20.5,
    "args.count == 3": lambda asked: whole(member(asked.args, "count")) == 3,
    "args.count * 2 > 7": lambda asked: whole(member(asked.args, "count")) * 2 > 7,
    "1 / args.count >= 1": lambda asked: divided(whole(member(asked.args, "count"))) >= 1,
    "args.name.startsWith('ad')": lambda asked: text(member(asked.args, "name")).startswith("ad"),
    "args.name.matches('^[a-z]+$')": lambda asked: (
        text(member(asked.args, "name")).isascii()
        and text(member(asked.args, "name")).isalpha()
        and text(member(asked.args, "name")).islower()
    ),
    "'root' in args.tags": lambda asked: "root" in texts(member(asked.args, "tags")),
    "args.tags.all(tag, tag.size() < 5)": lambda asked: all(len(tag) < 5 for tag in texts(member(asked.args, "tags"))),
    "has(args.name)": lambda asked: "name" in mapping(asked.args),
    "args.to.country == 'DE'": lambda asked: text(member(asked.args, "to", "country")) == "DE",
    "has(args.to.country)": lambda asked: "country" in mapping(member(asked.args, "to")),
    "size(args) > 1": lambda asked: len(mapping(asked.args)) > 1,
    "agent.id == 'bot'": lambda asked: asked.facts.agent_id == "bot",
    "session.tenant != 'default'": lambda asked: asked.facts.tenant != "default",
    "action.id.endsWith('delete')": lambda asked: asked.action.action_id.endswith("delete"),
    "'money' in action.capabilities": lambda asked: "money" in asked.action.capabilities,
    "task.risk_tier in ['high', 'critical']": lambda asked: str(asked.facts.task_risk) in ("high", "critical"),
    "context.env == 'prod'": lambda asked: member(asked.facts.context, "env") == "prod",
    "has(context.team)": lambda asked: "team" in asked.facts.context,
    "'operator' in principal.roles": lambda asked: "operator" in asked.facts.roles,
    "now.getHours('Europe/Berlin') < 12": lambda asked: wall_clock(asked.now_us, "Europe/Berlin").hour < 12,
    "args.amount": lambda asked: number(member(asked.args, "amount")),
    "double(args.count) * 0.1": lambda asked: whole(member(asked.args, "count")) * 0.1,
    "result.price": lambda asked: number(member(asked.result, "price")),
}
"""What expressions mean, read by hand."""


def divided(divisor):
    if divisor == 0:
        raise NoValueError
    return int(1 / divisor)


def mapping(value):
    if not isinstance(value, dict):
        raise NoValueError
    return value


def when_holds(expression, asked):
    """Of an expression, or of two in brackets joined by && or ||, or of one in brackets after !."""
    if expression in MEANINGS:
        try:
            return truth(MEANINGS[expression](asked))
        except NoValueError:
            return ERROR
    if expression.startswith("!("):
        return {TRUE: FALSE, FALSE: TRUE, ERROR: ERROR}[when_holds(expression[2:-1], asked)]
    operator = " && " if ") && (" in expression else " || "
    one, _, other = expression.partition(f"){operator}(")
    results = [when_holds(one[1:], asked), when_holds(other[:-1], asked)]
    settling, otherwise = (FALSE, TRUE) if operator == " && " else (TRUE, FALSE)
    return settling if settling in results else ERROR if ERROR in results else otherwise


@lru_cache(maxsize=100)
def validator(schema):
    return jsonschema.Draft202012Validator(json.loads(schema))


def cost_of(policy, asked):
    """Exact, in millionths, rounded up; None if there is none."""
    budget = policy.budget
    if budget.reserve is not None and asked.result is None:
        return budget.reserve
    if budget.cost is None:
        return 1_000_000 if budget.unit == "calls" else math.ceil((asked.action.cost or 0) * 1_000_000)
    try:
        value = MEANINGS[budget.cost.text](asked)
    except NoValueError:
        return None
    return math.ceil(value * 1_000_000) if 0 <= value <= 10**9 else None


def room_wait_us(budget, amount, facts, now_us, charges):
    """How long until an amount fits into a budget; None if it never does."""
    mine = [entry for entry in charges if entry[:2] == (budget.budget_id, counted_for(budget, facts))]
    now_us = max([now_us, *(time for _, _, time, _ in mine)])
    for wait in sorted({0, *(max(0, time + budget.window_us - now_us) for _, _, time, _ in mine)}):
        spent = sum(Fraction(cost) for _, _, time, cost in mine if time > now_us + wait - budget.window_us)
        if spent + amount <= budget.max_cost:
            return wait
    return None


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
    for settling in (FALSE, UNKNOWN, ERROR):
        if settling in results:
            return settling
    return TRUE


def truth(value):
    return TRUE if value else FALSE


def context_match(context, key, pattern):
    if key not in context or not isinstance(context[key], str):
        return ERROR
    return truth(glob_matches(pattern, context[key]))


def conditions_hold(policy, asked):
    """With arguments None: before they are known."""
    conditions, (action, facts, now_us, args, _) = policy.conditions, asked
    results = []
    if conditions.arguments:
        results.append(UNKNOWN if args is None else truth(validator(conditions.arguments).is_valid(args)))
    if policy.when is not None:
        holds = when_holds(policy.when.text, asked)
        results.append(UNKNOWN if holds == ERROR and args is None and "args" in policy.when.text else holds)
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


def applies(policy, asked, hoped=()):
    """What waits for the arguments applies if its type is hoped for."""
    if not concerns(policy, asked.action):
        return False
    result = conditions_hold(policy, asked)
    if result == UNKNOWN:
        return policy.type in hoped
    return result == TRUE if policy.type == "allow" else result in (TRUE, ERROR)


def counted_for(limit, facts):
    return {
        "session": ("session", facts.session_id),
        "agent": ("agent", facts.tenant, facts.agent_id),
        "tenant": ("tenant", facts.tenant),
        "global": ("global",),
    }[limit.scope]


def wait_us(limit, facts, now_us, charges):
    """How long until fewer than ``max_calls`` charges lie in the window that ends then."""
    times = [time for name, who, time, _ in charges if name == limit.limit_id and who == counted_for(limit, facts)]
    for wait in sorted({0, *(max(0, time + limit.window_us - now_us) for time in times)}):
        at = max([now_us + wait, *times])  # an instant before the last one charged counts as that one
        if sum(time > at - limit.window_us for time in times) < limit.max_calls:
            return wait
    raise AssertionError


class World(NamedTuple):
    """``policies`` are in file order, and so are those of each overlay."""

    policies: list
    actions: list
    default_effect: str
    overlays: tuple = ()


def layers_of(world):
    return [
        *(
            (
                f"{layer.overlay_id}/default",
                layer.default_effect,
                [replace(policy, policy_id=f"{layer.overlay_id}/{policy.policy_id}") for policy in layer.policies],
            )
            for layer in world.overlays
        ),
        ("default", world.default_effect, world.policies),
    ]


def foresee(world, action_id, facts, now_us):
    """What the best arguments would be told, as if no limit were spent, and the policies that wait for them."""
    early = decide(world, action_id, facts, now_us, None, args=None, hoped=("allow",))
    if early["effect"] == "deny" and early["basis"] == "default":
        early = decide(world, action_id, facts, now_us, None, args=None, hoped=("allow", "require_approval"))
    asked = Asked(next((each for each in world.actions if each.action_id == action_id), None), facts, now_us, None)
    if early["effect"] == "deny":
        return early, []
    concerning = [
        (layer, policy) for layer in layers_of(world) for policy in layer[2] if concerns(policy, asked.action)
    ]
    waiting = [
        policy.policy_id
        for (_, default, policies), policy in concerning
        if conditions_hold(policy, asked) == UNKNOWN
        and policy.disclose
        and not (policy.type == "allow" and (default == "allow" or is_covered(policies, asked)))
    ]
    return early, waiting


def is_covered(policies, asked):
    return any(
        policy.type in ("allow", "require_approval")
        and concerns(policy, asked.action)
        and conditions_hold(policy, asked) == TRUE
        for policy in policies
    )


def decide(  # noqa: C901, PLR0911 - rows of a table
    world, action_id, facts, now_us, charges, *, approved=False, args=MappingProxyType({}), hoped=()
):
    """``charges`` are (limit or budget id, whom it is counted for, instant, amount); None: no limit is asked.

    ``args`` are None before they are known.
    """
    action = next((action for action in world.actions if action.action_id == action_id), None)
    if action is None:
        return answer("deny", "undeclared", "default", disclose=False)
    asked = Asked(action, facts, now_us, None if args is None else dict(args))
    layers = layers_of(world)
    everything = [policy for _, _, policies in layers for policy in policies]
    in_order = sorted(enumerate(everything), key=lambda entry: (-entry[1].priority, entry[0]))
    applying = [policy for _, policy in in_order if applies(policy, asked, hoped)]

    def of_type(name):
        return [policy for policy in applying if policy.type == name]

    def failed(last):
        return [
            policy.policy_id
            for policy in everything
            if policy.type in TYPES[: TYPES.index(last) + 1]
            and concerns(policy, action)
            and conditions_hold(policy, asked) == ERROR
        ]

    denying, approving, limiting, spending, allowing = map(of_type, TYPES)
    if denying:
        hidden = any(not policy.disclose for policy in denying)
        return answer("deny", denying[0].policy_id, "deny", denying, disclose=not hidden, errors=failed("deny"))
    closed = [
        name
        for name, default, policies in layers
        if default == "deny" and not any(policy in policies for policy in approving + allowing)
    ]
    limits = {policy.limit for policy in limiting}
    if approving and not approved and not closed:
        named = approving[0].policy_id
        errors = failed("require_approval")
        budgets = {policy.budget.budget_id for policy in spending}
        return answer(
            "require_approval", named, "require_approval", approving, limits=limits, errors=errors, budgets=budgets
        )
    if charges is None:
        limiting, spending = [], []
    waits = {policy.policy_id: wait_us(policy.limit, facts, now_us, charges) for policy in limiting}
    spent = [policy for policy in limiting if waits[policy.policy_id] > 0]
    if spent:
        retry = max(waits.values())
        return answer("deny", spent[0].policy_id, "rate_limit", spent, retry=retry, errors=failed("rate_limit"))
    costs = {policy.policy_id: cost_of(policy, asked) for policy in spending}
    waits = {
        policy.policy_id: room_wait_us(policy.budget, costs[policy.policy_id], facts, now_us, charges)
        for policy in spending
        if costs[policy.policy_id] is not None
    }
    refusing = [policy for policy in spending if waits.get(policy.policy_id) != 0]
    if refusing:
        mine = [waits.get(policy.policy_id) for policy in refusing]
        untold = {policy.policy_id for policy in spending if costs[policy.policy_id] is None}
        failing = untold | set(failed("budget"))
        errors = [policy.policy_id for policy in everything if policy.policy_id in failing]
        retry = None if None in mine else max(mine)
        return answer("deny", refusing[0].policy_id, "budget", refusing, retry=retry, errors=errors)
    if closed:
        return answer("deny", closed[0], "default", errors=failed("allow"))
    granted = approving or allowing
    taken = {"limits": limits, "budgets": {policy.budget.budget_id: costs[policy.policy_id] for policy in spending}}
    if granted:
        errors = failed("budget" if approving else "allow")
        return answer("allow", granted[0].policy_id, granted[0].type, granted, errors=errors, **taken)
    return answer("allow", "default", "default", errors=failed("allow"), **taken)


def answer(effect, policy_id, basis, determining=(), *, disclose=True, limits=(), budgets=(), retry=None, errors=()):
    return {
        "effect": effect,
        "policy_id": policy_id,
        "basis": basis,
        "determining": [policy.policy_id for policy in determining],
        "disclose": disclose,
        "limits": set(limits),
        "budgets": dict(budgets) if isinstance(budgets, dict) else set(budgets),
        "retry_after_us": retry,
        "errors": list(errors),
    }


def charge(world, action_id, decision, facts, now_us, *, charges, args, result):
    """What an allowed call adds to the charges; what its result settles, settled."""
    action = next(action for action in world.actions if action.action_id == action_id)
    asked = Asked(action, facts, now_us, args, result)
    added = [(limit.limit_id, counted_for(limit, facts), now_us, 1) for limit in decision["limits"]]
    everything = [*world.policies, *(policy for layer in world.overlays for policy in layer.policies)]
    for policy in everything:
        budget = policy.budget
        if budget is None or budget.budget_id not in decision["budgets"] or not decision["budgets"]:
            continue
        who = counted_for(budget, facts)
        times = [time for name, whose, time, _ in charges if (name, whose) == (budget.budget_id, who)]
        amount = decision["budgets"][budget.budget_id]
        if budget.reserve is not None and result is not None:
            told = cost_of(policy, asked)
            amount = amount if told is None else told
        added.append((budget.budget_id, who, max([now_us, *times]), amount))
    return added


def run_vector(vector, policy_from_manifest, default_effect):
    """Answer a conformance vector. Only reading the policies is left to the package."""
    given = vector["input"]
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate(given["policies"])]
    actions = [
        ActionFacts(
            action["action_id"],
            RiskTier(action.get("risk_tier", "low")),
            frozenset(action.get("capabilities", ())),
            cost=action.get("cost"),
        )
        for action in given["actions"]
    ]
    overlays = []
    for layer in given.get("overlays", ()):
        its = [
            policy_from_manifest(policy, order, namespace=layer["overlay_id"])
            for order, policy in enumerate(layer["policies"])
        ]
        overlays.append(Layer(layer["overlay_id"], tuple(its), default_effect(its, layer.get("default_effect"))))
    world = World(policies, actions, default_effect(policies, given.get("default_effect")), tuple(overlays))
    charges, decisions = [], []
    for call in given["calls"]:
        facts = Facts(**{**call["facts"], "task_risk": RiskTier(call["facts"].get("task_risk", "low"))})
        now_us = (datetime.fromisoformat(call["at"]) - EPOCH) // timedelta(microseconds=1)
        args, approved = call.get("args", {}), call.get("approved", False)
        waiting = []
        if args is None:
            decision, waiting = foresee(world, call["action_id"], facts, now_us)
        else:
            decision = decide(world, call["action_id"], facts, now_us, charges, approved=approved, args=args)
        if args is not None and decision["effect"] == "allow":
            charges.extend(
                charge(
                    world,
                    call["action_id"],
                    decision,
                    facts,
                    now_us,
                    charges=charges,
                    args=args,
                    result=call.get("result"),
                )
            )
        plain = {key: decision[key] for key in ("effect", "policy_id", "basis", "determining", "disclose")}
        if decision["retry_after_us"] is not None:
            plain["retry_after_seconds"] = math.ceil(decision["retry_after_us"] / 1_000_000)
        if decision["errors"]:
            plain["errors"] = decision["errors"]
        if waiting:
            plain["waiting"] = waiting
        decisions.append(plain)
    return {"decisions": decisions}
