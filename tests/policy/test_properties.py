"""The engine against the literal reading of its specification, and laws that hold for all policies."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from threading import Barrier
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.expression import parse_expression
from cra_mcp.policy.model import (
    ActionFacts,
    Budget,
    Conditions,
    Facts,
    Layer,
    Limit,
    Policy,
    RiskTier,
    TimeWindow,
)

MINUTE_US = 60_000_000
SPRING_FORWARD_US = 1_774_746_000_000_000  # 2026-03-29T01:00:00Z: Berlin's clocks skip from 02:00 to 03:00
WIDTH = {"allow": 2, "require_approval": 1, "deny": 0}

ACTION_IDS = ("ticket.read", "ticket.delete", "ticket.note.delete", "payment.refund")
GLOBS = ["*", "ticket.*", "*.delete", "ticket.read", "*.*.delete", "*d", "pay*re*nd", "none.*"]
WINDOWS = [
    TimeWindow(start, end, zone, frozenset(days))
    for start, end in ((0, 0), (0, 1_440), (90, 150), (150, 180), (540, 1_020), (1_380, 150), (540, 540))
    for zone in ("UTC", "Europe/Berlin")
    for days in ((), (0, 2, 6))
]
CONDITIONS = [
    Conditions(frozenset(risk), agents, frozenset(capabilities), context, window, principals, frozenset(roles))
    for risk, agents, capabilities, context, window, (principals, roles) in product(
        ((), (RiskTier.HIGH,), (RiskTier.LOW, RiskTier.MEDIUM)),
        ((), ("bot",), ("bot-*", "human"), ("*-1",)),
        ((), ("money",), ("money", "tickets")),
        ((), (("env", "prod*"),), (("env", "dev"), ("team", "*")), (("team", "p*d"),)),
        (None, None, *WINDOWS),
        (((), ()), ((), ()), (("ann", "svc-*"), ()), ((), ("operator", "auditor")), (("*n",), ("agent",))),
    )
]
VALUES = ("prod", "prod-eu", "dev", 5, None, ["prod"])
CONTEXTS = [
    {},
    *({"env": value, "unused": "x"} for value in VALUES),
    *({"env": one, "team": other} for one in VALUES for other in VALUES),
]
PRINCIPALS = (("local", ()), ("ann", ("agent",)), ("svc-1", ("agent", "operator")))
REQUESTERS = [
    Facts(agent, session, tenant, tier, context, subject, frozenset(roles))
    for agent, session, tenant, tier, context, (subject, roles) in product(
        ("bot", "bot-1", "human"), ("s1", "s2"), ("default", "other"), RiskTier, CONTEXTS, PRINCIPALS
    )
]
LIMITS = [
    (max_calls, minutes * MINUTE_US, scope)
    for max_calls, minutes, scope in product((1, 2, 3), (1, 3), ("session", "agent", "tenant", "global"))
]

PARAMETERS = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "count": {"type": "integer"},
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "to": {"type": "object", "properties": {"country": {"type": "string"}}},
    },
}
ARGUMENTS = [
    {},
    {"amount": 501},
    {"amount": 500.5, "count": 3},
    {"amount": 20, "count": 4.0, "name": "admin"},
    {"amount": -1, "count": 0, "name": "Ad", "tags": []},
    {"amount": "501", "count": "3", "name": 5, "tags": "root", "to": "DE"},
    {"amount": True, "count": True, "name": None, "tags": [1], "to": {"country": 5}},
    {"amount": 1e300, "count": 2.5, "tags": ["root", "users"], "to": {"country": "DE"}},
    {"count": 1, "name": "add", "tags": ["a"], "to": {}},
]
RESULTS = [None, {"price": 0.25}, {"price": 3}, {"price": "3"}, {}, {"price": -1}]
TERMS = (
    "true", "args.amount > 500", "args.amount <= 20.5", "args.count == 3", "args.count * 2 > 7", "1 / args.count >= 1",
    "args.name.startsWith('ad')", "args.name.matches('^[a-z]+$')", "'root' in args.tags",
    "args.tags.all(tag, tag.size() < 5)", "has(args.name)", "args.to.country == 'DE'", "has(args.to.country)",
    "size(args) > 1", "agent.id == 'bot'", "session.tenant != 'default'", "action.id.endsWith('delete')",
    "'money' in action.capabilities", "task.risk_tier in ['high', 'critical']", "context.env == 'prod'",
    "has(context.team)", "'operator' in principal.roles", "now.getHours('Europe/Berlin') < 12",
)  # fmt: skip
WHENS = [
    parse_expression(text)
    for text in (
        *TERMS,
        *(f"!({term})" for term in TERMS),
        *(f"({one}) && ({other})" for one in TERMS[::2] for other in TERMS[1::3]),
        *(f"({one}) || ({other})" for one in TERMS[1::2] for other in TERMS[::3]),
    )
]
SCHEMAS = (
    '{"properties":{"amount":{"maximum":100}}}',
    '{"required":["name"]}',
    '{"properties":{"name":{"pattern":"^ad"}},"required":["name","count"]}',
)
BUDGETS = [
    (max_cost, minutes * MINUTE_US, unit, scope, *cost)
    for max_cost, minutes, (unit, *cost), scope in product(
        (0, 2_000_000, 3_500_000),
        (1, 3),
        (
            ("calls", None, None),
            ("usd", None, None),
            ("usd", parse_expression("args.amount", "cost"), None),
            ("usd", parse_expression("double(args.count) * 0.1", "cost"), None),
            ("usd", parse_expression("result.price", "cost"), 1_000_000),
        ),
        ("session", "agent", "tenant", "global"),
    )
]

# Few draws an example: hypothesis spends far longer drawing than the engine spends deciding.
conditions = st.sampled_from(
    [
        *[Conditions()] * (len(CONDITIONS) // 3),
        *CONDITIONS,
        *(replace(each, arguments=SCHEMAS[at % 3]) for at, each in enumerate(CONDITIONS[::6])),
        *[Conditions(arguments=schema) for schema in SCHEMAS] * (len(CONDITIONS) // 30),
    ]
)
whens = st.sampled_from([*[None] * len(WHENS), *WHENS])
requesters = st.sampled_from(REQUESTERS)
profiles = st.sampled_from(list(product(RiskTier, (frozenset(), frozenset({"money"}), frozenset({"tickets"})))))
actions = st.tuples(profiles, profiles).map(
    lambda drawn: [
        ActionFacts(name, *profile, parameters=PARAMETERS, cost=cost)
        for name, profile, cost in zip(ACTION_IDS, drawn * 2, (None, 0.1, 2, 1.75), strict=True)
    ]
)


def policies(policy_id, kind, order=0):
    limits = [Limit(policy_id, *limit) for limit in LIMITS] if kind == "rate_limit" else [None]
    budgets = [Budget(policy_id, *budget) for budget in BUDGETS] if kind == "budget" else [None]
    styles = [
        {"actions": actions, "priority": priority, "disclose": disclose, "limit": limit, "budget": budget}
        for actions, priority, disclose, limit, budget in product(
            (*((glob,) for glob in GLOBS), ("ticket.read", "pay*")),
            (0, 1, -1),
            (True, True, False) if kind == "deny" else (True,),
            limits,
            budgets,
        )
    ]
    return st.tuples(st.sampled_from(styles), conditions, whens).map(
        lambda drawn: Policy(policy_id, kind, conditions=drawn[1], order=order, when=drawn[2], **drawn[0])
    )


POLICIES = {
    (order, kind): policies(f"p{order}", kind, order)
    for order in range(12)
    for kind in ("deny", "require_approval", "rate_limit", "budget", "allow")
}


@st.composite
def policy_lists(draw, max_size=6, types=("deny", "require_approval", "rate_limit", "budget", "allow")):
    kinds = draw(st.lists(st.sampled_from(types), max_size=max_size))
    return [draw(POLICIES[order, kind]) for order, kind in enumerate(kinds)]


effects = st.sampled_from(["allow", "deny"])


@st.composite
def layer_lists(draw):
    """Mostly none, sometimes one or two, with counters of their own."""
    layers = []
    for name in draw(st.sampled_from([(), (), (), ("operator",), ("operator", "pack")])):
        its = tuple(renamed(policy, name) for policy in draw(policy_lists(max_size=3)))
        layers.append(Layer(name, its, draw(effects)))
    return tuple(layers)


def renamed(policy, name):
    """With a counter of its own, if it has one."""
    limit, budget = policy.limit, policy.budget
    return replace(
        policy,
        limit=limit and replace(limit, limit_id=f"{name}/{limit.limit_id}"),
        budget=budget and replace(budget, budget_id=f"{name}/{budget.budget_id}"),
    )


starts = st.one_of(
    st.integers(SPRING_FORWARD_US - 240 * MINUTE_US, SPRING_FORWARD_US + 240 * MINUTE_US),
    st.integers(1_767_225_600_000_000, 1_798_761_600_000_000),
)
GAPS = (0, 1, 30_000_000, MINUTE_US - 1, MINUTE_US, 3 * MINUTE_US, 47 * MINUTE_US, 31 * 60 * MINUTE_US)
calls = st.lists(
    st.tuples(
        st.sampled_from(list(product((*ACTION_IDS, "ticket.unknown"), GAPS, (False, True), ARGUMENTS, RESULTS))),
        requesters,
    ),
    min_size=1,
    max_size=8,
)
LAWS = []
slow = (HealthCheck.too_slow, HealthCheck.data_too_large)


def law(*strategies):
    """What holds for all policies: checked in a few cases each time, and in 10,000 in the long run."""

    def decorate(check):
        LAWS.append(settings(max_examples=10_000, deadline=None, suppress_health_check=slow)(given(*strategies)(check)))
        return settings(max_examples=150, deadline=None)(given(*strategies)(check))

    return decorate


class Case(NamedTuple):
    policies: list
    actions: list
    default: str
    facts: Facts
    now_us: int
    args: dict
    overlays: tuple = ()

    def compile(self, *extra):
        return compile_policies([*self.policies, *extra], self.actions, self.default, self.overlays)

    def decide(self, engine, action_id, *, approved=False):
        return engine.decide(action_id, self.facts, Counters(), self.now_us, approved=approved, args=self.args)


def cases(*, overlays=None, **kwargs):
    layers = layer_lists() if overlays is None else st.just(overlays)
    return st.builds(
        Case, policy_lists(**kwargs), actions, effects, requesters, starts, st.sampled_from(ARGUMENTS), layers
    )


def as_answer(decision):
    return {
        "effect": decision.effect,
        "policy_id": decision.policy_id,
        "basis": decision.basis,
        "determining": list(decision.determining),
        "disclose": decision.disclose,
        "limits": set(decision.limits),
        "budgets": {charge.budget.budget_id: charge.amount for charge in decision.charges}
        if decision.effect == "allow"
        else {charge.budget.budget_id for charge in decision.charges},
        "retry_after_us": decision.retry_after_us,
        "errors": list(decision.errors),
    }


def compare(oracle, case, history):
    """Play one history of calls through both; an allowed call is charged before the next."""
    engine, counters, charges, now_us = case.compile(), Counters(), [], case.now_us
    world = oracle.World(case.policies, case.actions, case.default, case.overlays)
    for (action_id, later, approved, args, result), facts in history:
        now_us += later
        expected = oracle.decide(world, action_id, facts, now_us, charges, approved=approved, args=args)
        decision = engine.decide(action_id, facts, counters, now_us, approved=approved, args=args)
        assert as_answer(decision) == {**expected, "budgets": expected["budgets"] or as_answer(decision)["budgets"]}
        assert bool(expected["budgets"]) == bool(decision.charges)
        if decision.effect == "allow":
            assert counters.take(decision.limits, facts, now_us, decision.charges)
            charges.extend(
                oracle.charge(world, action_id, expected, facts, now_us, charges=charges, args=args, result=result)
            )
            if result is not None:
                for charge, cost in engine.settle(action_id, decision.charges, Inputs(facts, now_us, args, result)):
                    if cost is not None:
                        counters.settle(charge, facts, now_us, cost)


@given(cases(), calls)
@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_engine_decides_as_the_specification_reads(oracle, case, history):
    compare(oracle, case, history)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_the_engine_decides_as_the_specification_reads_in_a_hundred_thousand_cases(oracle, part):
    """In parts, for the cores to share. Each has a seed of its own: two of the same would show the same."""

    @seed(part)
    @given(cases(max_size=12), calls)
    @settings(max_examples=10_000, deadline=None, suppress_health_check=slow)
    def holds(case, history):
        compare(oracle, case, history)

    holds()


@law(cases())
def test_a_preview_says_of_every_action_what_an_unspent_call_would_be_told(case):
    """Of what does not depend on the arguments, and of what no budget refuses at once."""
    engine = case.compile()
    for action, foreseen in zip(case.actions, engine.preview(case.facts, case.now_us), strict=True):
        assert engine.foresee(action.action_id, case.facts, case.now_us) == foreseen
        asked = case.decide(engine, action.action_id)
        if not engine.reads_args(action.action_id, case.facts) and asked.basis != "budget":
            assert replace(asked, charges=()) == replace(foreseen, charges=())


@law(cases())
def test_no_arguments_are_told_more_than_was_foreseen(case):
    engine = case.compile()
    for action in case.actions:
        foreseen = engine.foresee(action.action_id, case.facts, case.now_us)
        for args in ARGUMENTS:
            asked = case._replace(args=args).decide(engine, action.action_id)
            assert WIDTH[asked.effect] <= WIDTH[foreseen.effect]
            if foreseen.effect == "deny":
                assert asked.effect == "deny"


def is_wider(case, engine, action_id, now, was):
    """Whether more is possible than ``was`` said. Limits are asked after consent: to be asked for it before is no more."""
    if was.basis in {"rate_limit", "budget"} and now.effect == "require_approval":
        now = case.decide(engine, action_id, approved=True)
    return WIDTH[now.effect] > WIDTH[was.effect]


@law(cases(overlays=()), layer_lists(), st.booleans())
def test_an_overlay_never_widens_what_is_possible(case, overlays, approved):
    before, after = case.compile(), case._replace(overlays=overlays).compile()
    for action in case.actions:
        was = case.decide(before, action.action_id, approved=approved)
        now = case.decide(after, action.action_id, approved=approved)
        assert not is_wider(case, after, action.action_id, now, was)


@law(layer_lists().filter(bool), cases(overlays=()), st.booleans())
def test_no_atlas_loosens_what_the_operator_says(overlays, case, approved):
    """Whatever an atlas says: what the overlays alone would refuse, they refuse."""
    alone = case._replace(policies=[], default="allow", overlays=overlays)
    strict, both = alone.compile(), case._replace(overlays=overlays).compile()
    for action in case.actions:
        bound = alone.decide(strict, action.action_id, approved=approved)
        now = case.decide(both, action.action_id, approved=approved)
        if not approved:
            assert not is_wider(case, both, action.action_id, now, bound)
        elif bound.effect == "deny":
            assert now.effect == "deny"


@law(cases(), requesters, starts)
def test_equal_outcomes_have_equal_previews(case, facts, later_us):
    engine = case.compile()
    if engine.outcome(case.facts, case.now_us) == engine.outcome(facts, later_us):
        assert engine.preview(case.facts, case.now_us) == case.compile().preview(facts, later_us)


@law(cases())
def test_nothing_changes_before_the_next_boundary_save_what_reads_the_clock_itself(case):
    case = case._replace(policies=timeless(case.policies), overlays=())
    engine = case.compile()
    boundary = engine.next_boundary(case.now_us)
    assert boundary is None or boundary > case.now_us
    last_us = case.now_us + 7 * 1_440 * MINUTE_US if boundary is None else boundary - 1
    fresh = case.compile()
    for instant in {case.now_us + (last_us - case.now_us) * part // 7 for part in range(8)}:
        assert fresh.outcome(case.facts, instant) == engine.outcome(case.facts, case.now_us)


def timeless(policies):
    return [
        replace(policy, when=None) if policy.when is not None and "now" in policy.when.fields else policy
        for policy in policies
    ]


@law(cases(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_policies_changes_only_which_one_is_named(case, random, approved):
    shuffled = random.sample(case.policies, len(case.policies))
    other_case = case._replace(policies=[replace(policy, order=order) for order, policy in enumerate(shuffled)])
    for action in case.actions:
        one = case.decide(case.compile(), action.action_id, approved=approved)
        other = case.decide(other_case.compile(), action.action_id, approved=approved)
        assert unordered(one) == unordered(other)
        assert one.policy_id in other.determining or one.basis == "default"


def unordered(decision):
    """All that must not depend on the order of policies."""
    sets = (frozenset(decision.determining), frozenset(decision.limits), frozenset(decision.errors))
    return decision.effect, decision.basis, decision.disclose, *sets


@law(cases(), policies("extra", "deny", 99), st.booleans())
def test_adding_a_deny_never_widens_what_is_possible(case, extra, approved):
    before, after = case.compile(), case.compile(extra)
    for action in case.actions:
        was = case.decide(before, action.action_id, approved=approved)
        now = case.decide(after, action.action_id, approved=approved)
        assert WIDTH[now.effect] <= WIDTH[was.effect]
        assert was.disclose or not now.disclose


@law(cases(), policies("extra", "allow", 99), st.booleans())
def test_adding_an_allow_changes_only_what_an_allow_or_the_default_decided(case, extra, approved):
    before, after = case.compile(), case.compile(extra)
    for action in case.actions:
        was = case.decide(before, action.action_id, approved=approved)
        now = case.decide(after, action.action_id, approved=approved)
        if was.basis in {"rate_limit", "budget"} and now.effect == "require_approval" and not approved:
            # Where the default denies besides, nobody is asked; else another layer may ask, and limits come after consent.
            now = case.decide(after, action.action_id, approved=True)
        if was.basis not in {"default", "allow"}:
            assert now == was


@law(cases(types=("allow", "require_approval", "rate_limit", "budget")), st.booleans())
def test_a_deny_trumps_whatever_else_applies(case, approved):
    engine = case.compile(Policy("no", "deny", priority=-9, order=99))
    for action in case.actions:
        decision = case.decide(engine, action.action_id, approved=approved)
        assert decision.effect == "deny"
        assert "no" in decision.determining


@law(cases(), st.booleans(), st.text(max_size=12).filter(lambda name: name not in ACTION_IDS))
def test_an_undeclared_action_is_never_allowed(case, approved, name):
    decision = case.decide(case.compile(), name, approved=approved)
    assert (decision.effect, decision.policy_id) == ("deny", "undeclared")


@law(cases())
def test_an_approval_changes_nothing_where_none_is_asked_for(case):
    engine = case.compile()
    for action in case.actions:
        asked = case.decide(engine, action.action_id)
        granted = case.decide(engine, action.action_id, approved=True)
        if asked.effect == "require_approval":
            assert (granted.effect, granted.basis) in {("allow", "require_approval"), ("deny", "budget")}
        else:
            assert granted == asked


@law(cases(types=("deny", "require_approval", "rate_limit", "budget")))
def test_without_an_allow_policy_a_default_of_deny_allows_nothing(case):
    engine = case._replace(default="deny").compile()
    for decision in engine.preview(case.facts, case.now_us):
        assert decision.effect != "allow"


@law(cases())
def test_a_condition_that_cannot_be_evaluated_restricts_and_never_allows(case):
    """Unanswerable context conditions bind like conditions that hold, save in an allow, which is as good as gone."""
    unanswerable = case._replace(policies=[with_context(policy, ("missing", "*")) for policy in case.policies])
    held = case._replace(policies=[with_context(policy) for policy in case.policies if policy.type != "allow"])
    one, other = unanswerable.compile(), held.compile()
    for action in case.actions:
        failed_closed = case.decide(one, action.action_id)
        assert replace(failed_closed, errors=()) == replace(case.decide(other, action.action_id), errors=())


def with_context(policy, *matches):
    return replace(policy, conditions=replace(policy.conditions, context_matches=matches))


@law(
    st.integers(1, 4),
    st.integers(1, 50),
    st.lists(st.integers(0, 30), max_size=60),
)
def test_a_limit_admits_exactly_its_calls_in_any_window(max_calls, window_us, gaps):
    limit, counters, facts, now_us = Limit("l", max_calls, window_us), Counters(), Facts("bot", "s1"), 0
    taken = []
    for gap in gaps:
        now_us += gap
        wait = counters.retry_after_us(limit, facts, now_us)
        in_window = [instant for instant in taken if instant > now_us - window_us]
        assert (wait == 0) == (len(in_window) < max_calls)
        assert counters.spent(limit, facts, now_us) == len(in_window)
        assert counters.take([limit], facts, now_us) == (wait == 0)
        if wait == 0:
            taken.append(now_us)
        else:
            assert wait == in_window[-max_calls] + window_us - now_us
    for first in taken:
        assert sum(first <= instant < first + window_us for instant in taken) <= max_calls


@law(st.integers(1, 3), st.integers(1, 20), st.lists(st.integers(0, 60), max_size=40))
def test_no_clock_however_it_jumps_gets_more_calls_into_a_window(max_calls, window_us, instants):
    """Counted by the furthest instant the clock had shown, which is the least that can have passed."""
    limit, counters, facts = Limit("l", max_calls, window_us), Counters(), Facts("bot", "s1")
    taken = []
    for now_us in instants:
        if counters.take([limit], facts, now_us):
            taken.append(max([now_us, *taken]))
    for first in taken:
        assert sum(first <= instant < first + window_us for instant in taken) <= max_calls


@law(
    st.integers(1, 3),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=40),
)
def test_a_call_given_back_was_never_counted(max_calls, window_us, steps):
    limit, counters, facts, now_us, kept = Limit("l", max_calls, window_us), Counters(), Facts("bot", "s1"), 0, []
    for gap, undo in steps:
        now_us += gap
        in_window = [instant for instant in kept if instant > now_us - window_us]
        assert counters.take([limit], facts, now_us) == (len(in_window) < max_calls)
        if len(in_window) < max_calls:
            if undo:
                counters.give_back([limit], facts, now_us)
            else:
                kept.append(now_us)


@law(cases(), st.booleans())
def test_saying_a_policy_twice_changes_nothing(case, approved):
    twice = [replace(twin(policy), order=policy.order + 100) for policy in case.policies]
    one, other = case.compile(), case.compile(*twice)
    for action in case.actions:
        once = case.decide(one, action.action_id, approved=approved)
        again = case.decide(other, action.action_id, approved=approved)
        assert (again.effect, again.policy_id, again.basis, again.disclose) == (
            once.effect,
            once.policy_id,
            once.basis,
            once.disclose,
        )
        assert {name.removeprefix("twin-") for name in again.determining} == set(once.determining)


def twin(policy):
    limit, budget, name = policy.limit, policy.budget, f"twin-{policy.policy_id}"
    return replace(
        policy,
        policy_id=name,
        limit=limit and replace(limit, limit_id=name),
        budget=budget and replace(budget, budget_id=name),
    )


UNANSWERABLE = parse_expression("context.missing == 'x'")


@law(cases(overlays=()), st.booleans())
def test_an_expression_that_cannot_be_evaluated_restricts_and_never_allows(case, approved):
    failing = case._replace(policies=[replace(policy, when=UNANSWERABLE) for policy in case.policies])
    held = case._replace(policies=[replace(policy, when=None) for policy in case.policies if policy.type != "allow"])
    one, other = failing.compile(), held.compile()
    for action in case.actions:
        failed_closed = case.decide(one, action.action_id, approved=approved)
        expected = case.decide(other, action.action_id, approved=approved)
        assert replace(failed_closed, errors=()) == replace(expected, errors=())


CALLERS = 64


@pytest.fixture
def callers():
    """Threads that take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(CALLERS) as pool:
        yield pool
    sys.setswitchinterval(before)


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_64_callers_at_once_take_what_a_window_has_left_and_no_more(callers, data):
    rush(callers, data)


@pytest.mark.long
@given(st.data())
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_64_callers_at_once_take_no_more_in_many_more_cases(callers, data):
    rush(callers, data)


def rush(callers, data):
    """Waves of callers, all at once; every second one is counted by a second limit too, and charged by both or by none."""
    wide, narrow = (Limit(name, *data.draw(windows)) for name in ("wide", "narrow"))
    counters, facts, now_us, taken = Counters(), Facts("bot", "s1"), 0, {wide: [], narrow: []}
    for gap in data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=3)):
        now_us += gap
        gate = Barrier(CALLERS)

        def call(number, gate=gate, instant=now_us):
            limits = (wide, narrow) if number % 2 else (wide,)
            gate.wait(timeout=60)
            return limits if counters.take(limits, facts, instant) else ()

        for limits in callers.map(call, range(CALLERS)):
            for limit in limits:
                taken[limit].append(now_us)
        counted = [sum(instant > now_us - limit.window_us for instant in taken[limit]) for limit in (wide, narrow)]
        assert counted[0] <= wide.max_calls
        assert counted[1] <= narrow.max_calls
        assert (
            counted[0] == wide.max_calls or counted[0] >= CALLERS // 2
        )  # those whom only one limit counts got through
    for limit, instants in taken.items():
        for first in instants:
            assert sum(first <= instant < first + limit.window_us for instant in instants) <= limit.max_calls


windows = st.tuples(st.integers(1, 70), st.integers(1, 50))


@pytest.mark.long
@pytest.mark.parametrize("check", LAWS, ids=lambda check: check.__name__.removeprefix("test_"))
def test_in_ten_thousand_cases(check):
    check()
