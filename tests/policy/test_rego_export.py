"""An engine of Rego's (rego-cpp, by regopy) decides on exported policies as ours does on the originals.

Texts are plain ones: that engine compares texts as they are escaped, so escapes can't be proved with it, and are not exported.
"""

from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cra_mcp.policy.conditions import compile_glob
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies, governing
from cra_mcp.policy.export.form import InexpressibleError, express
from cra_mcp.policy.export.rego import rego_input, rego_policies
from cra_mcp.policy.model import ActionFacts, Charge, Conditions, Facts, Policy
from tests.policy.rego_engine import running_rego_engine
from tests.policy.test_cedar_export import worlds

_PLAIN = str.maketrans({'"': "q", "\\": "b", "\n": "n", "\0": "z"})


class Peer:
    """Exported policies, and an engine that was given nothing else."""

    def __init__(self, engine, form):
        self.form, self.text = form, rego_policies(form)
        self._engine = engine

    def ask(self, action_id, facts, **more):
        return self._engine.query(self.text, rego_input(self.form, action_id, facts, **more))


@pytest.fixture(scope="module")
def engine():
    with running_rego_engine() as running:
        yield running


def plain(value):
    """With plain texts in the place of those that need escapes."""
    if isinstance(value, str):
        return value.translate(_PLAIN)
    if isinstance(value, list | tuple | frozenset):
        return type(value)(plain(item) for item in value)
    if isinstance(value, dict):
        return {plain(name): plain(item) for name, item in value.items()}
    return value


def plain_policy(policy):
    conditions = policy.conditions
    return replace(
        policy,
        actions=plain(policy.actions),
        reason=plain(policy.reason),
        conditions=replace(
            conditions,
            agents=plain(conditions.agents),
            context_matches=plain(conditions.context_matches),
            principals=plain(conditions.principals),
            roles=plain(conditions.roles),
        ),
    )


def plain_facts(facts):
    return replace(
        facts,
        agent_id=plain(facts.agent_id),
        context=plain(facts.context),
        subject=plain(facts.subject),
        roles=plain(facts.roles),
    )


def plain_world(world):
    its, actions, default, overlays, askers, spend = world
    layers = tuple(replace(layer, policies=tuple(map(plain_policy, layer.policies))) for layer in overlays)
    declared = [replace(action, action_id=plain(action.action_id)) for action in actions]
    return list(map(plain_policy, its)), declared, default, layers, list(map(plain_facts, askers)), spend


def compare(engine, world):
    its, actions, default, overlays, askers, spend = plain_world(world)
    ours = compile_policies(its, actions, default, overlays)
    peer = Peer(engine, express(its, actions, default, overlays, plain=True))
    counted = [policy for layer in overlays for policy in governing(layer).policies] + its
    counted = [policy for policy in counted if policy.type in {"rate_limit", "budget"}]
    spent = [policy for policy, is_spent in zip(counted, cycle(spend), strict=False) if is_spent]
    for action, facts, approved in zip(actions, cycle(askers), cycle((False, True, False)), strict=False):
        counters = Counters()
        charges = [Charge(policy.budget, 1_000_000, policy.policy_id) for policy in spent if policy.budget]
        assert counters.take([policy.limit for policy in spent if policy.limit], facts, 0, charges)
        decision = ours.decide(action.action_id, facts, counters, 0, approved=approved)
        names = [policy.policy_id for policy in spent]
        found = peer.ask(action.action_id, facts, approved=approved, spent=names)
        assert found["decision"] == decision.effect, peer.text
        if decision.basis == "deny":
            assert set(found["deny"]) == set(decision.determining)
    assert peer.ask("undeclared", askers[0], approved=True)["decision"] == "deny"


@given(worlds)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_rego_decides_as_the_engine(engine, world):
    compare(engine, world)


@pytest.mark.long
@given(worlds)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_rego_decides_as_the_engine_in_many_more_cases(engine, world):
    compare(engine, world)


def test_without_actions_everything_is_refused(engine):
    peer = Peer(engine, express([], [], "allow", plain=True))
    assert peer.ask("ticket.read", Facts("bot", "s1"), approved=True)["decision"] == "deny"


@pytest.mark.parametrize("odd", ['a"b', "a\\b", "a\nb"])
def test_texts_that_need_escapes_are_refused(odd):
    with pytest.raises(InexpressibleError) as refusal:
        express([Policy("p", "deny", reason=odd)], [ActionFacts("ticket.read")], "allow", plain=True)
    assert [(each.pointer, each.code) for each in refusal.value.obstacles] == [("/reason", "text")]
    express([Policy("p", "deny", reason=odd)], [ActionFacts("ticket.read")], "allow")


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
@example("*a*b*a*", "babbab")
@example("a*b*a*b*a", "abaabba")
@settings(max_examples=60, deadline=None)
def test_globs_match_without_regular_expressions(engine, glob, text):
    policy = Policy("p", "allow", conditions=Conditions(agents=(glob,)))
    peer = Peer(engine, express([policy], [ActionFacts("ticket.read")], "deny", plain=True))
    expected = "allow" if compile_glob(glob)(text) else "deny"
    assert peer.ask("ticket.read", Facts(text, "s1"), approved=False)["decision"] == expected
