"""What an atlas becomes when it is loaded, and how problems are told."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cra_mcp.atlas import manifest_schema
from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.atlas.model import CommandExecutor, HttpExecutor, McpExecutor, PythonExecutor, RateLimit, SecretReference
from cra_mcp.atlas.required_forms import FORMS
from cra_mcp.errors import AtlasInvalidError
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Facts, RiskTier
from tests.atlas.conftest import action, load, manifest, problems

Folder = Callable[[Mapping[str, object]], Path]
FACTS = Facts(agent_id="a", session_id="s")


def pack(**fields: object) -> dict[str, object]:
    return {"pack_id": "p", "name": "P", **fields}


def test_lists_of_files_follow_those_of_the_manifest_in_order_of_names(folder: Folder) -> None:
    root = folder(
        {
            "atlas.json": manifest(actions=[action("t.first")], policies=[{"policy_id": "z", "type": "deny"}]),
            "actions/b.json": action("t.fourth"),
            "actions/a.json": [action("t.second"), action("t.third")],
            "policies/x.json": {"policy_id": "a", "type": "deny"},
            "adapters/openai.json": {"strict": True},
        }
    )
    atlas = load_atlas(root)
    assert [each.action_id for each in atlas.actions] == ["t.first", "t.second", "t.third", "t.fourth"]
    assert [each.policy_id for each in atlas.policies] == ["z", "a"]
    assert atlas.manifest["adapters"] == {"openai": {"strict": True}}
    assert [each["policy_id"] for each in atlas.manifest["policies"]] == ["z", "a"]


def test_an_action_has_what_the_manifest_says_and_defaults_else() -> None:
    full = action(
        "t.full",
        returns_schema={"type": "string"},
        risk_tier="critical",
        idempotent=True,
        requires_confirmation=True,
        timeout_seconds=7.5,
        rate_limit={"max_calls": 2, "window_seconds": 3},
        cost=0.25,
    )
    plain, rich = load(manifest(actions=[action("t.plain"), full])).actions
    assert (plain.risk_tier, plain.timeout_s, plain.executor, plain.returns_schema) == (RiskTier.LOW, 30.0, None, None)
    assert (plain.idempotent, plain.requires_confirmation, plain.rate_limit, plain.cost) == (False, False, None, None)
    assert (rich.risk_tier, rich.timeout_s, rich.rate_limit) == (RiskTier.CRITICAL, 7.5, RateLimit(2, 3))
    assert (rich.idempotent, rich.requires_confirmation, rich.cost) == (True, True, 0.25)
    assert rich.returns_schema == {"type": "string"}


def test_each_executor_becomes_its_value() -> None:
    executors = [
        {"type": "mcp", "upstream": "up", "tool": "x"},
        {"type": "python", "callable": "a.b:c"},
        {"type": "command", "argv": ["echo", "{n}"], "cwd": "${HERE}", "env": ["LANG"], "max_output_bytes": 5},
        {"type": "http", "method": "POST", "url": "https://example.com/{n}", "secrets": {"X-Key": {"env": "API_KEY"}}},
    ]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    actions = [action(f"t.n{number}", executor=each, parameters_schema=schema) for number, each in enumerate(executors)]
    upstreams = {
        "up": {"command": "x", "args": ["y"], "env": {"A": "${B}"}},
        "far": {"url": "http://x/", "headers": {}},
    }
    atlas = load(manifest(actions=actions, upstreams=upstreams))
    assert [each.executor for each in atlas.actions] == [
        McpExecutor("up", "x"),
        PythonExecutor("a.b:c"),
        CommandExecutor(("echo", "{n}"), "${HERE}", ("LANG",), 5),
        HttpExecutor("POST", "https://example.com/{n}", secrets=(SecretReference("X-Key", env="API_KEY"),)),
    ]
    assert (atlas.upstreams["up"].command, atlas.upstreams["up"].args, atlas.upstreams["up"].env) == (
        "x",
        ("y",),
        {"A": "${B}"},
    )
    assert atlas.upstreams["far"].url == "http://x/"


def test_capabilities_resolve_their_globs_and_actions_know_them() -> None:
    atlas = load(
        manifest(
            actions=[action("t.read"), action("t.write"), action("u.read")],
            capabilities=[
                {"capability_id": "all", "name": "All", "actions": ["*"]},
                {"capability_id": "read", "name": "Read", "actions": ["*.read", "t.read"], "context_packs": ["p"]},
                {"capability_id": "none", "name": "None"},
            ],
            context_packs=[pack(content="x")],
        )
    )
    assert [each.actions for each in atlas.capabilities] == [
        ("t.read", "t.write", "u.read"),
        ("t.read", "u.read"),
        (),
    ]
    assert atlas.capabilities[1].context_packs == ("p",)
    assert [each.capabilities for each in atlas.actions] == [{"all", "read"}, {"all"}, {"all", "read"}]


def test_confirmation_and_rate_limit_of_an_action_are_policies() -> None:
    limited = action("t.calm", rate_limit={"max_calls": 1, "window_seconds": 60})
    atlas = load(
        manifest(
            actions=[action("t.ask", requires_confirmation=True), limited, action("t.free")],
            policies=[{"policy_id": "own", "type": "deny", "actions": ["t.none*"]}],
        )
    )
    assert [(each.policy_id, each.type, each.actions) for each in atlas.policies] == [
        ("own", "deny", ("t.none*",)),
        ("action:t.ask:requires_confirmation", "require_approval", ("t.ask",)),
        ("action:t.calm:rate_limit", "rate_limit", ("t.calm",)),
    ]
    assert [each.order for each in atlas.policies] == sorted({each.order for each in atlas.policies})
    counters = Counters()

    def effect(action_id: str) -> str:
        return atlas.policy_set.decide(action_id, FACTS, counters, 0).effect

    assert (effect("t.ask"), effect("t.calm"), effect("t.free")) == ("require_approval", "allow", "allow")
    counters.take(atlas.policy_set.decide("t.calm", FACTS, counters, 0).limits, FACTS, 0)
    assert effect("t.calm") == "deny"


def test_an_allow_policy_makes_the_rest_denied_unless_the_manifest_says_otherwise() -> None:
    allow = {"policy_id": "a", "type": "allow", "actions": ["t.read"]}
    fields = {"actions": [action("t.read"), action("t.write")], "policies": [allow]}

    def effect(**more: object) -> str:
        return load(manifest(**fields, **more)).policy_set.decide("t.write", FACTS, Counters(), 0).effect

    assert effect() == "deny"
    assert effect(default_effect="allow") == "allow"
    assert load(manifest(actions=[action()], default_effect="deny")).policy_set.decide(
        "t.read", FACTS, Counters(), 0
    ).effect == ("deny")


def test_limits_of_one_name_in_two_atlases_count_apart() -> None:
    policy = {"policy_id": "calm", "type": "rate_limit", "parameters": {"max_calls": 1, "window_seconds": 60}}
    limits = {
        load(manifest(atlas_id=f"com.example.{name}", policies=[policy])).policies[0].limit.limit_id for name in "ab"
    }
    assert len(limits) == 2


def test_context_files_become_blocks(folder: Folder) -> None:
    atlas = load_atlas(
        folder(
            {
                "atlas.json": manifest(
                    context_packs=[
                        pack(files=["context/One File.md"], keywords=["k"], priority=7),
                        {"pack_id": "q", "name": "Q", "files": ["context/a.txt", "context/B c!.json", "context/é.md"]},
                    ]
                ),
                "context/One File.md": "héllo",
                "context/a.txt": "",
                "context/B c!.json": "{}",
                "context/é.md": "x",
            }
        )
    )
    assert [(each.block_id, each.source, each.content_type, each.token_estimate) for each in atlas.context_blocks] == [
        ("p", "com.example.a/context/One File.md", "text/markdown", 2),
        ("q.a", "com.example.a/context/a.txt", "text/plain", 0),
        ("q.b-c", "com.example.a/context/B c!.json", "application/json", 1),
        ("q.document", "com.example.a/context/é.md", "text/markdown", 1),
    ]
    first = atlas.context_blocks[0]
    assert (first.content, first.priority, first.keywords, first.pack_id, first.name) == ("héllo", 7, ("k",), "p", "P")
    assert atlas.context_blocks[1].priority == 100


def test_inline_content_is_a_block() -> None:
    (block,) = load(manifest(context_packs=[pack(content="# Hi", conditions={"agents": ["a"]})])).context_blocks
    assert (block.block_id, block.source, block.content_type, block.content) == (
        "p",
        "com.example.a/p",
        "text/markdown",
        "# Hi",
    )
    assert block.conditions.agents == ("a",)


@pytest.mark.parametrize("length", [63, 64, 65, 500])
def test_a_document_is_cut_to_its_tokens_and_says_so(length: int) -> None:
    (block,) = load(manifest(context_packs=[pack(content="x" * length, max_tokens=16)])).context_blocks
    assert block.token_estimate <= 16
    assert (block.content == "x" * length) == (length <= 64)
    if length > 64:
        assert len(block.content) == 64
        assert block.content.endswith("\n[cut: limit of 16 tokens]")


def test_every_problem_is_told_at_once_in_order(folder: Folder) -> None:
    bad_actions = [action(f"t.n{number}") for number in range(12)]
    bad_actions[10]["timeout_seconds"] = 0
    bad_actions[9]["name"] = 5
    del bad_actions[2]["description"]
    root = folder(
        {
            "atlas.json": manifest(version="1", surprise={}, actions=bad_actions, policies={}),
            "policies/b.json": [{"policy_id": "p", "type": "deny", "actions": ["t.nope"]}],
            "policies/a.json": "nonsense",
            "actions/c.json": action("t.n1"),
        }
    )
    assert problems(root) == [
        ("atlas.json", "/actions/2", "missing_field"),
        ("atlas.json", "/actions/9/name", "wrong_type"),
        ("atlas.json", "/actions/10/timeout_seconds", "out_of_range"),
        ("atlas.json", "/policies", "wrong_type"),
        ("atlas.json", "/surprise", "unknown_field"),
        ("atlas.json", "/version", "invalid_format"),
        ("actions/c.json", "/action_id", "duplicate_id"),
        ("policies/a.json", "", "invalid_json"),
        ("policies/b.json", "/0/actions/0", "unknown_action"),
    ]


def test_a_broken_part_does_not_make_others_look_broken() -> None:
    value = manifest(
        actions=[{"action_id": "t.read"}],
        capabilities=[{"capability_id": "c", "name": 5, "actions": ["t.read"]}],
        context_packs=[{"pack_id": "p"}],
        policies=[{"policy_id": "p", "type": "deny", "actions": ["t.read"], "conditions": {"capabilities": ["c"]}}],
    )
    assert {at for _, at, _ in problems(value)} == {"/actions/0", "/capabilities/0/name", "/context_packs/0"}


def test_an_error_says_file_pointer_code_and_message() -> None:
    with pytest.raises(AtlasInvalidError) as caught:
        load_atlas_text(json.dumps(manifest(name="")), name="mine.json")
    assert caught.value.code == "atlas_invalid"
    assert str(caught.value).startswith("mine.json:/name: out_of_range: ")
    assert "cra-mcp docs atlas" in (caught.value.hint or "")


def test_messages_do_not_repeat_values() -> None:
    secret = "".join(["hunter", "2"])
    value = manifest(
        version=secret,
        default_effect=secret,
        policies=[{"policy_id": "p", "type": secret}],
        upstreams={"u": {"command": "x", "env": {"A": [secret]}}},
        actions=[action(executor={"type": secret})],
    )
    with pytest.raises(AtlasInvalidError) as caught:
        load(value)
    assert len(caught.value.problems) == 5
    assert secret not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "x", 5, True])
def test_a_manifest_that_is_no_object_is_refused(value: object) -> None:
    assert problems(json.dumps(value)) == [("atlas.json", "", "wrong_type")]


def test_too_many_entries_are_refused() -> None:
    policies = [{"policy_id": f"p{number}", "type": "deny"} for number in range(1_001)]
    assert problems(manifest(policies=policies[:1_000])) == []
    assert problems(manifest(policies=policies)) == [("atlas.json", "", "out_of_range")]
    upstreams = {f"u{number}": {"command": "x"} for number in range(101)}
    assert problems(manifest(upstreams=upstreams)) == [("atlas.json", "/upstreams", "out_of_range")]


def test_an_error_names_at_most_a_thousand_problems() -> None:
    actions = [{"action_id": 1, "x": 1, "y": 1} for _ in range(900)]
    assert len(problems(manifest(actions=actions))) == 1_000


@pytest.mark.parametrize("name", ["policies/a.txt", "actions/sub/a.json", "tests/a", "adapters/README.md"])
def test_a_file_that_would_have_no_effect_is_refused(folder: Folder, name: str) -> None:
    assert problems(folder({name: "{}"})) == [(name, "", "unexpected_file")]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("adapters/A.json", {}, "invalid_format"),
        ("adapters/mcp.json", [], "wrong_type"),
        ("policies/a.json", 5, "wrong_type"),
        ("actions/a.json", [5], "wrong_type"),
        ("tests/a.json", {"name": "n", "cases": []}, "out_of_range"),
    ],
)
def test_files_of_the_wrong_form_are_refused(folder: Folder, name: str, content: object, code: str) -> None:
    (found,) = problems(folder({name: content}))
    assert (found[0], found[2]) == (name, code)


def test_a_program_of_the_package_may_be_run(folder: Folder) -> None:
    def executor(program: str) -> dict[str, object]:
        return action(executor={"type": "command", "argv": [program]})

    for program in ("bin/run", "./bin/run", "git", "/usr/bin/git", "C:/git.exe"):
        assert problems(folder({"atlas.json": manifest(actions=[executor(program)]), "bin/run": ""})) == [], program
    for program in ("bin/walk", "../bin/run", "./.git/hooks/x", ""):
        (found,) = problems(folder({"atlas.json": manifest(actions=[executor(program)]), "bin/run": ""}))
        assert found[1] == "/actions/0/executor/argv/0", program


def test_loading_imports_what_it_needs_and_the_module_nothing() -> None:
    script = (
        "import sys, cra_mcp.atlas.loader, cra_mcp.atlas.registry\n"
        "print([name for name in ('pydantic', 'jsonschema_rs', 'jsonschema', 'mcp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def texts_of(document: object) -> Iterator[str]:
    """The patterns of a JSON Schema."""
    if isinstance(document, dict):
        pattern = document.get("pattern")
        yield from [pattern] if isinstance(pattern, str) else []
        for each in document.values():
            yield from texts_of(each)
    elif isinstance(document, list):
        for each in document:
            yield from texts_of(each)


def test_every_form_a_text_can_be_refused_for_is_told_with_an_example_that_has_it() -> None:
    assert {*texts_of(manifest_schema.json_schema()), *texts_of(manifest_schema.tests_schema())} == set(FORMS)
    for pattern, (words, example) in FORMS.items():
        assert re.search(pattern, example), (pattern, words)


@pytest.mark.parametrize(
    ("fields", "pointer", "shown"),
    [
        ({"atlas_id": "Nope"}, "/atlas_id", "com.example.payments"),
        ({"policies": [{"policy_id": "p", "type": "deny", "actions": ["a.*,b.*"]}]}, "/policies/0/actions/0", "ticket.*"),
        ({"policies": [{"policy_id": "p", "type": "deny", "conditons": {}}]}, "/policies/0/conditons", "conditions"),
        (
            {"policies": [{"policy_id": "p", "type": "deny", "conditions": {"tenants": ["a"]}}]},
            "/policies/0/conditions/tenants",
            "agents, arguments, capabilities",
        ),
        (
            {"policies": [{"policy_id": "p", "type": "deny", "conditions": {"time_window": {"start": "9:00", "end": "10:00"}}}]},
            "/policies/0/conditions/time_window/start",
            '"09:00"',
        ),
        (
            {"actions": [action("t.a", executor={"type": "command", "argvs": ["x"], "argv": ["x"]})]},
            "/actions/0/executor/argvs",
            "write argv",
        ),
        ({"descripton": "d"}, "/descripton", "description"),
    ],
)  # fmt: skip
def test_a_problem_shows_what_would_be_right(fields: dict[str, object], pointer: str, shown: str) -> None:
    with pytest.raises(AtlasInvalidError) as caught:
        load(manifest(**fields))
    (problem,) = (each for each in caught.value.problems if each.pointer == pointer)
    assert shown in problem.message
    assert f" {problem.code}: {problem.message}" in str(problem)
