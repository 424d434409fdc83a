"""Cedar decides on exported policies as the engine does on the originals."""

from dataclasses import replace
from itertools import cycle

import cedarpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies, governing
from cra_mcp.policy.export.cedar import cedar_policies, cedar_request, cedar_schema
from cra_mcp.policy.export.form import express
from cra_mcp.policy.expression import parse_expression
from cra_mcp.policy.model import (
    ActionFacts,
    Budget,
    Charge,
    Conditions,
    Facts,
    Layer,
    Limit,
    Policy,
    RiskTier,
)

TEXTS = ("bot", "bot-1", 'b"o\\t*', "née\n\0", "", "*", "pr*d", "prod-eu", "\\u{41}", "{}")
GLOBS = (
    "bot",
    "bot*",
    "*",
    '*"*',
    "*\\*",
    "n?e*",
    "",
    "**",
    "pr*d",
    "*-*",
    "\\u{41}",
    "*\n*",
    "{*}",
    "é*",
    "*é*\0",
    "_*",
    "%",
)
KEYS = ("env", "te am", 'a"b\\c', "if", "名")
ROLES = ("operator", 'au"ditor', "")
ACTIONS = ("ticket.read", "ticket.delete", "payment.refund", 'a/b"c', "é")
KINDS = ("deny", "require_approval", "allow", "allow", "rate_limit", "budget")
ACTION_GLOBS = ("*", "ticket.*", "*e*", "payment.refund", "none.*", "a/*", "é")


NOTHING: dict = {}


class Peer:
    """Exported policies, and an engine of Cedar's that was given nothing else."""

    def __init__(self, form):
        self.form = form
        self.text, schema = cedar_policies(form), cedar_schema(form)
        self.policies, self.schema = cedarpy.PolicySet.from_str(self.text), cedarpy.Schema.from_str(schema)
        self.asking = {each.policy_id for each in form.statements if each.type == "require_approval"}

    def ask(self, action_id, facts, *, approved, spent=(), args=NOTHING):
        request = cedar_request(self.form, "atlas", action_id, facts, approved=approved, spent=spent, args=args)
        found = cedarpy.is_authorized(request, self.policies, [], self.schema)
        assert found.diagnostics.errors == []
        return found

    def effect(self, action_id, facts, *, approved, spent, args):
        """As specs/policy.md says."""
        asked = self.ask(action_id, facts, approved=approved, spent=spent, args=args)
        if asked.allowed:
            return "allow", set()
        forbidding = set(asked.diagnostics.id_annotations_by_reason.values())
        asks = self.asking & forbidding and self.ask(action_id, facts, approved=True, args=args).allowed
        return "require_approval" if asks else "deny", forbidding


def few(values, max_size=2):
    return st.lists(st.sampled_from(values), max_size=max_size, unique=True).map(tuple)


@st.composite
def policies(draw, order, layer=""):
    pairs = draw(
        st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(GLOBS)), max_size=2, unique_by=lambda pair: pair[0])
    )
    kind = draw(st.sampled_from(KINDS))
    return Policy(
        f"p{order}",
        kind,
        actions=draw(few(ACTION_GLOBS)) or ("*",),
        reason=draw(st.sampled_from(TEXTS)),
        disclose=kind != "deny" or draw(st.booleans()),
        priority=draw(st.integers(-1, 1)),
        conditions=Conditions(
            risk_tiers=frozenset(draw(few(tuple(RiskTier)))),
            agents=draw(few(GLOBS)),
            capabilities=frozenset(draw(few(("money", "tickets"), 1))),
            context_matches=tuple(pairs),
            principals=draw(few(GLOBS, 1)),
            roles=frozenset(draw(few(ROLES))),
        ),
        limit=Limit(f"{layer}p{order}", 1, 60) if kind == "rate_limit" else None,
        budget=Budget(f"{layer}p{order}", 1_000_000, 60) if kind == "budget" else None,
        order=order,
    )


@st.composite
def policy_lists(draw, max_size=5, layer=""):
    return [draw(policies(order, layer)) for order in range(draw(st.integers(0, max_size)))]


@st.composite
def layer_lists(draw):
    return tuple(
        Layer(name, tuple(draw(policy_lists(3, f"{name}/"))), draw(effects))
        for name in ("one", "two")[: draw(st.integers(0, 2))]
    )


effects = st.sampled_from(["allow", "deny"])
layers = layer_lists()
profiles = st.sampled_from([(tier, its) for tier in RiskTier for its in ((), ("money",), ("money", "tickets"))])
declared = st.tuples(*[profiles] * len(ACTIONS)).map(
    lambda drawn: [ActionFacts(name, tier, frozenset(its)) for name, (tier, its) in zip(ACTIONS, drawn, strict=True)]
)
values = st.one_of(st.sampled_from(TEXTS), st.sampled_from([5, None, True, ["prod"], {"env": "prod"}]))
requesters = st.builds(
    Facts,
    st.sampled_from(TEXTS),
    st.just("s1"),
    st.just("default"),
    st.sampled_from(list(RiskTier)),
    st.dictionaries(st.sampled_from((*KEYS, "unread")), values, max_size=5),
    st.sampled_from(TEXTS),
    st.frozensets(st.sampled_from(ROLES)),
)
worlds = st.tuples(
    policy_lists(),
    declared,
    effects,
    layers,
    st.lists(requesters, min_size=2, max_size=2),
    st.lists(st.booleans(), min_size=1, max_size=3),
)
slow = (HealthCheck.too_slow, HealthCheck.data_too_large)


def compare(world, calls=(NOTHING,)):
    """Of every action: the effect, and which policies deny. ``spend`` says which limits are spent."""
    its, actions, default, overlays, askers, spend = world
    ours = compile_policies(its, actions, default, overlays)
    peer = Peer(express(its, actions, default, overlays, calls=True))
    counted = [policy for layer in overlays for policy in governing(layer).policies] + its
    counted = [policy for policy in counted if policy.type in {"rate_limit", "budget"}]
    spent = [policy for policy, is_spent in zip(counted, cycle(spend), strict=False) if is_spent]
    for action_id, facts, approved, args in zip(
        ACTIONS, cycle(askers), cycle((False, True, False)), cycle(calls), strict=False
    ):
        counters = Counters()
        assert counters.take(
            [policy.limit for policy in spent if policy.limit],
            facts,
            0,
            [Charge(policy.budget, 1_000_000, policy.policy_id) for policy in spent if policy.budget],
        )
        decision = ours.decide(action_id, facts, counters, 0, approved=approved, args=args)
        names = [policy.policy_id for policy in spent]
        effect, forbidding = peer.effect(action_id, facts, approved=approved, spent=names, args=args)
        assert effect == decision.effect, peer.text
        if decision.basis in {"deny", "rate_limit", "budget"}:
            kinds = {each.policy_id: each.type for each in peer.form.statements}
            assert {name for name in forbidding if kinds.get(name) == decision.basis} == set(decision.determining)
    assert not peer_allows_undeclared(peer, askers[0])


def peer_allows_undeclared(peer, facts):
    """Cedar refuses such a request by the schema; without it, no permit covers it."""
    request = cedar_request(peer.form, "atlas", "undeclared", facts, approved=True)
    assert cedarpy.is_authorized(request, peer.policies, [], peer.schema).decision == cedarpy.Decision.NoDecision
    return cedarpy.is_authorized(request, peer.policies, []).allowed


@given(worlds)
@settings(max_examples=100, deadline=None, suppress_health_check=slow)
def test_cedar_decides_as_the_engine(world):
    compare(world)


NAMES = {"note": "string", "n": "integer", "on": "boolean"}
SCHEMA = {"type": "object", "properties": {name: {"type": kind} for name, kind in NAMES.items()}}
NOTES = ("a", "b", "né {*}", "")
NUMBERS = (0, 5, -7, 2**63 - 1)
constants = st.sampled_from([f'"{text}"' for text in NOTES])
numbers = st.sampled_from([str(number) for number in NUMBERS])
comparisons = st.one_of(
    st.sampled_from(["has(args.note)", "has(args.n)", "has(args.more)", "args.on", "args.on != true", "!args.on"]),
    st.builds("args.note {} {}".format, st.sampled_from(["==", "!="]), constants),
    st.builds("{} {} args.note".format, constants, st.sampled_from(["==", "!="])),
    st.builds("args.n {} {}".format, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers),
    st.builds("{} {} args.n".format, numbers, st.sampled_from(["<", "<=", ">", ">="])),
    st.builds("args.note in [{}]".format, st.lists(constants, min_size=1, max_size=3).map(", ".join)),
    st.builds("args.n in [{}]".format, st.lists(numbers, min_size=1, max_size=3).map(", ".join)),
)
expressions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({}) {} {}".format, inner, st.sampled_from(["&&", "||"]), inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=5,
)
sent = st.fixed_dictionaries(
    {},
    optional={
        "note": st.sampled_from([*NOTES, "a\0", "\0b", "a\ud800", 5, None]),
        "n": st.sampled_from([*NUMBERS, 5.0, 5.5, -1, 1, 2**63, "5", True]),
        "on": st.sampled_from([True, False, True, False, "true", 1]),
        "more": st.none(),
    },
)


@given(worlds, st.lists(st.none() | expressions, min_size=1, max_size=4), st.lists(sent, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=slow)
def test_cedar_decides_on_arguments_as_the_engine(world, whens, calls):
    compare_calls(world, whens, calls)


def compare_calls(world, whens, calls):
    its, actions, default, overlays, askers, spend = world
    drawn = cycle([None if when is None else parse_expression(when) for when in whens])

    def asking(policies):
        return tuple(replace(policy, when=next(drawn)) for policy in policies)

    layers_asking = tuple(replace(layer, policies=asking(layer.policies)) for layer in overlays)
    taking = [replace(action, parameters=SCHEMA) for action in actions]
    compare((list(asking(its)), taking, default, layers_asking, askers, spend), calls)


@pytest.mark.long
@given(worlds, st.lists(st.none() | expressions, min_size=1, max_size=4), st.lists(sent, min_size=1, max_size=5))
@settings(max_examples=5_000, deadline=None, suppress_health_check=slow)
def test_cedar_decides_on_arguments_as_the_engine_in_many_more_cases(world, whens, calls):
    compare_calls(world, whens, calls)


@pytest.mark.long
@given(worlds)
@settings(max_examples=5_000, deadline=None, suppress_health_check=slow)
def test_cedar_decides_as_the_engine_in_many_more_cases(world):
    compare(world)


@given(policy_lists(), declared, effects, layers)
@settings(max_examples=60, deadline=None, suppress_health_check=slow)
def test_what_is_exported_is_valid_for_its_schema(its, actions, default, overlays):
    form = express(its, actions, default, overlays)
    found = cedarpy.validate_policies(cedar_policies(form), cedar_schema(form))
    assert [str(error) for error in found.errors] == []
