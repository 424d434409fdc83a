"""Explanations: complete, masked, and at one with the engine."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from cra_mcp.policy.compiler import policy_from_manifest
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.explain import Shown, explain
from cra_mcp.policy.model import ActionFacts, Facts, Layer
from tests.policy.test_properties import calls, cases

NOON_US = 1_767_614_400_000_000  # Monday, 2026-01-05T12:00:00Z
PARAMETERS = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "to": {"type": "object", "properties": {"iban": {"type": "string"}, "country": {"type": "string"}}},
    },
}
REFUND = ActionFacts("payment.refund", parameters=PARAMETERS, cost=2.5)
BOT = Facts("bot", "s1", context={"env": "prod", "team": 5}, roles=frozenset({"agent", "clerk"}))


def explained(*policies, overlays=(), default="allow", facts=BOT, counters=None, at=NOON_US, **asked):
    compiled = [policy_from_manifest(policy, order) for order, policy in enumerate(policies)]
    policy_set = compile_policies(compiled, [REFUND], default, overlays)
    return explain(policy_set, REFUND, facts, counters or Counters(), at, **asked)


def only_part(explanation):
    (considered,) = explanation.policies
    (part,) = considered.parts
    return part


# --- at one with the engine --------------------------------------------------------------------------------------------


def worked_out(explanation):  # noqa: C901, PLR0911 - rows of a table
    """The decision, from what is explained beside it; the specification's table once more."""
    policies = explanation.policies

    def of_type(kind):
        return [each for each in policies if each.policy.type == kind and each.applies]

    def failed(*kinds):
        return {each.policy.policy_id for each in policies if each.policy.type in kinds and each.truth == "error"}

    def told(effect, basis, deciding, *kinds, wait=None):
        names = [each.policy.policy_id for each in deciding]
        return effect, names[0] if names else basis, basis, names, failed(*kinds), wait

    order = ("deny", "require_approval", "rate_limit", "budget", "allow")
    if of_type("deny"):
        return told("deny", "deny", of_type("deny"), *order[:1])
    closed = [layer for layer in explanation.layers if layer.closed]
    approving = of_type("require_approval")
    if approving and not explanation.approved and not closed:
        return told("require_approval", "require_approval", approving, *order[:2])
    spent = [each for each in of_type("rate_limit") if not each.room.fits]
    if spent:
        return told("deny", "rate_limit", spent, *order[:3], wait=max(each.room.wait_us for each in spent))
    refusing = [each for each in of_type("budget") if not each.room.fits]
    if refusing:
        waits = [each.room.wait_us for each in refusing]
        wait = None if None in waits else max(waits)
        effect, named, basis, names, errors, _ = told("deny", "budget", refusing, *order[:4])
        return (
            effect,
            named,
            basis,
            names,
            errors | {each.policy.policy_id for each in refusing if each.room.takes is None},
            wait,
        )
    if closed:
        named = f"{closed[0].overlay}/default" if closed[0].overlay else "default"
        return "deny", named, "default", [], failed(*order), None
    if approving:
        return told("allow", "require_approval", approving, *order[:4])
    if of_type("allow"):
        return told("allow", "allow", of_type("allow"), *order)
    return told("allow", "default", [], *order)


def check(oracle, case, history):
    """Every call of a history, explained and decided; and each policy's conditions as the specification reads them."""
    engine, counters, now_us = case.compile(), Counters(), case.now_us
    world = [(f"{layer.overlay_id}/{policy.policy_id}", policy) for layer in case.overlays for policy in layer.policies]
    world += [(policy.policy_id, policy) for policy in case.policies]
    for (action_id, later, approved, args, _), facts in history:
        now_us += later
        action = next((each for each in case.actions if each.action_id == action_id), ActionFacts(action_id))
        decision = engine.decide(action_id, facts, counters, now_us, approved=approved, args=args)
        found = explain(engine, action, facts, counters, now_us, args=args, approved=approved)
        assert found.decision == decision
        if decision.policy_id == "undeclared":
            assert (found.policies, found.layers) == ((), ())
            continue
        effect, policy_id, basis, determining, errors, wait = worked_out(found)
        assert (effect, policy_id, basis) == (decision.effect, decision.policy_id, decision.basis)
        assert (tuple(determining), errors) == (decision.determining, set(decision.errors))
        assert wait == decision.retry_after_us
        assert {each.policy.policy_id for each in found.policies if each.outcome == "decides"} == set(determining)
        by_id = {each.policy.policy_id: each for each in found.policies}
        assert len(by_id) == len(world)
        asked = oracle.Asked(action, facts, now_us, args)
        for policy_id, policy in world:
            each = by_id[policy_id]
            assert (each.glob is not None) == oracle.concerns(policy, action)
            if each.glob is not None:
                assert each.truth == oracle.conditions_hold(policy, asked)
                assert each.truth == oracle.all_of([part.truth for part in each.parts])
        json.dumps(found.to_dict(), allow_nan=False)
        check_foreseen(explain(engine, action, facts, counters, now_us), engine, facts, counters)
        if decision.effect == "allow":
            assert counters.take(decision.limits, facts, now_us, decision.charges)


def check_foreseen(found, engine, facts, counters):
    """Without arguments: what is foreseen, and nothing that needs them is evaluated."""
    waiting = {each.policy.policy_id for each in found.policies if each.truth == "unknown"}
    if found.arguments == "not_needed":
        assert not waiting
        assert found.decision == engine.decide(found.action_id, facts, counters, found.at_us)
        return
    assert found.decision == engine.foresee(found.action_id, facts, found.at_us)
    assert {each.policy_id for each in found.decision.waiting} <= waiting
    assert all(each.policy.may_read_args for each in found.policies if each.truth == "unknown")
    assert not any(name.startswith("args") for each in found.policies for part in each.parts for name in part.values)


@given(cases(), calls)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_explanation_tells_enough_to_work_out_what_the_engine_decides(oracle, case, history):
    check(oracle, case, history[:2])


@pytest.mark.long
@given(cases(max_size=12), calls)
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_explanation_tells_enough_to_work_out_the_decision_in_many_more_cases(oracle, case, history):
    check(oracle, case, history)


# --- what is told ------------------------------------------------------------------------------------------------------


def test_policies_come_in_the_order_of_evaluation_and_the_deciding_one_is_marked():
    overlay = Layer("operator", (policy_from_manifest({"policy_id": "all", "type": "allow"}, 1),), "deny")
    found = explained(
        {"policy_id": "let", "type": "allow"},
        {"policy_id": "ask", "type": "require_approval"},
        {"policy_id": "ask-first", "type": "require_approval", "priority": 3},
        {"policy_id": "no", "type": "deny", "conditions": {"agents": ["evil"]}},
        {"policy_id": "elsewhere", "type": "deny", "actions": ["other.*"]},
        overlays=(overlay,),
        default="deny",
    )
    told = [(each.policy.policy_id, each.outcome, each.consulted) for each in found.policies]
    assert told == [
        ("no", "does_not_apply", True),
        ("elsewhere", "other_actions", True),
        ("ask-first", "decides", True),
        ("ask", "decides", True),
        ("operator/all", "applies", False),
        ("let", "applies", False),
    ]
    assert [(layer.overlay, layer.covered, layer.closed) for layer in found.layers] == [
        ("operator", True, False),
        ("", True, False),
    ]
    assert found.to_dict()["layers"][1] == {
        "overlay": None,
        "default_effect": "deny",
        "covered": True,
        "closed": False,
    }


def test_a_layer_that_nothing_opens_is_told():
    found = explained(default="deny", args={})
    assert found.decision.basis == "default"
    assert [layer.closed for layer in found.layers] == [True]


def test_whether_a_layer_is_open_is_unknown_while_its_allow_waits():
    found = explained({"policy_id": "let", "type": "allow", "when": "args.amount < 5.0"}, default="deny")
    assert [layer.closed for layer in found.layers] == [None]
    assert [each.outcome for each in found.policies] == ["decides"]
    needs = explained({"policy_id": "ask", "type": "require_approval", "when": "args.amount < 5.0"})
    assert [each.outcome for each in needs.policies] == ["waits"]


@pytest.mark.parametrize(
    ("conditions", "truth", "wanted", "values", "missing"),
    [
        (
            {"risk_tiers": ["high", "low"]},
            "true",
            ["low", "high"],
            {"action.risk_tier": "low", "task.risk_tier": "low"},
            (),
        ),
        ({"capabilities": ["money"]}, "false", ["money"], {"action.capabilities": []}, ()),
        ({"agents": ["b*"]}, "true", ["b*"], {"agent.id": "bot"}, ()),
        ({"principals": ["ann"]}, "false", ["ann"], {"principal.subject": "local"}, ()),
        ({"roles": ["clerk"]}, "true", ["clerk"], {"principal.roles": ["agent", "clerk"]}, ()),
        ({"context_matches": {"env": "dev"}}, "false", "dev", {"context.env": "prod"}, ()),
        ({"context_matches": {"team": "*"}}, "error", "*", {"context.team": 5}, ()),
        ({"context_matches": {"zone": "*"}}, "error", "*", {}, ("context.zone",)),
        (
            {"time_window": {"start": "09:00", "end": "24:00", "timezone": "Europe/Berlin", "days": ["tue", "mon"]}},
            "true",
            {"start": "09:00", "end": "24:00", "timezone": "Europe/Berlin", "days": ["mon", "tue"]},
            {"now": "2026-01-05T12:00:00.000000Z", "now in Europe/Berlin": "mon 13:00:00"},
            (),
        ),
        (
            {"time_window": {"start": "22:00", "end": "06:00"}},
            "false",
            {"start": "22:00", "end": "06:00", "timezone": "UTC"},
            {"now": "2026-01-05T12:00:00.000000Z", "now in UTC": "mon 12:00:00"},
            (),
        ),
    ],
)
def test_a_condition_is_told_with_what_it_wants_and_what_it_read(conditions, truth, wanted, values, missing):
    part = only_part(explained({"policy_id": "p", "type": "deny", "conditions": conditions}))
    assert (part.truth, part.wanted, part.values, part.missing) == (truth, wanted, values, missing)
    assert part.to_dict()["result"] == truth
    assert ("missing" in part.to_dict()) == bool(missing)


def test_an_instant_beyond_the_calendar_is_told_as_the_number_it_is():
    window = {"conditions": {"time_window": {"start": "09:00", "end": "17:00"}}}
    part = only_part(explained({"policy_id": "p", "type": "deny", **window}, at=10**20))
    assert (part.truth, part.values) == ("error", {"now": "100000000000000000000"})


def test_an_expression_is_told_with_every_value_it_read_and_what_is_missing():
    expression = "args.amount > 5.0 || args.to.country == context.home || has(args.to.iban) || has(context.env) || agent.id == 'x'"
    part = only_part(explained({"policy_id": "p", "type": "deny", "when": expression}, args={"amount": 2, "to": {}}))
    assert part.truth == "true"
    assert part.values == {
        "args.amount": 2,
        "has(args.to.iban)": False,
        "has(context.env)": True,
        "agent.id": "bot",
    }
    assert part.missing == ("args.to.country", "context.home")


def test_what_cannot_be_asked_for_is_missing_too():
    part = only_part(explained({"policy_id": "p", "type": "deny", "when": "has(args.to.iban)"}, args={}))
    assert (part.truth, part.values, part.missing) == ("error", {}, ("args.to",))


@pytest.mark.parametrize(
    ("when", "args", "told"),
    [
        ("args.to.iban == 'DE1'", {"to": {"iban": "DE1\0x"}}, ("args.to.iban holds a NUL character",)),
        ("args.to.iban == 'DE1'", {"to": {"iban": "\ud800"}}, ("args.to.iban holds half a surrogate pair",)),
        ("size(args.to) == 1", {"to": {"DE\0": 1}}, ("args.to holds a NUL character",)),
        ("args.amount > 5.0", {"amount": 2**53}, ("args.amount holds a whole number beyond 9007199254740991",)),
        ("args.amount > 5.0", {"amount": float("inf")}, ("args.amount holds a number that is not finite",)),
        ("size(args.to) == 1", {"to": {"x": {1, 2}}}, ("args.to holds something that is not JSON",)),
        ("size(args.to) == 1", {"to": {1: 2}}, ("args.to holds something that is not JSON",)),
        ("args.to.iban == 'DE1'", {"to": {"iban": 5}}, ()),
        ("args.to.iban == 'DE1'", {"to": {}}, ()),
    ],
)
def test_what_an_expression_cannot_be_given_exactly_is_said_in_words(when, args, told):
    part = only_part(explained({"policy_id": "p", "type": "deny", "when": when}, args=args))
    assert (part.truth, part.withheld) == ("error", told)
    assert part.to_dict().get("withheld", []) == list(told)


def test_names_and_context_that_an_expression_cannot_be_given_are_told_too():
    facts = Facts("bot\0", "s1", context={"env": {"deep": ["prod\0"]}, "more": 2**60}, roles=frozenset({"a\0"}))
    when = "agent.id == 'bot' || context.env.deep[0] == 'prod' || context.more == 1 || 'a' in principal.roles || size(context) == 1"
    part = only_part(explained({"policy_id": "p", "type": "deny", "when": when}, facts=facts, args={}))
    assert part.withheld == (
        "agent.id holds a NUL character",
        "principal.roles holds a NUL character",
        "context.env holds a NUL character",
        "context.more holds a whole number beyond 9007199254740991",
        "context holds a NUL character",
    )


def test_a_budget_says_what_keeps_it_from_telling_a_cost():
    parameters = {"max_cost": 6, "unit": "usd", "window_seconds": 60, "cost": "size(args.to.iban)"}
    found = explained({"policy_id": "p", "type": "budget", "parameters": parameters}, args={"to": {"iban": "1\0"}})
    assert found.decision.effect == "deny"
    assert found.policies[0].room.to_dict()["withheld"] == ["args.to.iban holds a NUL character"]


def test_arguments_that_break_a_schema_are_told_by_place_and_keyword_without_values():
    schema = {"properties": {"to": {"properties": {"iban": {"pattern": "^DE"}}}}}
    policy = {"policy_id": "p", "type": "allow", "conditions": {"arguments": schema}}
    args = {"to": {"iban": "FR1"}}
    part = only_part(explained(policy, args=args, shown=Shown({"to": {"iban": "[redacted]"}}, {})))
    assert (part.truth, part.wanted, part.faults) == ("false", schema, ("/to/iban: pattern",))
    assert "FR1" not in json.dumps(part.to_dict())
    assert only_part(explained(policy, args={})).truth == "true"
    assert only_part(explained(policy)).to_dict() == {
        "condition": "arguments",
        "result": "unknown",
        "wanted": schema,
        "read": {},
    }


def test_what_is_hidden_is_shown_as_what_stands_in_its_place_even_where_more_is_hidden():
    policy = {"policy_id": "p", "type": "deny", "when": "args.to.iban == 'DE1' && context.env == 'prod'"}
    shown = Shown({"to": "[redacted]"}, {"env": "[redacted]"})
    part = only_part(explained(policy, args={"to": {"iban": "DE1"}}, shown=shown))
    assert part.truth == "true"
    assert part.values == {"args.to.iban": "[redacted]", "context.env": "[redacted]"}


def test_a_condition_that_fails_is_said_to_fail_closed():
    found = explained({"policy_id": "p", "type": "deny", "conditions": {"context_matches": {"zone": "*"}}})
    told = found.to_dict()["policies"][0]
    assert (told["result"], told["failed_closed"], told["outcome"]) == ("error", True, "decides")
    lax = explained({"policy_id": "p", "type": "allow", "conditions": {"context_matches": {"zone": "*"}}})
    assert not lax.policies[0].applies


def test_limits_and_budgets_tell_what_is_spent_and_how_long_to_wait():
    window = {"window_seconds": 60}
    policies = (
        {"policy_id": "two", "type": "rate_limit", "parameters": {"max_calls": 2, **window}},
        {"policy_id": "money", "type": "budget", "parameters": {"max_cost": 6, "unit": "usd", **window}},
    )
    counters = Counters()
    for _ in range(2):
        decision = explained(*policies, counters=counters, args={}).decision
        assert counters.take(decision.limits, BOT, NOON_US, decision.charges)
    found = explained(*policies, counters=counters, args={}, at=NOON_US + 500_000)
    limit, budget = (each.to_dict() for each in found.policies)
    assert (limit["outcome"], budget["outcome"], budget["consulted"]) == ("decides", "applies", False)
    shared = {"window_seconds": 60, "scope": "agent", "fits": False, "wait_seconds": 60}
    assert limit["room"] == {"unit": "calls", "maximum": 2, "spent": 2, "takes": 1, **shared}
    assert budget["room"] == {"unit": "usd", "maximum": 6, "spent": 5, "takes": 2.5, **shared}


def test_a_budget_whose_cost_the_arguments_tell_waits_for_them_and_one_that_cannot_tell_refuses():
    parameters = {"max_cost": 6, "unit": "usd", "window_seconds": 60, "cost": "args.amount"}
    policy = {"policy_id": "money", "type": "budget", "parameters": parameters}
    unknown = explained(policy)
    assert (unknown.arguments, unknown.policies[0].room.fits) == ("unknown", None)
    assert unknown.policies[0].to_dict()["room"]["wait_seconds"] is None
    untold = explained(policy, args={}).policies[0]
    assert (untold.outcome, untold.room.fits, untold.room.takes) == ("decides", False, None)
    reserving = {**policy, "parameters": {**parameters, "cost": "result.price", "reserve": 1}}
    held = explained(reserving)
    assert (held.arguments, held.policies[0].room.takes) == ("not_needed", 1_000_000)


def test_an_undeclared_action_has_nothing_to_explain():
    policy_set = compile_policies([], [REFUND], "allow")
    found = explain(policy_set, replace(REFUND, action_id="payment.steal"), BOT, Counters(), NOON_US)
    assert found.to_dict()["decision"]["policy_id"] == "undeclared"
    assert (found.policies, found.layers) == ((), ())
