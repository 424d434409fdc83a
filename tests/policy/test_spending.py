"""Budgets: charges added up over a sliding window, exactly and in bounded space."""

from dataclasses import replace

import pytest

from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.model import MICRO, ActionFacts, Budget, Charge, Conditions, Facts, Limit, Policy
from cra_mcp.policy.spending import MAX_ENTRIES, Spending

BUDGET = Budget("b", 10, 100)
FACTS = Facts("bot", "s1")


def charge(amount, budget=BUDGET):
    return Charge(budget, amount, "b")


def test_a_charge_fits_until_the_window_is_full_and_again_when_enough_has_left_it():
    counters = Counters()
    assert counters.take((), FACTS, 0, [charge(6)])
    assert counters.take((), FACTS, 50, [charge(4)])
    assert not counters.take((), FACTS, 60, [charge(1)])
    assert counters.room_after_us(charge(1), FACTS, 60) == 40
    assert counters.room_after_us(charge(7), FACTS, 60) == 90
    assert counters.room_after_us(charge(10), FACTS, 60) == 90
    assert counters.room_after_us(charge(11), FACTS, 60) is None
    assert counters.room_after_us(charge(11), Facts("new", "s"), 60) is None
    assert counters.room_after_us(charge(10), Facts("new", "s"), 60) == 0
    assert counters.take((), FACTS, 100, [charge(6)])
    assert counters.cost(charge(0), FACTS, 100) == 10
    assert counters.cost(charge(0), Facts("new", "s"), 100) == 0


def test_a_clock_that_goes_back_frees_nothing():
    counters = Counters()
    assert counters.take((), FACTS, 1_000, [charge(10)])
    assert counters.room_after_us(charge(1), FACTS, 10) == 1_090
    assert not counters.take((), FACTS, 10, [charge(1)])
    assert not counters.take((), FACTS, 1_099, [charge(1)])
    assert counters.take((), FACTS, 1_100, [charge(1)]), "who waits as long as told gets in"


def test_a_cost_above_the_budget_keeps_others_out_until_it_has_left():
    counters = Counters()
    assert counters.take((), FACTS, 0, [charge(1)])
    counters.settle(charge(1), FACTS, 0, 25)
    assert counters.room_after_us(charge(0), FACTS, 0) == 100
    counters.settle(charge(1), Facts("nobody", "s"), 0, 25)
    counters.settle(charge(1), FACTS, 5_000, 25)  # nothing was charged then
    assert counters.cost(charge(0), FACTS, 0) == 25


def test_of_two_charges_at_once_the_one_that_fits_is_settled():
    spending = Spending(100)
    spending.charge(2, 0)
    spending.charge(5, 0)
    spending.correct(0, 5, 1)
    assert spending.amounts == [2, 1]


def test_many_charges_take_bounded_space_and_never_let_more_in():
    spending, budget = Spending(10**9), Budget("b", 10**9, 10**9)
    for at in range(MAX_ENTRIES * 3):
        spending.charge(1, at)
        assert len(spending.times) <= MAX_ENTRIES
    assert spending.within(10**9, MAX_ENTRIES * 3) == MAX_ENTRIES * 3
    assert spending.times == sorted(spending.times)
    exact = Spending(10**9)
    exact.times, exact.amounts = list(range(MAX_ENTRIES * 3)), [1] * (MAX_ENTRIES * 3)
    for now_us in range(10**9, 10**9 + MAX_ENTRIES * 3, 997):
        assert spending.within(10**9, now_us) >= exact.within(10**9, now_us)
    assert spending.room_after_us(budget, 10**9, 0) == exact.room_after_us(budget, 10**9, 0)


@pytest.mark.parametrize("gaps", [(1_000,), (1, 1, 70_000), (0, 0, 0, 90_000), (439,)])
def test_the_wait_for_a_budget_is_at_most_a_hundredth_of_the_window_longer_than_need_be(gaps):
    window_us = 3_600_000
    spending, exact, at = Spending(window_us), Spending(window_us), 0
    budget = Budget("b", 10**12, window_us)
    for number in range(MAX_ENTRIES * 3):
        at += gaps[number % len(gaps)]
        spending.charge(number % 7, at)
        exact.times.append(at)
        exact.amounts.append(number % 7)
    assert len(spending.times) < MAX_ENTRIES
    held = exact.within(window_us, at)
    for part in range(20):
        asked = replace(budget, max_cost=held + 10 - part * held // 20)
        true, told = exact.room_after_us(asked, 10, at), spending.room_after_us(asked, 10, at)
        assert true <= told <= true + window_us // 100


def test_counters_of_budgets_are_forgotten_when_their_window_is_over():
    counters = Counters()
    for agent in range(1_024):
        counters.take((), Facts(f"a{agent}", "s"), agent // 1_000 * 1_000, [charge(1)])
    assert len(counters) <= 100
    assert Spending(5).is_over(0)


def test_a_policy_and_its_budget_must_go_together():
    actions = [ActionFacts("t.read")]
    for policy in (
        Policy("p", "budget"),
        Policy("p", "deny", budget=BUDGET),
        Policy("p", "budget", budget=replace(BUDGET, max_cost=-1)),
        Policy("p", "budget", budget=replace(BUDGET, window_us=0)),
    ):
        with pytest.raises(ValueError, match="policy p: a budget"):
            compile_policies([policy], actions, "allow")
    twice = [Policy("p", "budget", budget=BUDGET), Policy("q", "budget", budget=BUDGET)]
    with pytest.raises(ValueError, match="budget b is declared twice"):
        compile_policies(twice, actions, "allow")


def test_a_cost_by_the_arguments_needs_them_and_one_that_is_known_does_not():
    from cra_mcp.policy.expression import parse_expression  # noqa: PLC0415

    action = ActionFacts("t.read", parameters={"type": "object", "properties": {"n": {"type": "integer"}}})
    by_args = replace(BUDGET, unit="usd", cost=parse_expression("args.n", "cost"))
    for budget, needs in ((BUDGET, False), (by_args, True)):
        engine = compile_policies([Policy("b", "budget", budget=budget)], [action], "allow")
        assert engine.reads_args("t.read", FACTS) is needs


def test_nothing_is_foreseen_of_what_is_not_declared():
    engine = compile_policies([], [ActionFacts("t.read")], "allow")
    assert engine.foresee("t.none", FACTS, 0).policy_id == "undeclared"
    assert not engine.reads_args("t.none", FACTS)


def test_a_schema_and_an_expression_must_both_hold_and_one_that_is_false_settles_it():
    from cra_mcp.policy.expression import parse_expression  # noqa: PLC0415

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    policy = Policy(
        "p",
        "deny",
        conditions=Conditions(arguments='{"required":["x"],"properties":{"x":{"type":["integer","string"]}}}'),
        when=parse_expression("args.n > 1"),
    )
    engine = compile_policies([policy], [ActionFacts("t.read", parameters=schema)], "allow")
    for args, effect, errors in (
        ({"x": 1, "n": 2}, "deny", ()),
        ({"n": 2}, "allow", ()),
        ({"x": 1, "n": 1}, "allow", ()),
        ({"x": 1}, "deny", ("p",)),
        ({}, "allow", ()),
        ({"x": object(), "n": 2}, "deny", ("p",)),
        ({"x": object(), "n": 1}, "allow", ()),
    ):
        decision = engine.decide("t.read", FACTS, Counters(), 0, args=args)
        assert (decision.effect, decision.errors) == (effect, errors), args


def test_an_allow_that_waits_for_the_arguments_is_told_only_where_it_matters():
    from cra_mcp.policy.expression import parse_expression  # noqa: PLC0415

    action = ActionFacts("t.read", parameters={"type": "object", "properties": {"n": {"type": "integer"}}})
    small = Policy("small", "allow", when=parse_expression("args.n < 5"))

    def waiting(*policies, default="deny"):
        foreseen = compile_policies([small, *policies], [action], default).foresee("t.read", FACTS, 0)
        return foreseen.effect, [each.policy_id for each in foreseen.waiting]

    assert waiting() == ("allow", ["small"])
    assert waiting(default="allow") == ("allow", [])
    assert waiting(Policy("all", "allow", order=1)) == ("allow", [])
    assert waiting(Policy("no", "deny", order=1)) == ("deny", [])
    asks = Policy("ask", "require_approval", when=parse_expression("args.n > 7"), order=1)
    assert waiting(asks) == ("allow", ["small", "ask"])
    never = replace(small, when=parse_expression("agent.id == 'nobody'"))
    alone = compile_policies([never, asks], [action], "deny").foresee("t.read", FACTS, 0)
    assert (alone.effect, [each.policy_id for each in alone.waiting]) == ("require_approval", ["ask"])


def test_rate_limits_and_budgets_are_taken_together_or_not_at_all():
    counters, limit = Counters(), Limit("l", 1, 100)
    dear = charge(11 * MICRO)
    assert not counters.take([limit], FACTS, 0, [dear])
    assert counters.take([limit], FACTS, 0, [charge(10)])
    assert not counters.take([limit], FACTS, 0, [charge(0)])
    counters.give_back([limit], FACTS, 0, [charge(10)])
    assert (counters.spent(limit, FACTS, 0), counters.cost(charge(0), FACTS, 0)) == (0, 0)
