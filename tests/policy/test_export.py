"""What is exported, what is refused, and how it reads."""

from cra_mcp.policy.compiler import policy_from_manifest
from cra_mcp.policy.export.cedar import cedar_policies, cedar_request, cedar_schema
from cra_mcp.policy.export.form import InexpressibleError, Scope, express
from cra_mcp.policy.model import ActionFacts, Facts, Layer, RiskTier

ACTIONS = [ActionFacts("ticket.read"), ActionFacts("ticket.delete", RiskTier.HIGH)]


def made(*manifests, default="deny", overlays=(), actions=ACTIONS):
    policies = [policy_from_manifest(each, order) for order, each in enumerate(manifests)]
    return express(policies, actions, default, overlays)


def refused(*manifests, **more):
    try:
        made(*manifests, **more)
    except InexpressibleError as error:
        return [(each.layer, each.policy_id, each.pointer, each.code) for each in error.obstacles]
    return []


def overlay(*manifests, default="allow"):
    policies = [policy_from_manifest(each, order, namespace="ops") for order, each in enumerate(manifests)]
    return Layer("ops", tuple(policies), default)


def test_every_obstacle_is_named_at_once_and_where_it_stands():
    window = {"start": "08:00", "end": "18:00"}
    found = refused(
        {"policy_id": "a", "type": "deny", "when": "now.getHours() > 5"},
        {"policy_id": "b", "type": "deny", "conditions": {"arguments": {"required": ["x"]}, "time_window": window}},
        {"policy_id": "c", "type": "require_approval", "parameters": {"min_evidence": "local_cli"}},
        overlays=[overlay({"policy_id": "d", "type": "allow", "conditions": {"time_window": window}})],
    )
    assert found == [
        ("ops", "d", "/conditions/time_window", "time_window"),
        ("", "a", "/when", "expression"),
        ("", "b", "/conditions/arguments", "arguments"),
        ("", "b", "/conditions/time_window", "time_window"),
        ("", "c", "/parameters/min_evidence", "evidence"),
    ]


def test_half_a_surrogate_pair_is_refused_wherever_it_would_be_written():
    half = "\ud83d"
    policy = {
        "policy_id": "p",
        "type": "deny",
        "reason": half,
        "conditions": {"agents": ["ok", half], "principals": [half], "roles": [half], "context_matches": {half: "*"}},
    }
    assert [pointer for _, _, pointer, _ in refused(policy)] == [
        "/reason",
        "/conditions/agents",
        "/conditions/principals",
        "/conditions/roles",
        "/conditions/context_matches",
    ]
    assert refused(actions=[ActionFacts(f"a{half}")]) == [("", "", "", "text")]


def test_what_bears_on_no_action_is_left_out_whatever_it_says():
    policies = (
        {"policy_id": "a", "type": "deny", "actions": ["mail.*"], "when": "now.getHours() > 5"},
        {"policy_id": "b", "type": "deny", "conditions": {"capabilities": ["money"]}},
        {"policy_id": "c", "type": "deny", "actions": ["*.delete"], "conditions": {"risk_tiers": ["low", "medium"]}},
    )
    assert list(made(*policies).statements) == []


def test_a_risk_tier_is_asked_of_the_task_where_the_action_does_not_settle_it():
    (statement,) = made(
        {"policy_id": "p", "type": "deny", "conditions": {"risk_tiers": ["high", "critical"]}}
    ).statements
    assert statement.scopes == (
        Scope(("ticket.read",), (RiskTier.HIGH, RiskTier.CRITICAL)),
        Scope(("ticket.delete",), tuple(RiskTier)),
    )


READABLE = """\
@id("no-delete")
@reason("Deleting is for \\"people\\".")
@disclose("false")
forbid (principal, action in [CRA::Action::"ticket.delete"], resource)
when {
  (if context has facts && context.facts has "env" then context.facts["env"] like "prod*" else true)
};

@id("ask-risky")
@effect("require_approval")
forbid (principal, action in [CRA::Action::"ticket.read", CRA::Action::"ticket.delete"], resource)
when {
  ((action in [CRA::Action::"ticket.read"] && !(context has task_risk && ["medium", "critical"].contains(context.task_risk))) ||
   (action in [CRA::Action::"ticket.delete"] && !(context has task_risk && ["critical"].contains(context.task_risk))))
}
unless {
  context has approved && context.approved == true
};

@id("few")
forbid (principal, action in [CRA::Action::"ticket.read"], resource)
when {
  (if context has spent then context.spent.contains("few") else true)
};
"""
PERMIT = """\
@id("allow-bots")
permit (principal, action in [CRA::Action::"ticket.read"], resource)
when {
  context has task_risk && ["low"].contains(context.task_risk) &&
  (if context has agent then context.agent like "bot-*" || context.agent like "caf\\u{e9}" else false) &&
  (if context has roles then context.roles.containsAny(["operator"]) else false)
};
"""


def test_cedar_text_guards_what_it_reads_and_carries_reasons():
    form = made(
        {
            "policy_id": "no-delete",
            "type": "deny",
            "actions": ["*.delete"],
            "reason": 'Deleting is for "people".',
            "disclose": False,
            "conditions": {"context_matches": {"env": "prod*"}},
        },
        {"policy_id": "ask-risky", "type": "require_approval", "conditions": {"risk_tiers": ["low", "high"]}},
        {
            "policy_id": "few",
            "type": "rate_limit",
            "actions": ["ticket.read"],
            "parameters": {"max_calls": 1, "window_seconds": 1},
        },
        {
            "policy_id": "allow-bots",
            "type": "allow",
            "actions": ["ticket.read"],
            "conditions": {"agents": ["bot-*", "café"], "roles": ["operator"], "risk_tiers": ["low"]},
        },
    )
    text = cedar_policies(form)
    assert text.startswith(READABLE)
    assert text.endswith(PERMIT)
    assert text.count("permit (") == 2  # ask-risky: what needs approval is usable with it


def test_an_overlay_that_is_closed_forbids_what_none_of_its_policies_covers():
    covering = {"policy_id": "reads", "type": "allow", "actions": ["ticket.read"], "conditions": {"agents": ["bot"]}}
    text = cedar_policies(made(default="allow", overlays=[overlay(covering, default="deny")]))
    assert '@id("ops/default")' in text
    assert 'unless {\n  action in [CRA::Action::"ticket.read"] && (if context has agent' in text
    assert "unless" not in cedar_policies(made(default="allow", overlays=[overlay(default="deny")]))


def test_an_atlas_without_actions_exports_nothing_to_ask():
    form = made(actions=[], default="allow")
    assert cedar_policies(form) == ""
    assert "action" not in cedar_schema(form)


def test_a_request_carries_texts_that_policies_read_and_nothing_else():
    form = made(
        {"policy_id": "p", "type": "deny", "conditions": {"context_matches": {"env": "*", "team": "*", "zone": "*"}}}
    )
    facts = Facts("bot", "s1", context={"env": "prod", "team": 5, "secret": "x"}, roles=frozenset({"b", "a"}))
    assert cedar_request(form, "desk", "ticket.read", facts, approved=False, spent={"z", "y"})["context"] == {
        "agent": "bot",
        "subject": "local",
        "roles": ["a", "b"],
        "task_risk": "low",
        "approved": False,
        "spent": ["y", "z"],
        "facts": {"env": "prod"},
    }
