"""Overlays: the operator's policy file and overlay atlases, over whatever atlases are loaded."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError
from tests.atlas.conftest import action, manifest, problems

Folder = Callable[[Mapping[str, object]], Path]

SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}}
ATLAS = manifest(
    actions=[action("t.pay", parameters_schema=SCHEMA), action("t.read"), action("t.drop")],
    policies=[{"policy_id": "no-drop", "type": "deny", "actions": ["t.drop"]}],
)
PACK = manifest(
    atlas_id="com.example.pack", overlay=True, policies=[{"policy_id": "no-pay", "type": "deny", "actions": ["t.pay"]}]
)
YAML = """\
# what we want
policies:
  - policy_id: cap
    type: deny
    actions: ["*.pay"]
    when: args.amount > 500
    reason: Too much at once.
"""


def runtime(*atlases: object, **settings: object) -> CRARuntime:
    made = CRARuntime(RuntimeConfig(store="memory", **settings))  # pyright: ignore[reportArgumentType]
    for each in atlases:
        made.load_atlas_from_json(json.dumps(each))
    return made


def written(tmp_path: Path, content: object, name: str = "mine.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def policy_file(*policies: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"policies": [{"policy_id": f"p{at}", "type": "deny", **each} for at, each in enumerate(policies)], **more}


def allowed(made: CRARuntime) -> list[str]:
    return [each.action.action_id for each in made.permissions()]


def refused(path: Path) -> list[tuple[str, str, str]]:
    with pytest.raises(AtlasInvalidError) as error:
        load_policy_file(path)
    return [(found.file, found.pointer, found.code) for found in error.value.problems]


@pytest.mark.parametrize("first", [True, False])
def test_a_policy_file_governs_every_action_whenever_it_is_loaded(tmp_path: Path, first: bool) -> None:
    path = written(tmp_path, policy_file({"actions": ["*.pay"]}))
    with runtime(policy_files=(path,)) if first else runtime(ATLAS) as made:
        if first:
            made.load_atlas_from_json(json.dumps(ATLAS))
        else:
            made.load_policy_file(path)
        assert allowed(made) == ["t.read"]


async def call(made: CRARuntime, **args: object) -> tuple[str, str | None]:
    session = made.create_session("agent", "g")
    outcome = await made.execute(session.session_id, "t.pay", args)
    return outcome.status, str(outcome.fault.details.get("policy_id")) if outcome.fault is not None else None


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_policy_file_can_be_yaml_and_read_arguments(tmp_path: Path) -> None:
    async with runtime(ATLAS, policy_files=(written(tmp_path, YAML, "mine.yaml"),)) as made:
        assert await call(made, amount=501) == ("denied", "operator/cap")
        assert (await call(made, amount=5))[1] != "operator/cap"


def test_an_allow_of_an_overlay_opens_nothing_and_closes_what_it_does_not_name(tmp_path: Path) -> None:
    path = written(tmp_path, policy_file({"type": "allow", "actions": ["t.drop", "t.read"]}))
    with runtime(ATLAS, policy_files=(path,)) as made:
        assert allowed(made) == ["t.read"]


def test_an_overlay_atlas_governs_and_is_named_in_the_trace(tmp_path: Path) -> None:
    pack, mine = written(tmp_path, PACK, "pack.json"), written(tmp_path, policy_file({"actions": ["t.read"]}))
    with runtime(ATLAS, policy_files=(mine,), overlays=(pack,)) as made:
        assert allowed(made) == []
        session = made.create_session("agent", "g")
        started = made.get_trace(session.session_id)[0].payload
        assert [each["overlay_id"] for each in started["overlays"]] == ["operator", "com.example.pack"]
        assert [each["version"] for each in started["overlays"]] == ["", "1.0.0"]
        resolution = made.resolve(session.session_id).to_dict()
        assert [each["policy_id"] for each in resolution["denied_actions"]] == [
            "com.example.pack/no-pay",
            "operator/p0",
            "no-drop",
        ]
        assert [each.overlay_id for each in made.overlays()] == ["operator", "com.example.pack"]


def test_the_policy_digest_covers_the_overlays_and_a_later_one_is_recorded(tmp_path: Path) -> None:
    with runtime(ATLAS) as made:
        session = made.create_session("agent", "g")
        made.load_policy_file(written(tmp_path, policy_file({"actions": ["t.read"]})))
        events = [event for event in made.get_trace(session.session_id) if event.event_type == "x.cra.overlay.loaded"]
        assert [event.payload["overlay_id"] for event in events] == ["operator"]
        later = made.get_trace(made.create_session("agent", "g").session_id)[0].payload
        assert later["policy_digest"] != made.get_trace(session.session_id)[0].payload["policy_digest"]


def test_an_atlas_is_exchanged_and_unloaded_under_its_overlays(tmp_path: Path) -> None:
    one = written(tmp_path, ATLAS, "one.json")
    with runtime(policy_files=(written(tmp_path, policy_file({"actions": ["*.pay"]})),)) as made:
        made.load_atlas(one)
        written(tmp_path, {**ATLAS, "version": "1.0.1", "policies": []}, "one.json")
        made.replace_atlas("com.example.a", one)
        assert allowed(made) == ["t.read", "t.drop"]
        made.unload_atlas("com.example.a")
        made.load_atlas(one)
        assert allowed(made) == ["t.read", "t.drop"]


def test_what_does_not_fit_an_action_is_refused_whichever_comes_last(tmp_path: Path) -> None:
    path = written(
        tmp_path, policy_file({"when": "args.amount > 500"}, {"when": "has(args.amount) && args.amount > 5"})
    )
    with runtime(ATLAS) as made:
        with pytest.raises(
            AtlasInvalidError,
            match=r"mine\.json:/policies/0/when:1: invalid_expression: t\.read has no argument amount",
        ):
            made.load_policy_file(path)
        assert allowed(made) == ["t.pay", "t.read"]
    with runtime(policy_files=(path,)) as made:
        with pytest.raises(AtlasInvalidError, match="no argument"):
            made.load_atlas_from_json(json.dumps(ATLAS))
        assert made.list_atlases() == []


def test_a_cost_that_does_not_fit_is_refused_too(tmp_path: Path) -> None:
    budget = {
        "type": "budget",
        "parameters": {"max_cost": 1, "unit": "usd", "window_seconds": 60, "cost": "args.amount"},
    }
    with runtime(ATLAS) as made, pytest.raises(AtlasInvalidError, match="/policies/0/parameters/cost:1"):
        made.load_policy_file(written(tmp_path, policy_file(budget)))


def test_two_overlays_of_one_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, policy_file())
    with runtime(policy_files=(path,)) as made, pytest.raises(AtlasConflictError):
        made.load_policy_file(path)
    other = written(tmp_path, policy_file(overlay_id="other"), "other.json")
    with runtime(policy_files=(path, other)) as made:
        assert [each.overlay_id for each in made.overlays()] == ["operator", "other"]


def test_an_overlay_is_no_atlas_and_an_atlas_no_overlay(tmp_path: Path) -> None:
    with runtime() as made, pytest.raises(AtlasInvalidError) as refusal:
        made.load_atlas_from_json(json.dumps(PACK))
    assert "--overlay" in (refusal.value.hint or "")
    with pytest.raises(AtlasInvalidError, match="is no overlay"):
        load_overlay_atlas(written(tmp_path, ATLAS))


def test_an_overlay_atlas_has_policies_only_and_may_name_what_is_elsewhere(folder: Folder) -> None:
    elsewhere = {"policy_id": "p", "type": "deny", "actions": ["x.y"], "conditions": {"capabilities": ["money"]}}
    assert problems({**PACK, "policies": [elsewhere]}) == []
    pack = {"pack_id": "p", "name": "P", "content": "x"}
    wrong = {**PACK, "context_packs": [pack], "upstreams": {"u": {"command": "x"}}, "actions": [action()]}
    assert {code for _, _, code in problems(wrong)} == {"invalid_value"}
    assert load_overlay_atlas(folder({"atlas.json": PACK})).overlay_id == "com.example.pack"


@pytest.mark.parametrize(
    ("content", "name", "found"),
    [
        ("{", "a.json", ("", "invalid_json")),
        ("[]", "a.json", ("", "wrong_type")),
        ("{}", "a.json", ("", "missing_field")),
        ('{"policies": [], "policies": []}', "a.json", ("", "invalid_json")),
        ("policies: []\npolicies: []\n", "a.yaml", ("", "invalid_yaml")),
        ("policies: [\n", "a.yml", ("", "invalid_yaml")),
        ('{"policies": {}}', "a.json", ("/policies", "wrong_type")),
        ('{"policies": [], "actions": []}', "a.json", ("/actions", "unknown_field")),
        ('{"policies": [], "overlay_id": "A b"}', "a.json", ("/overlay_id", "invalid_format")),
        ('{"policies": [5]}', "a.json", ("/policies/0", "wrong_type")),
        ('{"policies": [{"policy_id": "p", "type": "forbid"}]}', "a.json", ("/policies/0/type", "invalid_value")),
        (
            '{"policies": [{"policy_id": "p", "type": "deny", "when": "1 +"}]}',
            "a.json",
            ("/policies/0/when", "invalid_expression"),
        ),
        (json.dumps(policy_file({"policy_id": "p"}, {"policy_id": "p"})), "a.json", ("/policies/1/policy_id", "duplicate_id")),
        (json.dumps({"policies": [{}] * 1_001}), "a.json", ("/policies", "out_of_range")),
    ],
)  # fmt: skip
def test_a_policy_file_with_a_problem_is_refused_at_its_place(
    tmp_path: Path, content: str, name: str, found: tuple[str, str]
) -> None:
    assert (name, *found) in refused(written(tmp_path, content, name))


def test_a_policy_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.json") == [("none.json", "", "not_found")]
    assert refused(tmp_path) == [(tmp_path.name, "", "unreadable")]
    assert refused(written(tmp_path, " " * 1_048_577, "big.json")) == [("big.json", "", "too_large")]
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"policies": "\xff"}')
    assert refused(path) == [("latin.json", "", "not_utf8")]


def test_settings_name_policy_files_and_overlays_between_commas() -> None:
    from cra_mcp.settings import from_environment  # noqa: PLC0415

    config = from_environment({"CRA_POLICY_FILES": "a.json, b.yaml", "CRA_OVERLAYS": "pack"})
    assert (config.policy_files, config.overlays) == ((Path("a.json"), Path("b.yaml")), (Path("pack"),))
