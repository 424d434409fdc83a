"""The linter: each code with what triggers it and what, nearly the same, doesn't."""

import json
from pathlib import Path

import pytest

from cra_mcp.analysis.findings import CODES
from cra_mcp.analysis.lint import lint_paths
from cra_mcp.analysis.policy_lint import constant_value
from cra_mcp.errors import AtlasInvalidError
from cra_mcp.policy.expression import parse_expression
from tests.faces.cli.conftest import cra

ATLASES = Path(__file__).resolve().parents[2] / "atlases"
GHP = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"  # a token's form, of nobody


def action(action_id, **more):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    return {"action_id": action_id, "name": "n", "description": "d", "parameters_schema": schema, **more}


def with_schema(**more):
    return action("do.read", parameters_schema={"type": "object", "additionalProperties": False, **more})


def manifest(policies=(), actions=(), **more):
    named = {each["action_id"] for each in actions}
    return {
        "atlas_version": "1.0",
        "atlas_id": "com.example.lint",
        "version": "1.0.0",
        "name": "L",
        "description": "d",
        "capabilities": [{"capability_id": "reads", "name": "r", "actions": ["do.read"]}],
        "actions": [*actions, *(action(name) for name in ("do.read", "do.delete") if name not in named)],
        "policies": list(policies),
        **more,
    }  # fmt: skip


def lint(folder, policies=(), actions=(), *, operator=None, **more):
    path = folder / "lint.json"
    path.write_text(json.dumps(manifest(policies, actions, **more)))
    files = []
    if operator is not None:
        files.append(folder / "operator.json")
        files[0].write_text(json.dumps(operator))
    return lint_paths([("lint.json", path)], files)


def policy(policy_id, kind="deny", **more):
    return {"policy_id": policy_id, "type": kind, **more}


LIMIT = {"parameters": {"max_calls": 1, "window_seconds": 60}}
NIGHT = {"conditions": {"time_window": {"start": "22:00", "end": "06:00"}}}
HIGH = action("do.pay", risk_tier="high")
USD = {"unit": "usd", "window_seconds": 60}
DEPLOY = action(
    "do.deploy",
    cost=2.5,
    parameters_schema={
        "type": "object",
        "properties": {
            "env": {"type": "string", "enum": ["dev", "prod"]},
            "count": {"type": "integer", "minimum": 1, "maximum": 100},
            "ratio": {"type": "number", "minimum": 0},
            "sure": {"type": "boolean"},
            "note": {"type": "string"},
        },
        "required": ["env", "count", "ratio", "sure"],
        "additionalProperties": False,
    },
)

FOUND = [
    # what, policies, actions, findings as (code, pointer)
    ("a glob of nothing", [policy("p", actions=["do.*", "pay.*"])], [], [("unmatched_glob", "/policies/0/actions/1")]),
    ("a glob of something", [policy("p", actions=["do.*", "*.read"])], [], []),
    (
        "a tier no action it is about can have",
        [policy("p", actions=["do.pay"], conditions={"risk_tiers": ["low", "medium"]})],
        [HIGH],
        [("uncovered_risk", "/actions/0/risk_tier"), ("unreachable_policy", "/policies/0/conditions")],
    ),
    (
        "a tier that a task can lift it to",
        [policy("p", actions=["do.pay"], conditions={"risk_tiers": ["low", "critical"]})],
        [HIGH],
        [],
    ),
    (
        "a capability of none of its actions",
        [policy("p", actions=["do.delete"], conditions={"capabilities": ["reads"]})],
        [],
        [("unreachable_policy", "/policies/0/conditions")],
    ),
    ("a capability of one", [policy("p", conditions={"capabilities": ["reads"]})], [], []),
    (
        "an approval behind a deny",
        [policy("ask", "require_approval", actions=["do.read"]), policy("no", actions=["do.*"])],
        [],
        [("shadowed_policy", "/policies/0")],
    ),
    (
        "an approval that a deny only partly covers",
        [policy("ask", "require_approval"), policy("no", actions=["do.read"])],
        [],
        [],
    ),
    ("an approval behind a deny at night", [policy("ask", "require_approval"), policy("no", **NIGHT)], [], []),
    (
        "an approval behind a deny of one capability",
        [policy("ask", "require_approval"), policy("no", conditions={"capabilities": ["reads"]})],
        [],
        [],
    ),
    (
        "an allow behind an approval",
        [policy("ask", "require_approval"), policy("let", "allow", actions=["do.read"])],
        [],
        [("shadowed_policy", "/policies/1")],
    ),
    ("a limit behind an approval", [policy("ask", "require_approval"), policy("few", "rate_limit", **LIMIT)], [], []),
    (
        "a deny behind one that is always named",
        [policy("no"), policy("night", **NIGHT)],
        [],
        [("shadowed_policy", "/policies/1")],
    ),
    ("a deny that is named before", [policy("no"), policy("night", priority=1, **NIGHT)], [], []),
    ("a deny that hides what the other tells", [policy("no"), policy("night", disclose=False, **NIGHT)], [], []),
    (
        "two that do the same",
        [
            policy("a", "rate_limit", actions=["do.read", "do.delete"], **LIMIT),
            policy("b", "rate_limit", actions=["do.delete", "do.read"], priority=3, reason="r", **LIMIT),
        ],
        [],
        [("duplicate_policy", "/policies/1")],
    ),
    (
        "two budgets that do the same",
        [
            policy("a", "budget", parameters={"max_cost": 1, "window_seconds": 60}),
            policy("b", "budget", parameters={"max_cost": 1, "window_seconds": 60}),
        ],
        [],
        [("duplicate_policy", "/policies/1")],
    ),
    (
        "two limits that differ",
        [
            policy("a", "rate_limit", **LIMIT),
            policy("b", "rate_limit", parameters={"max_calls": 1, "window_seconds": 61}),
        ],
        [],
        [],
    ),
    (
        "a condition on every tier",
        [policy("p", conditions={"risk_tiers": ["low", "medium", "high", "critical"]})],
        [],
        [("constant_condition", "/policies/0/conditions/risk_tiers")],
    ),
    (
        "conditions on everybody",
        [policy("p", conditions={"agents": ["**"], "principals": ["a", "*"]})],
        [],
        [
            ("constant_condition", "/policies/0/conditions/agents"),
            ("constant_condition", "/policies/0/conditions/principals"),
        ],
    ),
    ("conditions on some", [policy("p", conditions={"agents": ["a*"], "context_matches": {"k": "*"}})], [], []),
    (
        "a window that is always open",
        [policy("p", conditions={"time_window": {"start": "09:00", "end": "09:00"}})],
        [],
        [("constant_condition", "/policies/0/conditions/time_window")],
    ),
    (
        "a window of a whole day",
        [policy("p", conditions={"time_window": {"start": "00:00", "end": "24:00"}})],
        [],
        [("constant_condition", "/policies/0/conditions/time_window")],
    ),
    (
        "a window of whole weekdays",
        [policy("p", conditions={"time_window": {"start": "00:00", "end": "24:00", "days": ["mon"]}})],
        [],
        [],
    ),
    (
        "an expression that is always false",
        [policy("p", when="args.n > 3 && 1 > 2")],
        [],
        [("constant_condition", "/policies/0/when"), ("unguarded_argument", "/policies/0/when")],
    ),
    ("an expression", [policy("p", when="has(args.n) && args.n > 3")], [], []),
    (
        "an argument no action takes",
        [policy("p", conditions={"arguments": {"required": ["sum"], "properties": {"amonut": {"maximum": 5}}}})],
        [],
        [
            ("unknown_argument", "/policies/0/conditions/arguments/properties/amonut"),
            ("unknown_argument", "/policies/0/conditions/arguments/required"),
        ],
    ),
    (
        "an argument that one action takes",
        [policy("p", conditions={"arguments": {"required": ["env", "n"], "properties": {"env": {"const": "dev"}}}})],
        [DEPLOY],
        [],
    ),
    (
        "an argument that anybody may name",
        [policy("p", actions=["do.read"], conditions={"arguments": {"required": ["any"]}})],
        [action("do.read", parameters_schema={"type": "object", "additionalProperties": True})],
        [],
    ),
    (
        "values and bounds that no action takes",
        [
            policy(
                "p",
                actions=["do.deploy"],
                conditions={
                    "arguments": {
                        "properties": {
                            "env": {"enum": ["dev", "production"]},
                            "count": {"minimum": 101},
                            "ratio": {"maximum": -1, "const": "many"},
                        }
                    }
                },
            )
        ],
        [DEPLOY],
        [
            ("impossible_condition", "/policies/0/conditions/arguments/properties/count/minimum"),
            ("impossible_condition", "/policies/0/conditions/arguments/properties/env/enum/1"),
            ("impossible_condition", "/policies/0/conditions/arguments/properties/ratio/const"),
            ("impossible_condition", "/policies/0/conditions/arguments/properties/ratio/maximum"),
        ],
    ),
    (
        "values and bounds at the edge of what it takes",
        [
            policy(
                "p",
                actions=["do.deploy"],
                conditions={
                    "arguments": {
                        "properties": {
                            "env": {"enum": ["dev", "prod"]},
                            "count": {"minimum": 100, "maximum": 100},
                            "ratio": {"maximum": 0, "const": 0},
                        }
                    }
                },
            )
        ],
        [DEPLOY],
        [],
    ),
    (
        "ranges without values",
        [
            policy(
                "p",
                conditions={
                    "arguments": {
                        "anyOf": [
                            {"properties": {"n": {"minimum": 5, "maximum": 4}}},
                            {"properties": {"n": {"items": {"minLength": 2, "maxLength": 1}}}},
                            {"properties": {"n": {"minItems": 1, "maxItems": 1}}},
                        ]
                    }
                },
            )
        ],
        [],
        [
            ("impossible_condition", "/policies/0/conditions/arguments/anyOf/0/properties/n/minimum"),
            ("impossible_condition", "/policies/0/conditions/arguments/anyOf/1/properties/n/items/minLength"),
        ],
    ),
    *(
        (
            f"an expression of what can't be: {when}",
            [policy("p", actions=["do.deploy"], when=when)],
            [DEPLOY],
            [("impossible_condition", "/policies/0/when")],
        )
        for when in (
            "args.env == 'production'",
            "args.env in ['dev', 'production']",
            "!(args.env != 'PROD') && args.sure",
            "args.count > 100",
            "args.count <= 100",
            "args.count >= 101",
            "args.count < 1",
            "args.env == 'dev' && task.risk_tier == 'hgh'",
            "'extreme' != action.risk_tier || args.sure",
        )
    ),
    *(
        (f"an expression of what can be: {when}", [policy("p", actions=["do.deploy"], when=when)], [DEPLOY], [])
        for when in (
            "args.env == 'prod'",
            "args.env in ['dev', 'prod']",
            "args.env + 'uction' == 'production'",
            "args.env == 'pro' + 'd'",
            "args.count > 99 && args.count < 100",
            "args.count >= 100",
            "args.count <= 1 && args.ratio >= 0.5",
            "args.count * 2 > 150",
            "action.risk_tier == 'high' || args.sure",
            "'operator' in principal.roles",
            "has(args.note) && args.note == 'x'",
            "agent.id == 'production'",
        )
    ),
    (
        "an argument that may be missing",
        [policy("p", when="args.n > 3")],
        [],
        [("unguarded_argument", "/policies/0/when")],
    ),
    (
        "an argument that one of the actions can be called without",
        [policy("p", actions=["do.deploy"], when="args.env == 'prod' && args.note == 'x'")],
        [DEPLOY],
        [("unguarded_argument", "/policies/0/when")],
    ),
    (
        "instants that have passed",
        [
            policy("a", when="now < timestamp('2020-01-01T00:00:00Z')"),
            policy("b", when="timestamp('2020-01-01T00:00:00+02:00') <= now && agent.id != 'x'"),
        ],
        [],
        [("past_timestamp", "/policies/0/when"), ("past_timestamp", "/policies/1/when")],
    ),
    (
        "an instant to come, and one that is not compared with the clock",
        [
            policy("a", when="now < timestamp('2999-01-01T00:00:00Z')"),
            policy("b", when="has(context.t) && timestamp(context.t) > timestamp('2020-01-01T00:00:00Z')"),
        ],
        [],
        [],
    ),
    (
        "budgets that admit no call, or never end",
        [
            policy("a", "budget", actions=["do.deploy"], parameters={**USD, "max_cost": 2.49}),
            policy(
                "b",
                "budget",
                actions=["do.deploy"],
                parameters={**USD, "max_cost": 1, "cost": "result.x", "reserve": 2},
            ),
            policy("c", "budget", actions=["do.free"], parameters={**USD, "max_cost": 1}),
            policy("d", "budget", parameters={"max_cost": 0.5, "window_seconds": 60}),
        ],
        [DEPLOY, action("do.free", cost=0)],
        [
            ("unreachable_budget", "/policies/0/parameters/max_cost"),
            ("unreachable_budget", "/policies/1/parameters/reserve"),
            ("unreachable_budget", "/policies/2/parameters"),
            ("unreachable_budget", "/policies/3/parameters/max_cost"),
        ],
    ),
    (
        "budgets with room for a call",
        [
            policy("a", "budget", actions=["do.deploy"], parameters={**USD, "max_cost": 2.5}),
            policy(
                "b",
                "budget",
                actions=["do.deploy"],
                parameters={**USD, "max_cost": 2, "cost": "result.x", "reserve": 2},
            ),
            policy("c", "budget", parameters={**USD, "max_cost": 1}),
        ],
        [DEPLOY],
        [],
    ),
    (
        "commas in globs",
        [policy("p", conditions={"agents": ["a", "b,c*"], "principals": ["x, y"], "context_matches": {"k": "a,b"}})],
        [],
        [
            ("comma_in_glob", "/policies/0/conditions/agents/1"),
            ("comma_in_glob", "/policies/0/conditions/principals/0"),
        ],
    ),
    (
        "a role there isn't",
        [policy("p", when="'admin' in principal.roles || 'operater' in principal.roles")],
        [],
        [("unknown_role", "/policies/0/when")],
    ),
    ("a risky action nobody speaks of", [], [HIGH], [("uncovered_risk", "/actions/0/risk_tier")]),
    ("a risky action with a limit", [policy("p", "rate_limit", actions=["do.pay"], **LIMIT)], [HIGH], []),
    ("a risky action that needs confirmation", [], [{**HIGH, "requires_confirmation": True}], []),
    ("a risky action that is allowed by name", [policy("p", "allow", actions=["do.p*"])], [HIGH], []),
    (
        "a risky action that is allowed with all others",
        [policy("p", "allow")],
        [HIGH],
        [("uncovered_risk", "/actions/0/risk_tier")],
    ),
    (
        "a secret by its form",
        [policy("p", reason=f"not with {GHP}")],
        [],
        [("secret", "/policies/0/reason")],
    ),
    (
        "a secret by the name of its property",
        [],
        [with_schema(properties={"a": {"properties": {"password": {"type": "string", "default": "hunter2"}}}})],
        [("secret", "/actions/0/parameters_schema/properties/a/properties/password/default")],
    ),
    (
        "a secret in an example in a branch",
        [],
        [with_schema(properties={"note": {"anyOf": [{"type": "string", "examples": [GHP]}]}})],
        [
            ("secret", "/actions/0/parameters_schema/properties/note/anyOf/0/examples"),
            ("secret", "/actions/0/parameters_schema/properties/note/anyOf/0/examples/0"),
        ],
    ),
    (
        "a property called password, with an address in another's example",
        [],
        [with_schema(properties={"password": {"type": "string"}, "mail": {"examples": ["ann@example.com"]}})],
        [],
    ),
    (
        "a long name",
        [],
        [action("do.read", publish={"as": "tool", "name": "n" * 41})],
        [("long_name", "/actions/0/publish/name")],
    ),
    ("a name that just fits", [], [action("do.read", publish={"as": "tool", "name": "n" * 40})], []),
    (
        "an exact schema with a branch at its root",
        [],
        [{**with_schema(anyOf=[{"required": ["n"]}]), "publish": {"as": "tool", "parameters_schema": "exact"}}],
        [("rejected_schema", "/actions/0/parameters_schema/anyOf")],
    ),
    (
        "a portable schema with a branch at its root",
        [],
        [with_schema(anyOf=[{"required": ["n"]}])],
        [("loosened_schema", "/actions/0/parameters_schema/anyOf")],
    ),
    (
        "an exact schema with a branch below its root",
        [],
        [
            {
                **with_schema(properties={"n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}),
                "publish": {"as": "tool", "parameters_schema": "exact"},
            }
        ],
        [],
    ),
    (
        "results that are no objects",
        [],
        [action("do.read", returns_schema={"type": "array"})],
        [("returns_not_object", "/actions/0/returns_schema")],
    ),
    (
        "what hosts are told less of, or otherwise",
        [],
        [
            action(
                "do.read",
                parameters_schema={
                    "additionalProperties": True,
                    "type": "object",
                    "properties": {
                        "a": {"pattern": r"^\_$"},
                        "b": {"pattern": r"\p{L}"},
                        "c": {"not": {"format": "date"}},
                    },
                },
                returns_schema={"type": "object", "properties": {"d": {"multipleOf": 2}}},
            )
        ],
        [
            ("rewritten_pattern", "/actions/0/parameters_schema/properties/a/pattern"),
            ("loosened_schema", "/actions/0/parameters_schema/properties/b/pattern"),
            ("loosened_schema", "/actions/0/parameters_schema/properties/c/not"),
            ("loosened_schema", "/actions/0/returns_schema/properties/d/multipleOf"),
        ],
    ),
    (
        "an older dialect",
        [],
        [
            with_schema(
                **{"$schema": "http://json-schema.org/draft-07/schema#"},
                properties={"a": {"items": [{"prefixItems": [True], "format": "date"}]}},
            )
        ],
        [
            ("translated_schema", "/actions/0/parameters_schema"),
            ("loosened_schema", "/actions/0/parameters_schema/properties/a/items/0/format"),
            ("ignored_keyword", "/actions/0/parameters_schema/properties/a/items/0/prefixItems"),
        ],
    ),
    (
        "misspelt keywords, and others that some tools know",
        [],
        [
            with_schema(
                properties={
                    "a": {"type": "integer", "maximun": 5, "example": 3, "nullable": True},
                    "maximun": {"oneOf": [{"MinLength": 1}]},
                }
            )
        ],
        [
            ("misspelt_keyword", "/actions/0/parameters_schema/properties/a/maximun"),
            ("misspelt_keyword", "/actions/0/parameters_schema/properties/maximun/oneOf/0/MinLength"),
        ],
    ),
    (
        "arguments that nobody declared",
        [],
        [action("do.read", parameters_schema={"type": "object"})],
        [("undeclared_arguments", "/actions/0/parameters_schema")],
    ),
    (
        "a name of a property that some hosts refuse",
        [],
        [with_schema(properties={"filter[id]": {}, "fil.ter-i_d": {}})],
        [("rejected_property", "/actions/0/parameters_schema/properties/filter[id]")],
    ),
    ("results that are objects", [], [action("do.read", returns_schema={"type": "object"})], []),
    (
        "a prompt, whose schema no host gets",
        [],
        [
            {
                **with_schema(properties={"q": {"type": "string"}}, anyOf=[{}]),
                "publish": {"as": "prompt"},
                "executor": {"type": "python", "callable": "m:f"},
            }
        ],
        [],
    ),
]


@pytest.mark.parametrize(
    ("policies", "actions", "expected"), [case[1:] for case in FOUND], ids=[case[0] for case in FOUND]
)
def test_what_is_found(tmp_path, policies, actions, expected):
    findings = lint(tmp_path, policies, actions)
    assert [(each.code, each.pointer) for each in findings] == expected
    assert {each.file for each in findings} <= {"lint.json"}


def test_an_allow_where_all_is_allowed_is_found_and_one_where_it_is_not_is_not(tmp_path):
    let = policy("let", "allow", actions=["do.read"])
    findings = lint(tmp_path, [let], default_effect="allow")
    assert [(each.code, each.pointer) for each in findings] == [("useless_allow", "/policies/0")]
    assert lint(tmp_path, [let]) == []


def test_every_code_is_triggered_by_some_test():
    triggered = {code for _, _, _, expected in FOUND for code, _ in expected}
    assert triggered | {"useless_allow", "undeclared_action"} == set(CODES)


def test_the_operators_file_is_looked_at_with_the_atlases_it_governs(tmp_path):
    operator = {"policies": [policy("no", actions=["do.*", "nothing.*"]), policy("token", reason=GHP)]}
    findings = lint(tmp_path, [policy("ask", "require_approval")], [HIGH], operator=operator)
    name = str(tmp_path / "operator.json")
    assert [(each.code, each.file, each.pointer) for each in findings] == [
        ("unmatched_glob", name, "/policies/0/actions/1"),
        ("shadowed_policy", name, "/policies/1"),
        ("secret", name, "/policies/1/reason"),
        ("shadowed_policy", "lint.json", "/policies/0"),
    ]


def test_an_allow_is_not_shadowed_by_the_approval_of_another_layer(tmp_path):
    operator = {"policies": [policy("ask", "require_approval")]}
    assert lint(tmp_path, [policy("let", "allow", actions=["do.read"])], operator=operator) == []


def test_an_action_that_nobody_is_allowed_is_not_uncovered(tmp_path):
    assert lint(tmp_path, [policy("let", "allow", actions=["do.read"])], [HIGH]) == []
    operator = {"policies": [policy("let", "allow", actions=["do.read"])]}
    assert lint(tmp_path, [], [HIGH], operator=operator) == []


def test_an_overlay_atlas_alone_and_a_yaml_file_can_be_linted(tmp_path):
    path = tmp_path / "pack"
    (path / "policies").mkdir(parents=True)
    head = {**manifest(), "overlay": True}
    for name in ("actions", "capabilities", "policies"):
        del head[name]
    (path / "atlas.json").write_text(json.dumps(head))
    (path / "policies" / "all.json").write_text(
        json.dumps([policy("p", conditions={"agents": ["*"]}), policy("q", actions=["x.*"])])
    )
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("policies:\n- {policy_id: p, type: deny, when: 'true || false'}\n")
    findings = lint_paths([("pack/", path)], [yaml])
    assert [(each.code, each.file, each.pointer) for each in findings] == [
        ("constant_condition", str(yaml), "/policies/0/when"),
        ("constant_condition", "pack/policies/all.json", "/0/conditions/agents"),
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("true", True),
        ("1 == 2", False),
        ("args.n > 1 || true", True),
        ("args.n == 2 && false", False),
        ("args.n > 1", None),
        ("has(args.n)", None),
        ("has(args.n) || !has(args.n)", None),
        ("size(args) == 0", None),
        ("context.x == 1 || args.y", None),
        ("agent.id == ''", None),
        ("args.tags.all(tag, true)", None),
    ],
)
def test_an_expression_is_constant_only_where_nothing_it_reads_matters(expression, value):
    assert constant_value(parse_expression(expression)) is value


# An overlay is written for actions of any atlas, and tightens: over few of them, some of it concerns none, and what it denies
# hides what they say themselves.
OF_OVERLAYS = {"unmatched_glob", "unreachable_policy", "shadowed_policy"}


def test_the_shipped_atlases_and_overlays_are_clean():
    names = [path.parent.name for path in sorted(ATLASES.glob("*/atlas.json"))]
    overlays = [path.parent.name for path in sorted(ATLASES.glob("overlays/*/atlas.json"))]
    assert names
    assert overlays
    atlases = [(name, ATLASES / name) for name in names]
    over = [(name, ATLASES / "overlays" / name) for name in overlays]
    assert lint_paths(atlases) == []
    assert [lint_paths([each]) for each in over] == [[]] * len(over)
    assert {each.code for each in lint_paths([*atlases, *over])} <= OF_OVERLAYS


def test_an_atlas_that_does_not_load_is_not_linted(tmp_path):
    with pytest.raises(AtlasInvalidError):
        lint(tmp_path, [policy("p", type="nothing")])


def test_levels_are_in_order():
    assert set(CODES.values()) == {"error", "warning", "note"}


def test_the_command_counts_from_the_level_on_and_says_where(tmp_path):
    path = tmp_path / "lint.json"
    path.write_text(json.dumps(manifest([policy("p", actions=["pay.*"])], [with_schema(anyOf=[{}])])))
    done = cra("policy", "lint", path)
    assert done.returncode == 1
    assert done.stdout == f"{path}:/policies/0/actions/0: warning unmatched_glob: pay.* matches no action\n"
    assert "1 finding, 1 below the level" in done.stderr
    assert cra("policy", "lint", path, "--level", "error").returncode == 0
    told = json.loads(cra("policy", "lint", path, "--level", "note", "--json").stdout)
    assert (told["ok"], [each["code"] for each in told["findings"]]) == (False, ["loosened_schema", "unmatched_glob"])
    assert cra("policy", "lint", "customer-support").returncode == 0
    assert cra("policy", "lint", tmp_path / "absent").returncode == 3


def test_a_capability_may_name_what_is_declared_elsewhere(tmp_path):
    capabilities = [{"capability_id": "all", "name": "a", "actions": ["do.read", "do.*", "do.list", "pay.*"]}]
    found = lint(tmp_path, capabilities=capabilities)
    assert [(each.code, each.pointer, each.level) for each in found] == [
        ("undeclared_action", "/capabilities/0/actions/2", "warning"),
        ("undeclared_action", "/capabilities/0/actions/3", "warning"),
    ]
