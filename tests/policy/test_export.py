"""What is exported, what is refused, and how it reads."""

from dataclasses import replace

import pytest

from cra_mcp.policy.compiler import policy_from_manifest
from cra_mcp.policy.export.cedar import cedar_policies, cedar_request, cedar_schema
from cra_mcp.policy.export.form import InexpressibleError, Scope, express
from cra_mcp.policy.expression import ExpressionError, parse_expression
from cra_mcp.policy.model import ActionFacts, Facts, Layer, Policy, RiskTier

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


CALLED = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "note": {"type": "string"},
        "on": {"type": "boolean"},
        "x": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "any": {},
        "to": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}
TAKING = [replace(action, parameters=CALLED) for action in ACTIONS]


def called(when, actions=TAKING):
    policy = policy_from_manifest({"policy_id": "p", "type": "deny", "when": when}, 0)
    return express([policy], actions, "allow", calls=True)


def test_an_expression_over_arguments_asks_first_whether_they_are_there():
    form = called("args.n > 5 && !(has(args.note) || -7 <= args.n)")
    assert form.arguments == ("n", "note")
    assert (
        "when {\n  !("
        '(context has numbers && context.numbers has "n" && !(context.numbers["n"] > 5)) || '
        '((context has given && context.given.contains("note")) || '
        '(context has numbers && context.numbers has "n" && context.numbers["n"] >= -7)))\n}'
    ) in cedar_policies(form)
    assert 'numbers: { "n"?: Long, "note"?: Long },\n' in cedar_schema(form)
    allow = policy_from_manifest({"policy_id": "p", "type": "allow", "when": "args.note in ['a', 'b'] || !args.on"}, 0)
    assert (
        'when {\n  ((context has texts && context.texts has "note" && ["a", "b"].contains(context.texts["note"])) || '
        '(context has flags && context.flags has "on" && !(context.flags["on"] == true)))\n}'
    ) in cedar_policies(express([allow], TAKING, "deny", calls=True))


def test_arguments_are_sent_by_their_kind_and_named_whatever_they_are():
    form = called("args.n == 1 || args.note == 'a' || has(args.any)")

    def context(**args):
        sent = cedar_request(form, "desk", "ticket.read", Facts("bot", "s"), approved=False, args=args)["context"]
        return [sent[name] for name in ("texts", "numbers", "flags", "given")]

    assert context(n=5.0, note="x", other="y") == [{"note": "x"}, {"n": 5}, {}, ["n", "note"]]
    assert context(n=True, note=None, any=[1]) == [{}, {}, {"n": True}, ["any", "n", "note"]]
    assert context(n=2**63, note=5.5) == [{}, {}, {}, ["n", "note"]]


@pytest.mark.parametrize("note", ["a\0", "\0", "a\ud800"])
def test_a_text_that_an_expression_cannot_be_given_is_not_sent_either(note):
    form = called("args.n == 1 || args.note == 'a'")
    request = cedar_request(form, "desk", "ticket.read", Facts("bot", "s"), approved=False, args={"note": note})
    assert (request["context"]["texts"], request["context"]["given"]) == ({}, ["note"])


@pytest.mark.parametrize(
    "when",
    [
        "args.x > 5.0", "args.x == 5", "args.note < 'b'", "args.note.startsWith('a')", "args.to.n == 1", "args['n'] == 1",
        "'a' in args.tags", "args.any == 5", "agent.id == 'bot'", "now.getHours() > 5", "args.n + 1 > 2", "args.n == args.n",
        "args.n > 1 ? true : false", "(args.n > 1) == true", "args.n in []", "args.n in [1u]", "args.n == 0x10", "true",
        "args.note == 'it\\\\'s'", "args.note == r'a'", "!args.on == true", "has(args.to.n)", "args.on < true", "5 == 5",
        "args.n in [1, 'a']", "args.n == 9223372036854775808", "args.n == -true", "has(args.n) in [true]", "args.n", "'a'",
        "args.note.matches('a')", "args.n == 1 || size(args.tags) == 2", "args.on in [true] in [true]", "args.n in 5",
        "args.none == 5 && has(args.none)", "1 in [args.n]", "args.n == 1 == true", "has(context.x)", "args.", "(args.n == 1",
    ],
)  # fmt: skip
def test_what_has_no_exact_form_is_refused(when):
    try:
        expression = parse_expression(when)
    except ExpressionError:
        return  # no policy has it
    policy = Policy("p", "deny", when=expression)
    with pytest.raises(InexpressibleError) as refusal:
        express([policy], TAKING, "allow", calls=True)
    assert [(each.pointer, each.code) for each in refusal.value.obstacles] == [("/when", "expression")]


def test_what_an_argument_is_must_be_the_same_in_every_action():
    other = [TAKING[0], replace(TAKING[1], parameters={"type": "object", "properties": {"n": {"type": "string"}}})]
    for actions in (other, [TAKING[0], ACTIONS[1]]):
        with pytest.raises(InexpressibleError):
            called("has(args.n) && args.n == 1", actions)
    assert called("has(args.n)", other).arguments == ("n",)
