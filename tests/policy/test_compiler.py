import math
from hashlib import sha256

import pytest

from cra_mcp.policy.compiler import conditions_from_manifest, default_effect, policy_from_manifest
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.model import EVIDENCE, ActionFacts, Conditions, Limit, Policy, RiskTier, TimeWindow

BUDGET = {"type": "budget", "parameters": {"max_cost": 5, "unit": "usd", "window_seconds": 60}}
RATE = {"policy_id": "rate", "type": "rate_limit", "parameters": {"max_calls": 2, "window_seconds": 60}}


def test_a_policy_that_says_little_gets_the_defaults():
    assert policy_from_manifest({"policy_id": "no", "type": "deny"}, 3) == Policy("no", "deny", order=3)


def test_everything_a_manifest_says_is_in_the_policy():
    written = {
        "policy_id": "no",
        "type": "deny",
        "actions": ["a.*", "b.read"],
        "reason": "because",
        "disclose": False,
        "priority": 7,
        "conditions": {"agents": ["bot"]},
    }
    assert policy_from_manifest(written, 0) == Policy(
        "no", "deny", ("a.*", "b.read"), "because", disclose=False, priority=7, conditions=Conditions(agents=("bot",))
    )


def test_a_key_that_is_none_counts_as_left_out():
    keys = ("actions", "reason", "disclose", "priority", "conditions", "parameters", "when")
    written = {"policy_id": "no", "type": "deny", **dict.fromkeys(keys)}
    assert policy_from_manifest(written, 0) == Policy("no", "deny")
    parts = ("risk_tiers", "agents", "capabilities", "context_matches", "time_window", "principals", "roles")
    assert conditions_from_manifest(dict.fromkeys(parts)) == Conditions()


def test_both_names_of_the_approval_type_are_understood():
    for name in ("require_approval", "requires_approval"):
        assert policy_from_manifest({"policy_id": "ask", "type": name}, 0).type == "require_approval"


def test_the_reason_may_stand_among_the_parameters():
    written = {"policy_id": "no", "type": "deny", "parameters": {"reason": "because"}}
    assert policy_from_manifest(written, 0).reason == "because"
    assert policy_from_manifest({**written, "reason": "because"}, 0).reason == "because"


def test_a_limit_is_counted_by_agent_unless_it_says_otherwise():
    assert policy_from_manifest(RATE, 0).limit == Limit("rate", 2, 60_000_000, "agent")
    by_tenant = {**RATE, "parameters": {**RATE["parameters"], "scope": "tenant"}}
    assert policy_from_manifest(by_tenant, 0).limit == Limit("rate", 2, 60_000_000, "tenant")


def test_limits_of_one_name_in_two_atlases_have_two_ids():
    assert policy_from_manifest(RATE, 0, namespace="com.acme").limit.limit_id == "com.acme/rate"


def test_all_conditions_are_read():
    written = {
        "risk_tiers": ["high", "critical"],
        "agents": ["bot-*"],
        "capabilities": ["money"],
        "context_matches": {"env": "prod*"},
        "time_window": {"start": "22:00", "end": "06:30", "timezone": "Europe/Berlin", "days": ["fri", "sat"]},
        "principals": ["svc-*"],
        "roles": ["agent", "operator"],
    }
    assert conditions_from_manifest(written) == Conditions(
        risk_tiers=frozenset({RiskTier.HIGH, RiskTier.CRITICAL}),
        agents=("bot-*",),
        capabilities=frozenset({"money"}),
        context_matches=(("env", "prod*"),),
        time_window=TimeWindow(1_320, 390, "Europe/Berlin", frozenset({4, 5})),
        principals=("svc-*",),
        roles=frozenset({"agent", "operator"}),
    )


def test_a_window_may_end_at_24_00_and_is_in_utc_unless_it_says_otherwise():
    window = conditions_from_manifest({"time_window": {"start": "00:00", "end": "24:00"}}).time_window
    assert window == TimeWindow(0, 1_440, "UTC")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"policy_id": "default"}, "policy_id"),
        ({"policy_id": "undeclared"}, "policy_id"),
        ({"type": "forbid"}, "type"),
        ({"when": ""}, "when"),
        ({"when": "args.amount >" + " (" * 25}, "when"),
        ({"when": "result.price > 5"}, "when"),
        ({"parameters": {"max_cost": 3}}, "parameters.max_cost"),
        ({**RATE, "parameters": {**RATE["parameters"], "unit": "usd"}}, "parameters.unit"),
        ({"type": "budget"}, "parameters.max_cost"),
        ({**BUDGET, "parameters": {"max_cost": -1, "window_seconds": 60}}, "parameters.max_cost"),
        ({**BUDGET, "parameters": {"max_cost": math.inf, "window_seconds": 60}}, "parameters.max_cost"),
        ({**BUDGET, "parameters": {"max_cost": True, "window_seconds": 60}}, "parameters.max_cost"),
        ({**BUDGET, "parameters": {"max_cost": 1e10, "window_seconds": 60}}, "parameters.max_cost"),
        ({**BUDGET, "parameters": {"max_cost": 1}}, "parameters.window_seconds"),
        ({**BUDGET, "parameters": {**BUDGET["parameters"], "max_calls": 1}}, "parameters.max_calls"),
        ({**BUDGET, "parameters": {**BUDGET["parameters"], "cost": "args.n ("}}, "parameters.cost"),
        ({**BUDGET, "parameters": {**BUDGET["parameters"], "unit": "calls", "cost": "args.n"}}, "parameters.cost"),
        ({**BUDGET, "parameters": {**BUDGET["parameters"], "cost": "result.n"}}, "parameters.cost"),
        ({**BUDGET, "parameters": {**BUDGET["parameters"], "reserve": 1}}, "parameters.reserve"),
        (
            {**BUDGET, "parameters": {**BUDGET["parameters"], "cost": "args.n", "reserve": 1}},
            "parameters.reserve",
        ),
        ({"conditions": {"arguments": {}}}, "arguments"),
        ({"actions": []}, "actions"),
        ({"type": "allow", "disclose": False}, "disclose"),
        ({"type": "require_approval", "disclose": False}, "disclose"),
        ({"reason": "one", "parameters": {"reason": "other"}}, "parameters.reason"),
        ({"parameters": {"max_calls": 3}}, "parameters.max_calls"),
        ({"parameters": {"window_seconds": 3}}, "parameters.window_seconds"),
        ({"type": "allow", "parameters": {"scope": "agent"}}, "parameters.scope"),
        ({"type": "rate_limit"}, "parameters.max_calls"),
        ({"type": "rate_limit", "parameters": {"max_calls": 1}}, "parameters.window_seconds"),
        ({"type": "rate_limit", "parameters": {"max_calls": 0, "window_seconds": 1}}, "parameters.max_calls"),
        ({"type": "rate_limit", "parameters": {"max_calls": True, "window_seconds": 1}}, "parameters.max_calls"),
        ({"type": "rate_limit", "parameters": {"max_calls": 1, "window_seconds": 1.5}}, "parameters.window_seconds"),
        ({**RATE, "parameters": {**RATE["parameters"], "scope": "world"}}, "parameters.scope"),
        ({"conditions": {"agents": []}}, "agents"),
        ({"conditions": {"risk_tiers": []}}, "risk_tiers"),
        ({"conditions": {"risk_tiers": ["extreme"]}}, "risk_tiers"),
        ({"conditions": {"capabilities": []}}, "capabilities"),
        ({"conditions": {"context_matches": {}}}, "context_matches"),
        ({"conditions": {"time_window": {"start": "9:00", "end": "17:00"}}}, "time_window.start"),
        ({"conditions": {"time_window": {"start": "24:00", "end": "17:00"}}}, "time_window.start"),
        ({"conditions": {"time_window": {"start": "09:00", "end": "24:01"}}}, "time_window.end"),
        ({"conditions": {"time_window": {"start": "09:60", "end": "17:00"}}}, "time_window.start"),
        ({"conditions": {"time_window": {"start": "09:00\n", "end": "17:00"}}}, "time_window.start"),
        ({"conditions": {"time_window": {"start": "٠٩:00", "end": "17:00"}}}, "time_window.start"),
        ({"conditions": {"time_window": {"start": "09:00", "end": "17:00", "days": []}}}, "time_window.days"),
        ({"conditions": {"time_window": {"start": "09:00", "end": "17:00", "days": ["Mon"]}}}, "time_window.days"),
        (
            {"conditions": {"time_window": {"start": "09:00", "end": "17:00", "timezone": "Mars"}}},
            "time_window.timezone",
        ),
    ],
)
def test_what_would_have_no_effect_or_two_meanings_is_refused_by_its_key(change, key):
    with pytest.raises(ValueError, match=f"^{key}: "):
        policy_from_manifest({"policy_id": "p", "type": "deny", **change}, 0)


@pytest.mark.parametrize(
    ("types", "override", "expected"),
    [
        ([], None, "allow"),
        (["deny", "rate_limit"], None, "allow"),
        (["deny", "allow"], None, "deny"),
        (["deny"], "deny", "deny"),
        (["allow"], "allow", "allow"),
    ],
)
def test_what_no_policy_decides_is_denied_once_some_policy_allows(types, override, expected):
    assert default_effect([Policy(kind, kind) for kind in types], override) == expected


def digest(*policies, default="deny"):
    return compile_policies(policies, [ActionFacts("a.b")], default).digest


def test_the_digest_names_the_policies_and_the_default():
    one = policy_from_manifest(RATE, 0)
    assert digest(one) == digest(policy_from_manifest(dict(reversed(RATE.items())), 0))
    canonical = (
        b'{"default_effect":"allow","policies":[{"actions":["*"],"conditions":{"agents":[],"capabilities":[],'
        b'"context_matches":{},"risk_tiers":[],"time_window":null},"disclose":true,"limit":{"limit_id":"rate",'
        b'"max_calls":2,"scope":"agent","window_us":60000000},"policy_id":"rate","priority":0,"reason":"",'
        b'"type":"rate_limit"}]}'
    )
    assert digest(one, default="allow") == sha256(canonical).hexdigest()
    assert digest() == sha256(b'{"default_effect":"deny","policies":[]}').hexdigest()


def test_the_digest_does_not_depend_on_how_sets_are_ordered_in_memory():
    conditions = {
        "risk_tiers": ["medium", "low", "high", "critical"],
        "capabilities": ["e", "d", "c", "b", "a"],
        "time_window": {"start": "00:00", "end": "01:00", "days": ["sun", "mon", "fri"]},
    }
    canonical = (
        b'{"default_effect":"deny","policies":[{"actions":["*"],"conditions":{"agents":[],'
        b'"capabilities":["a","b","c","d","e"],"context_matches":{},'
        b'"risk_tiers":["critical","high","low","medium"],'
        b'"time_window":{"days":[0,4,6],"end":60,"start":0,"timezone":"UTC"}},"disclose":true,"limit":null,'
        b'"policy_id":"no","priority":0,"reason":"","type":"deny"}]}'
    )
    policy = policy_from_manifest({"policy_id": "no", "type": "deny", "conditions": conditions}, 0)
    assert digest(policy) == sha256(canonical).hexdigest()


def test_evidence_is_for_approvals_only_and_is_in_the_digest():
    asks = {"policy_id": "ask", "type": "require_approval"}
    grades = [policy_from_manifest({**asks, "parameters": {"min_evidence": grade}}, 0) for grade in EVIDENCE]
    assert [policy.min_evidence for policy in grades] == list(EVIDENCE)
    assert len({digest(policy) for policy in [policy_from_manifest(asks, 0), *grades]}) == 5
    for kind, grade in (("deny", "local_cli"), ("allow", "application"), ("require_approval", "notary")):
        with pytest.raises(ValueError, match=r"^parameters\.min_evidence"):
            policy_from_manifest({"policy_id": "p", "type": kind, "parameters": {"min_evidence": grade}}, 0)


def test_the_digest_covers_principals_and_roles():
    conditions = (
        {},
        {"principals": ["ann"]},
        {"principals": ["bob"]},
        {"roles": ["agent"]},
        {"roles": ["admin", "agent"]},
    )
    policies = [policy_from_manifest({"policy_id": "no", "type": "deny", "conditions": each}, 0) for each in conditions]
    assert len({digest(policy) for policy in policies}) == len(conditions)
    swapped = policy_from_manifest({"policy_id": "no", "type": "deny", "conditions": {"roles": ["agent", "admin"]}}, 0)
    assert digest(swapped) == digest(policies[-1])


@pytest.mark.parametrize(
    "change",
    [
        {"policy_id": "other"},
        {"actions": ["a.*"]},
        {"reason": "because"},
        {"priority": 1},
        {"parameters": {"max_calls": 3, "window_seconds": 60}},
        {"parameters": {"max_calls": 2, "window_seconds": 61}},
        {"parameters": {"max_calls": 2, "window_seconds": 60, "scope": "global"}},
        {"conditions": {"risk_tiers": ["low"]}},
        {"conditions": {"agents": ["bot"]}},
        {"conditions": {"capabilities": ["money"]}},
        {"conditions": {"context_matches": {"env": "prod"}}},
        {"conditions": {"time_window": {"start": "09:00", "end": "17:00"}}},
        {"conditions": {"time_window": {"start": "09:00", "end": "17:00", "days": ["mon"]}}},
    ],
)
def test_whatever_changes_in_a_policy_changes_the_digest(change):
    assert digest(policy_from_manifest({**RATE, **change}, 0)) != digest(policy_from_manifest(RATE, 0))


def test_the_default_the_type_the_disclosure_and_the_order_change_the_digest():
    one, other = Policy("one", "deny", order=0), Policy("other", "deny", order=1)
    digests = {
        digest(one, other),
        digest(one, other, default="allow"),
        digest(Policy("one", "allow", order=0), other),
        digest(Policy("one", "deny", disclose=False, order=0), other),
        digest(Policy("one", "deny", order=1), Policy("other", "deny", order=0)),
    }
    assert len(digests) == 5
    assert digest(other, one) == digest(one, other)
