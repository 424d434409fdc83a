"""How actions are presented, and what their functions are given."""

import json

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.model import Publication, PythonExecutor
from cra_mcp.atlas.publication import uri_pattern, uri_variables
from cra_mcp.errors import AtlasConflictError
from tests.atlas.conftest import action, load, manifest, problems

TEXT = {"type": "object", "properties": {"id": {"type": "string"}}}
NUMBER = {"type": "object", "properties": {"id": {"type": "integer"}}}


def resource(uri: str, schema: dict[str, object] = TEXT, **fields: object) -> dict[str, object]:
    return action("t.x", parameters_schema=schema, publish={"as": "resource", "uri": uri, **fields})


def test_an_action_is_a_tool_under_the_name_of_its_id_unless_it_says_otherwise() -> None:
    atlas = load(
        manifest(
            actions=[
                action("t.plain"),
                action("t.named", publish={"as": "tool", "name": "Other_name", "parameters_schema": "exact"}),
                action("t.prompt", publish={"as": "prompt"}),
                action("t.res", publish={"as": "resource", "uri": "test://a", "mime_type": "image/png"}),
            ]
        )
    )
    assert [each.publication for each in atlas.actions] == [
        Publication(),
        Publication("tool", "Other_name", exact_schema=True),
        Publication("prompt"),
        Publication("resource", uri="test://a", mime_type="image/png"),
    ]
    assert [each.published_name for each in atlas.actions] == ["t_plain", "Other_name", "t_prompt", "t_res"]


def test_a_function_gets_a_context_and_may_ask_what_the_atlas_says() -> None:
    executor = {"type": "python", "callable": "m:f", "context": "ctx", "asks": ["sampling", "roots"]}
    (loaded,) = load(manifest(actions=[action("t.x", executor=executor)])).actions
    assert loaded.executor == PythonExecutor("m:f", "ctx", frozenset({"sampling", "roots"}))


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (resource("cra://sessions"), ("/actions/0/publish/uri", "reserved_name")),
        (resource("ui://cra/trace"), ("/actions/0/publish/uri", "reserved_name")),
        (resource("app://%63RA/x"), ("/actions/0/publish/uri", "reserved_name")),
        (resource("ui://{id}/trace"), ("/actions/0/publish/uri", "reserved_name")),
        (resource("test://a", name="Cra-x"), ("/actions/0/publish/name", "reserved_name")),
        (resource("test://{other}"), ("/actions/0/publish/uri", "unknown_parameter")),
        (resource("test://{id}", NUMBER), ("/actions/0/publish/uri", "invalid_placeholder")),
        (resource("test://{+id}"), ("/actions/0/publish/uri", "invalid_placeholder")),
        (resource("test://{id"), ("/actions/0/publish/uri", "invalid_placeholder")),
        (resource("test://{id}/{id}"), ("/actions/0/publish/uri", "invalid_placeholder")),
        (resource("no uri"), ("/actions/0/publish/uri", "invalid_format")),
        (resource("test://a", name="cra_x"), ("/actions/0/publish/name", "reserved_name")),
        (resource("test://a", mime_type="png"), ("/actions/0/publish/mime_type", "invalid_format")),
        (
            action("t.x", parameters_schema=NUMBER, publish={"as": "prompt"}),
            ("/actions/0/parameters_schema/properties/id", "invalid_value"),
        ),
        (action("t.x", publish={"as_": "prompt"}), ("/actions/0/publish", "missing_field")),
        (
            action("t.x", parameters_schema=TEXT, executor={"type": "python", "callable": "m:f", "context": "id"}),
            ("/actions/0/executor/context", "name_collision"),
        ),
        (
            action("t.x", executor={"type": "python", "callable": "m:f", "asks": ["roots"]}),
            ("/actions/0/executor/asks", "invalid_value"),
        ),
    ],
)
def test_what_could_not_work_is_refused(bad: dict[str, object], expected: tuple[str, str]) -> None:
    assert expected in [(pointer, code) for _, pointer, code in problems(manifest(actions=[bad]))]


def test_two_actions_can_not_have_one_published_name() -> None:
    clash = manifest(actions=[action("t.a"), action("t.b", publish={"as": "prompt", "name": "t_a"})])
    assert [(pointer, code) for _, pointer, code in problems(clash)] == [("/actions/1/publish/name", "name_collision")]


def test_two_atlases_can_not_share_a_chosen_name() -> None:
    runtime = CRARuntime(RuntimeConfig(store="memory"))
    runtime.load_atlas_from_json(_text("com.example.one", "t.a", "shared"))
    with pytest.raises(AtlasConflictError):
        runtime.load_atlas_from_json(_text("com.example.two", "u.a", "shared"))


def _text(atlas_id: str, action_id: str, name: str) -> str:
    wanted = manifest(actions=[action(action_id, publish={"as": "tool", "name": name})])
    return json.dumps({**wanted, "atlas_id": atlas_id})


@pytest.mark.parametrize(
    ("template", "uri", "values"),
    [
        ("test://a.b/{id}/c", "test://a.b/7/c", {"id": "7"}),
        ("test://a.b/{id}/c", "test://aXb/7/c", None),
        ("test://a/{id}", "test://a/7/8", None),
        ("test://a/{id}", "test://a/", None),
        ("test://a/{id}", "test://a/7?x=1", None),
        ("test://{a}-{b}", "test://x-y", {"a": "x", "b": "y"}),
        ("test://plain", "test://plain", {}),
        ("test://plain", "test://plain/", None),
    ],
)
def test_a_template_matches_whole_uris(template: str, uri: str, values: dict[str, str] | None) -> None:
    match = uri_pattern(template).fullmatch(uri)
    assert (match.groupdict() if match else None) == values
    assert set(uri_variables(template)) == set(values or uri_variables(template))
