"""Before the arguments are known: what is said then holds for every argument, and no more is said than the facts decide."""

from itertools import product

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from cra_mcp.policy.calls import call_test
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.conditions import ERROR, FALSE, TRUE, UNKNOWN
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.expression import parse_expression
from cra_mcp.policy.model import ActionFacts, Conditions, Facts, Layer, Policy
from tests.policy.test_properties import ARGUMENTS, WIDTH, cases

KINDS = {"n": "number", "m": "number", "i": "integer", "s": "string", "b": "boolean", "c": "boolean"}
ACTION = ActionFacts(
    "pay.out",
    parameters={
        "type": "object",
        "properties": {
            **{name: {"type": kind} for name, kind in KINDS.items()},
            "list": {"type": "array", "items": {"type": "integer"}},
            "any": {},
        },
    },
)
PROD = Facts("bot", "s1", context={"env": "prod", "limit": 5, "tags": ["a", "b"]}, roles=frozenset({"clerk"}))
slow = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def condition(when, arguments=""):
    policy = Policy("p", "deny", when=when and parse_expression(when), conditions=Conditions(arguments=arguments))
    return call_test(policy, ACTION)


@pytest.mark.parametrize(
    ("when", "truth"),
    [
        ("context.env == 'dev' && args.n > 5", FALSE),
        ("args.n > 5 && context.env == 'dev'", FALSE),
        ("context.env == 'prod' || args.n > 5", TRUE),
        ("context.env == 'prod' && args.n > 5", UNKNOWN),
        ("context.none == 'prod' && args.n > 5", UNKNOWN),
        ("(1 / 0 == 1) && args.n > 5", UNKNOWN),
        ("(1 / 0 == 1) && false", FALSE),
        ("1 / 0 == 1", ERROR),
        ("context.none == 'prod'", ERROR),
        ("true || args.n > 5", TRUE),
        ("args.n > 5", UNKNOWN),
        ("has(args.n)", UNKNOWN),
        ("!has(args.n)", UNKNOWN),
        ("size(args) == 0", UNKNOWN),
        ("args == {}", UNKNOWN),
        ("args.any == null", UNKNOWN),
        ("context.env == 'prod' ? 'clerk' in principal.roles : args.n > 5", TRUE),
        ("context.env == 'dev' ? true : args.n > 5", UNKNOWN),
        ("args.list.all(x, x > 5 && context.env == 'dev')", UNKNOWN),
        ("context.tags.exists(x, x == 'a' || args.s == x)", TRUE),
        ("context.tags.all(x, x == 'z' && args.s == x)", FALSE),
        ("now > timestamp('2030-01-01T00:00:00Z') && args.b", FALSE),
    ],
)
def test_an_expression_is_decided_early_if_it_is_true_or_false_whatever_the_arguments(when, truth):
    assert condition(when).early(PROD, 0) == truth


def test_a_schema_of_arguments_waits_unless_the_expression_beside_it_is_false():
    assert condition(None, '{"required":["n"]}').early(PROD, 0) == UNKNOWN
    assert condition("context.env == 'prod'", '{"required":["n"]}').early(PROD, 0) == UNKNOWN
    assert condition("context.env == 'dev'", '{"required":["n"]}').early(PROD, 0) == FALSE
    assert condition("context.none == 'x'", '{"required":["n"]}').early(PROD, 0) == UNKNOWN


def test_a_loop_over_arguments_without_end_does_not_undo_what_the_facts_decide():
    endless = "args.list.all(x, args.list.all(y, x + y >= 0))"
    args = {"list": list(range(300))}
    for when, truth in (
        (f"{endless} && context.env == 'dev'", FALSE),
        (f"{endless} || context.env == 'prod'", TRUE),
        (f"{endless} && context.env == 'prod'", ERROR),
    ):
        test = condition(when)
        assert test.test(Inputs(PROD, 0, args)) == truth
        assert test.early(PROD, 0) == (UNKNOWN if truth == ERROR else truth)


def test_conditions_that_are_not_about_an_action_are_not_asked_for_it():
    asked = []

    class Recording(dict):
        def get(self, name, default=None):
            asked.append(name)
            return super().get(name, default)

    policies = [
        Policy(f"p{number}", "deny", (f"pay.{number}",), when=parse_expression(f"context.c{number} == 'x' && args.b"))
        for number in range(20)
    ]
    actions = [ActionFacts(f"pay.{number}", parameters=ACTION.parameters) for number in range(20)]
    engine = compile_policies(policies, actions, "allow")
    assert engine.foresee("pay.7", Facts("bot", "s", context=Recording(c7="x")), 0).waiting[0].policy_id == "p7"
    assert asked == ["c7"]


# --- the early verdict is the late one ---------------------------------------------------------------------------------

ATOMS = (
    "args.n > 5", "args.m <= 2.5", "args.i == 3", "1 / args.i == 0", "args.s == 'x'", "args.s.startsWith('a')", "args.b",
    "has(args.n)", "has(args.any.x)", "args.list.exists(x, x == 3)", "size(args.list) > 1", "size(args) > 2",
    "args.any == null", "args.s in context.tags", "args.n > context.limit", "context.tags.all(x, x != args.s)",
    "context.env == 'prod'", "context.env == 'dev'", "has(context.none)", "context.none == 1", "1 / 0 == 1",
    "'clerk' in principal.roles", "agent.id == 'bot'", "task.risk_tier == 'high'", "true", "false",
    "now < timestamp('2026-01-01T00:00:00Z')", "context.limit > 3",
)  # fmt: skip
expressions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["&&", "||"]), inner),
        st.builds("!({})".format, inner),
        st.builds("({}) ? ({}) : ({})".format, inner, inner, inner),
        st.builds("({}) == ({})".format, inner, inner),
    ),
    max_leaves=6,
)
whole = st.one_of(st.integers(-3, 9), st.sampled_from([0, 3, 3.0, 2.5, "3", None, True, 2**70]))
sent = st.fixed_dictionaries(
    {},
    optional={
        "n": st.one_of(whole, st.floats()),
        "m": whole,
        "i": whole,
        "s": st.sampled_from(["x", "a", "abc", "", "x\0", 5, None]),
        "b": st.sampled_from([True, False, 1, None]),
        "list": st.one_of(st.lists(whole, max_size=3), st.just([3] * 300), st.none()),
        "any": st.sampled_from([None, {}, {"x": 1}, [], "x", 5]),
    },
)
facts = st.builds(
    Facts,
    st.sampled_from(["bot", "human"]),
    st.just("s1"),
    context=st.fixed_dictionaries(
        {},
        optional={
            "env": st.sampled_from(["prod", "dev", 5, "prod\0"]),
            "limit": st.sampled_from([5, 2.5, "5"]),
            "tags": st.sampled_from([["a", "x"], [], "a", ["x\0"]]),
            "none": st.just(1),
        },
    ),
    roles=st.frozensets(st.sampled_from(["clerk", "agent"])),
)
SCHEMAS = ("", "", '{"required":["n"]}', '{"properties":{"n":{"minimum":3}}}')


def is_early_as_late(when, schema, facts, calls, now_us):
    test = condition(when, schema)
    early = test.early(facts, now_us)
    for args in calls:
        late = test.test(Inputs(facts, now_us, args))
        assert late != UNKNOWN
        assert early in (UNKNOWN, late), (when, schema, facts.context, args)
        if not test.reads_args:
            assert early == late


instants = st.sampled_from([0, 1_767_225_599_999_999, 1_767_225_600_000_000])


@given(expressions, st.sampled_from(SCHEMAS), facts, st.lists(sent, min_size=1, max_size=4), instants)
@settings(max_examples=300, deadline=None, suppress_health_check=slow)
def test_the_early_verdict_is_the_late_one(when, schema, facts, calls, now_us):
    is_early_as_late(when, schema, facts, calls, now_us)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_the_early_verdict_is_the_late_one_in_twenty_thousand_cases(part):
    @seed(part)
    @given(expressions, st.sampled_from(SCHEMAS), facts, st.lists(sent, min_size=1, max_size=4), instants)
    @settings(max_examples=5_000, deadline=None, suppress_health_check=slow)
    def holds(when, schema, facts, calls, now_us):
        is_early_as_late(when, schema, facts, calls, now_us)

    holds()


# --- what is listed could be allowed -----------------------------------------------------------------------------------

ARGUMENT_ATOMS = ("args.n > 5", "args.i == 3", "args.s == 'x'", "args.b", "args.c", "args.m <= 2.5")
GRID = {"n": (0, 9), "i": (3, 4), "s": ("x", "y"), "b": (True, False), "c": (True, False), "m": (0, 9)}
ALL_ARGUMENTS = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
FACT_ATOMS = (
    "context.env == 'prod'",
    "context.env != 'prod'",
    "agent.id == 'bot'",
    "true",
    "'clerk' in principal.roles",
)
TYPES = ("deny", "require_approval", "allow", "allow")


@st.composite
def read_once(draw):
    """Policies, of which no two read the same argument, nor one twice: then each can still come out either way by itself."""
    atoms = list(draw(st.permutations(ARGUMENT_ATOMS)))

    def expression(depth):
        if depth == 0 or draw(st.integers(0, 3)) == 0:
            return atoms.pop() if atoms and draw(st.booleans()) else draw(st.sampled_from(FACT_ATOMS))
        if draw(st.integers(0, 4)) == 0:
            return f"!({expression(depth - 1)})"
        return f"({expression(depth - 1)}) {draw(st.sampled_from(['&&', '||']))} ({expression(depth - 1)})"

    def policies(name):
        return tuple(
            Policy(f"{name}{order}", draw(st.sampled_from(TYPES)), order=order, when=parse_expression(expression(2)))
            for order in range(draw(st.integers(0, 3)))
        )

    effects = st.sampled_from(["allow", "deny"])
    overlays = tuple(Layer(name, policies(name), draw(effects)) for name in ("o",)[: draw(st.integers(0, 1))])
    return compile_policies(policies("p"), [ACTION], draw(effects), overlays)


requesters = st.builds(
    Facts,
    st.sampled_from(["bot", "human"]),
    st.just("s1"),
    context=st.sampled_from([{"env": "prod"}, {"env": "dev"}]),
    roles=st.sampled_from([frozenset(), frozenset({"clerk"})]),
)


def is_best_of_all(engine, facts):
    foreseen = engine.foresee(ACTION.action_id, facts, 0)
    late = {engine.decide(ACTION.action_id, facts, Counters(), 0, args=args).effect for args in ALL_ARGUMENTS}
    assert foreseen.effect == max(late, key=WIDTH.__getitem__)
    assert bool(foreseen.waiting) or foreseen.effect == "deny" or len(late) == 1


@given(read_once(), requesters)
@settings(max_examples=150, deadline=None, suppress_health_check=slow)
def test_what_is_foreseen_is_what_the_best_arguments_are_told(engine, facts):
    is_best_of_all(engine, facts)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_what_is_foreseen_is_what_the_best_arguments_are_told_in_twenty_thousand_cases(part):
    @seed(part)
    @given(read_once(), requesters)
    @settings(max_examples=5_000, deadline=None, suppress_health_check=slow)
    def holds(engine, facts):
        is_best_of_all(engine, facts)

    holds()


def is_foreseen_as_written(oracle, case):
    engine = case.compile()
    world = oracle.World(case.policies, case.actions, case.default, case.overlays)
    for action in case.actions:
        found = engine.foresee(action.action_id, case.facts, case.now_us)
        expected, waiting = oracle.foresee(world, action.action_id, case.facts, case.now_us)
        told = {name: getattr(found, name) for name in ("effect", "policy_id", "basis", "disclose")}
        assert told == {name: expected[name] for name in told}
        assert (list(found.determining), list(found.errors)) == (expected["determining"], expected["errors"])
        assert sorted(each.policy_id for each in found.waiting) == sorted(waiting)
        for args in ARGUMENTS:
            late = case._replace(args=args).decide(engine, action.action_id)
            assert WIDTH[late.effect] <= WIDTH[found.effect]


@given(cases())
@settings(max_examples=200, deadline=None, suppress_health_check=slow)
def test_what_is_foreseen_is_what_the_specification_reads(oracle, case):
    is_foreseen_as_written(oracle, case)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_what_is_foreseen_is_what_the_specification_reads_in_twenty_thousand_cases(oracle, part):
    @seed(part)
    @given(cases(max_size=12))
    @settings(max_examples=5_000, deadline=None, suppress_health_check=slow)
    def holds(case):
        is_foreseen_as_written(oracle, case)

    holds()
