import pytest

from cra_mcp.policy.conditions import compile_facts
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.memo import Memo
from cra_mcp.policy.model import ActionFacts, Conditions, Facts, Limit, Policy, RiskTier

SECOND_US = 1_000_000
NOON = 1_767_614_400_000_000  # Monday 2026-01-05T12:00:00Z
DENY = {"policy_id": "no", "type": "deny"}
ASK = {"policy_id": "ask", "type": "require_approval"}
RATE = {"policy_id": "rate", "type": "rate_limit", "parameters": {"max_calls": 1, "window_seconds": 60}}
ALLOW = {"policy_id": "yes", "type": "allow"}
IF_PROD = {"context_matches": {"env": "prod"}}
OFFICE = {"time_window": {"start": "09:00", "end": "17:00"}}


def said(decision):
    return decision.effect, decision.policy_id, decision.basis


def test_each_type_decides_before_those_after_it(desk):
    spent = desk(RATE, ALLOW)
    spent.call()
    assert said(spent.decide()) == ("deny", "rate", "rate_limit")
    assert said(desk(ALLOW, RATE, ASK, DENY).decide()) == ("deny", "no", "deny")
    assert said(desk(ALLOW, RATE, ASK).decide()) == ("require_approval", "ask", "require_approval")
    assert said(desk(ALLOW, RATE).decide()) == ("allow", "yes", "allow")
    assert said(desk(RATE).decide()) == ("allow", "default", "default")


def test_a_spent_limit_does_not_keep_an_approval_from_being_asked_for(desk):
    asked = desk(ASK, RATE)
    asked.counters.take([asked.policies[1].limit], Facts("bot", "s1"), NOON)
    assert asked.decide().effect == "require_approval"
    assert said(asked.decide(approved=True)) == ("deny", "rate", "rate_limit")


def test_an_action_nobody_declared_is_denied_and_not_disclosed(desk):
    decision = desk(ALLOW, default="allow").decide("ticket.unknown", approved=True)
    assert said(decision) == ("deny", "undeclared", "default")
    assert not decision.disclose
    assert decision.reason


def test_where_no_policy_decides_the_default_does(desk):
    assert said(desk().decide()) == ("allow", "default", "default")
    assert said(desk(default="deny").decide()) == ("deny", "default", "default")
    covered = {**ALLOW, "actions": ["ticket.delete"]}
    assert said(desk(covered).decide()) == ("deny", "default", "default")
    assert said(desk(covered, default="allow").decide()) == ("allow", "default", "default")


def test_priority_then_file_order_picks_the_named_policy_and_all_are_determining(desk):
    many = [{**DENY, "policy_id": name, "priority": priority} for name, priority in (("a", 0), ("b", 5), ("c", 5))]
    decision = desk(*many).decide()
    assert decision.policy_id == "b"
    assert decision.determining == ("b", "c", "a")


def test_file_order_is_the_order_field_then_the_position_given():
    first, second = Policy("a", "deny", order=1), Policy("b", "deny", order=0)
    engine = compile_policies([first, second], [ActionFacts("x.y")], "allow")
    assert [policy.policy_id for policy in engine.policies] == ["b", "a"]


def test_priority_never_lifts_a_policy_over_a_type_before_it(desk):
    assert said(desk(DENY, {**ALLOW, "priority": 1_000}).decide()) == ("deny", "no", "deny")


def test_one_hiding_deny_hides_the_refusal_even_where_a_louder_deny_applies(desk):
    loud = {**DENY, "policy_id": "loud", "priority": 9}
    assert desk(loud).decide().disclose
    assert not desk(loud, {**DENY, "disclose": False}).decide().disclose


def test_a_hiding_deny_that_does_not_apply_hides_nothing(desk):
    quiet = {**DENY, "disclose": False, "conditions": {"agents": ["human"]}}
    assert desk(quiet, {**DENY, "policy_id": "loud"}).decide().disclose


@pytest.mark.parametrize("restriction", [DENY, ASK, RATE])
def test_a_restriction_whose_condition_can_not_be_evaluated_applies(desk, restriction):
    conditional = {**restriction, "conditions": IF_PROD}
    decisions = desk(conditional)
    decisions.call()
    assert decisions.decide().policy_id == restriction["policy_id"]
    assert decisions.decide().errors == (restriction["policy_id"],)
    fine = desk(conditional)
    fine.call(context={"env": "dev"})
    assert said(fine.decide(context={"env": "dev"})) == ("allow", "default", "default")


def test_an_allow_whose_condition_can_not_be_evaluated_does_not_apply(desk):
    decisions = desk({**ALLOW, "conditions": IF_PROD})
    assert said(decisions.decide()) == ("deny", "default", "default")
    assert decisions.decide().errors == ("yes",)
    assert said(decisions.decide(context={"env": "prod"})) == ("allow", "yes", "allow")
    assert decisions.decide(context={"env": "prod"}).errors == ()


def test_a_value_that_is_no_string_can_not_be_evaluated_even_if_it_can_not_be_hashed(desk):
    decisions = desk({**DENY, "conditions": {"context_matches": {"env": "*"}}})
    for value in (5, None, True, ["prod"], {"prod": 1}):
        assert decisions.decide(context={"env": value}).errors == ("no",)


def test_approval_satisfies_every_approval_policy_and_stands_in_for_an_allow(desk):
    decisions = desk(ASK, {**ASK, "policy_id": "ask-too", "priority": 1}, {**ALLOW, "actions": ["ticket.delete"]})
    assert decisions.decide().effect == "require_approval"
    granted = decisions.decide(approved=True)
    assert said(granted) == ("allow", "ask-too", "require_approval")
    assert granted.determining == ("ask-too", "ask")


def test_approval_does_not_lift_a_deny_or_a_limit(desk):
    assert desk(ASK, DENY).decide(approved=True).effect == "deny"
    limited = desk(ASK, RATE)
    granted = limited.decide(approved=True)
    limited.counters.take(granted.limits, Facts("bot", "s1"), NOON)
    assert said(limited.decide(approved=True)) == ("deny", "rate", "rate_limit")


def test_approval_nobody_asks_for_any_longer_opens_nothing(desk):
    decisions = desk({**ASK, "conditions": OFFICE}, default="deny")
    assert decisions.decide(approved=True).effect == "allow"
    assert decisions.decide(at=NOON + 6 * 3_600 * SECOND_US, approved=True).effect == "deny"


def test_a_limit_refuses_and_says_when_to_come_again(desk):
    decisions = desk(RATE)
    assert decisions.call().effect == "allow"
    refused = decisions.decide(at=NOON + 20 * SECOND_US + 1)
    assert said(refused) == ("deny", "rate", "rate_limit")
    assert refused.retry_after_us == 40 * SECOND_US - 1
    assert refused.retry_after_seconds == 40
    assert refused.disclose
    assert refused.limits == ()
    assert decisions.decide(at=NOON + 60 * SECOND_US).effect == "allow"


def test_a_decision_that_names_no_wait_has_none_in_seconds(desk):
    assert desk().decide().retry_after_seconds is None


def test_only_spent_limits_are_named_and_the_longest_wait_counts(desk):
    def rate(name, calls, seconds, priority):
        parameters = {"max_calls": calls, "window_seconds": seconds}
        return {"policy_id": name, "type": "rate_limit", "priority": priority, "parameters": parameters}

    decisions = desk(rate("minute", 1, 60, 0), rate("hour", 1, 3_600, 0), rate("day", 9, 86_400, 5))
    allowed = decisions.call()
    assert [limit.limit_id for limit in allowed.limits] == ["day", "minute", "hour"]
    refused = decisions.decide()
    assert refused.determining == ("minute", "hour")
    assert refused.retry_after_seconds == 3_600


def test_deciding_charges_nothing(desk):
    decisions = desk(RATE)
    for _ in range(3):
        assert decisions.decide().effect == "allow"
    assert len(decisions.counters) == 0


def test_all_actions_a_limit_matches_share_it(desk):
    decisions = desk({**RATE, "actions": ["ticket.*"]}, actions=["ticket.read", "ticket.list", "other.read"])
    decisions.call("ticket.read")
    assert decisions.decide("ticket.list").basis == "rate_limit"
    assert decisions.decide("other.read").effect == "allow"


def test_what_is_denied_has_nothing_to_charge_and_what_awaits_approval_says_what_it_will_cost(desk):
    assert desk(DENY, RATE).decide().limits == ()
    assert desk(RATE, default="deny").decide().limits == ()
    assert [limit.limit_id for limit in desk(ASK, RATE).decide().limits] == ["rate"]


@pytest.mark.parametrize(
    ("own", "task", "effect"),
    [("high", "low", "require_approval"), ("low", "high", "require_approval"), ("medium", "low", "allow")],
)
def test_the_higher_of_action_and_task_risk_counts(desk, own, task, effect):
    ask = {**ASK, "conditions": {"risk_tiers": ["high", "critical"]}}
    decisions = desk(ask, actions=[ActionFacts("ticket.read", RiskTier(own))])
    assert decisions.decide(task_risk=RiskTier(task)).effect == effect


def test_capabilities_are_those_of_the_action(desk):
    decisions = desk(
        {**DENY, "conditions": {"capabilities": ["money", "secrets"]}},
        actions=[ActionFacts("a.b", capabilities=frozenset({"money"})), ActionFacts("c.d")],
    )
    assert decisions.decide("a.b").effect == "deny"
    assert decisions.decide("c.d").effect == "allow"


def test_a_policy_without_a_reason_gets_plain_words(desk):
    limits = [
        {**RATE, "parameters": {"max_calls": 1, "window_seconds": 60, "scope": scope}} for scope in ("agent", "global")
    ]
    assert desk(DENY).decide().reason == "policy no denies this action"
    assert desk(ASK).decide().reason == "policy ask requires approval of this action"
    assert desk(ALLOW).decide().reason == "policy yes allows this action"
    assert [call_twice(desk(limit)).reason for limit in limits] == [
        "policy rate admits 1 call in 60 seconds per agent",
        "policy rate admits 1 call in 60 seconds",
    ]
    assert desk({**DENY, "reason": "never"}).decide().reason == "never"


def call_twice(decisions):
    decisions.call()
    return decisions.decide()


def test_a_preview_is_in_order_of_declaration_and_ignores_what_is_spent(desk, facts):
    decisions = desk({**DENY, "actions": ["a.x"]}, RATE, actions=["b.y", "a.x", "a.a"])
    decisions.call("b.y")
    previews = decisions.engine.preview(facts(), NOON)
    assert [said(preview) for preview in previews] == [
        ("allow", "default", "default"),
        ("deny", "no", "deny"),
        ("allow", "default", "default"),
    ]
    assert [limit.limit_id for limit in previews[0].limits] == ["rate"]
    assert decisions.engine.preview(facts(), NOON) is previews


def test_an_outcome_depends_on_conditions_and_not_on_who_asks(desk, facts):
    engine = desk({**DENY, "conditions": {"agents": ["bot-*"]}}, {**ALLOW, "conditions": OFFICE}).engine
    assert engine.outcome(facts("bot-1"), NOON) == engine.outcome(facts("bot-2", "s9", context={"a": 1}), NOON + 1)
    assert engine.outcome(facts("bot-1"), NOON) != engine.outcome(facts("human"), NOON)
    assert engine.outcome(facts("bot-1"), NOON) != engine.outcome(facts("bot-1"), NOON + 6 * 3_600 * SECOND_US)
    assert engine.outcome(facts(), NOON) != engine.outcome(facts(task_risk=RiskTier.HIGH), NOON)
    assert hash(engine.outcome(facts(), NOON))


def test_the_next_boundary_is_the_first_of_all_windows(desk):
    early = {"time_window": {"start": "08:00", "end": "16:00"}}
    engine = desk({**DENY, "conditions": OFFICE}, {**ALLOW, "conditions": early}).engine
    assert engine.next_boundary(NOON) == NOON + 4 * 3_600 * SECOND_US
    assert desk(DENY).engine.next_boundary(NOON) is None
    always = {"time_window": {"start": "00:00", "end": "00:00"}}
    assert desk({**DENY, "conditions": always}).engine.next_boundary(NOON) is None


def test_a_window_decides_by_the_instant_of_the_call_back_and_forth(desk):
    decisions = desk({**ALLOW, "conditions": OFFICE})
    evening = NOON + 6 * 3_600 * SECOND_US
    effects = [decisions.decide(at=at).effect for at in (NOON, evening, NOON, evening)]
    assert effects == ["allow", "deny", "allow", "deny"]


def test_beyond_the_calendar_a_window_restricts_and_never_allows(desk):
    never = 1 << 80
    assert desk({**DENY, "conditions": OFFICE}).decide(at=never).errors == ("no",)
    assert desk({**ALLOW, "conditions": OFFICE}).decide(at=never).effect == "deny"


def test_the_agents_context_is_read_at_every_call(desk, facts):
    decisions, context = desk({**DENY, "conditions": IF_PROD}), {"env": "dev"}
    same = facts(context=context)
    assert decisions.engine.decide("ticket.read", same, Counters(), NOON).effect == "allow"
    context["env"] = "prod"
    assert decisions.engine.decide("ticket.read", same, Counters(), NOON).effect == "deny"


def test_requesters_without_end_are_decided_right_in_bounded_memory(desk):
    prefixes = [f"p{number}" for number in range(10)]
    conditional = [
        {**DENY, "policy_id": prefix, "conditions": {"context_matches": {prefix: "yes"}}} for prefix in prefixes
    ]
    decisions = desk(*conditional)
    for number in range(1_100):
        context = {prefix: "yes" if number >> bit & 1 else "no" for bit, prefix in enumerate(prefixes)}
        denying = tuple(prefix for bit, prefix in enumerate(prefixes) if number >> bit & 1)
        assert decisions.decide(context=context).determining == denying
        assert decisions.decide(context=context).determining == denying
        previews = decisions.engine.preview(Facts("bot", "s1", context=context), NOON)
        assert [preview.determining for preview in previews] == [denying, denying]
    engine = decisions.engine
    plan = engine._plans["ticket.read"][RiskTier.LOW]
    kept = [len(engine._previews), len(plan._verdicts), len(plan.memo._span.rows), len(engine._truths._span.rows)]
    assert max(kept) <= 512


def test_long_inputs_are_decided_and_not_kept(desk):
    made = []

    def make(truths):
        made.append(truths)
        return truths

    memo = Memo([compile_facts(Conditions(agents=("b*",)))], make)
    for _ in range(3):
        assert memo.get(Facts("b" * 2_000, "s1"), 0) == (1,)
        assert memo.get(Facts("bot", "s1"), 0) == (1,)
    assert len(made) == 4


@pytest.mark.parametrize(
    ("policies", "actions"),
    [
        ([Policy("a", "deny"), Policy("a", "allow")], []),
        ([], [ActionFacts("a.b"), ActionFacts("a.b")]),
        ([Policy("a", "rate_limit", limit=Limit("l", 1, 1)), Policy("b", "rate_limit", limit=Limit("l", 1, 1))], []),
        ([Policy("a", "rate_limit")], []),
        ([Policy("a", "deny", limit=Limit("l", 1, 1))], []),
        ([Policy("a", "rate_limit", limit=Limit("l", 0, 1))], []),
        ([Policy("a", "rate_limit", limit=Limit("l", 1, 0))], []),
    ],
)
def test_policies_that_make_no_sense_together_are_refused(policies, actions):
    with pytest.raises(ValueError, match=r"twice|limit"):
        compile_policies(policies, actions, "deny")
