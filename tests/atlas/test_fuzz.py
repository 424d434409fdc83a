"""Whatever stands in the files, loading answers with an atlas or with located problems, soon."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.manifest_schema import json_schema
from cra_mcp.errors import AtlasInvalidError, Problem
from tests.atlas.conftest import action, manifest

SLOWEST_S = 5.0

FULL = manifest(
    authors=["Somebody"],
    license="Apache-2.0 OR MIT",
    homepage="https://example.com",
    domains=["d"],
    default_effect="allow",
    metadata={"k": [1, None]},
    adapters={"mcp": {"x": 1}},
    dependencies={"com.example.b": ">=1.0.0 <2.0.0"},
    upstreams={"up": {"command": "x", "args": ["${A:-b}"], "env": {"E": "v"}}, "far": {"url": "https://x.example/"}},
    capabilities=[{"capability_id": "c", "name": "C", "actions": ["t.*"], "context_packs": ["p"]}],
    context_packs=[{"pack_id": "p", "name": "P", "content": "text", "keywords": ["k"], "max_tokens": 100}],
    actions=[
        action(
            "t.run",
            parameters_schema={
                "type": "object",
                "properties": {"n": {"type": "integer"}, "child": {"$ref": "#"}},
                "$defs": {"s": {"type": "string", "pattern": "^a+$"}},
            },
            returns_schema={"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}]},
            rate_limit={"max_calls": 5, "window_seconds": 60},
            executor={"type": "command", "argv": ["echo", "--n={n}"], "cwd": "/", "env": ["LANG"]},
        ),
        action("t.call", executor={"type": "mcp", "upstream": "up", "tool": "x"}, cost=1.5),
        action("t.code", executor={"type": "python", "callable": "a.b:c"}, timeout_seconds=2),
        action(
            "t.web",
            parameters_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            idempotent=True,
            executor={
                "type": "http",
                "method": "PUT",
                "url": "https://x.example/{n}{?n}",
                "query": {"q": "{n}", "fixed": 1},
                "headers": {"X-N": "n={n}"},
                "body": {"json": {"n": "{n}", "list": ["{n}", {"deep": "{{}}"}]}},
                "secrets": {
                    "Authorization": {"env": "KEY", "prefix": "Bearer "},
                    "key": {"keyring": "a/b", "in": "query"},
                },
                "result": "/data/0",
                "retries": 1,
                "max_redirects": 1,
                "allow_hosts": ["y.example:8443"],
            },
        ),
    ],
    policies=[
        {"policy_id": "d", "type": "deny", "actions": ["*.x"], "reason": "r", "disclose": False, "priority": 5},
        {
            "policy_id": "r",
            "type": "rate_limit",
            "parameters": {"max_calls": 1, "window_seconds": 2, "scope": "global"},
        },
        {
            "policy_id": "a",
            "type": "require_approval",
            "conditions": {
                "risk_tiers": ["high"],
                "agents": ["*"],
                "capabilities": ["c"],
                "context_matches": {"k": "v*"},
                "time_window": {"start": "09:00", "end": "24:00", "timezone": "Europe/Berlin", "days": ["mon"]},
            },
        },
    ],
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["t.run", "t.*", "#", "#/$defs/s", "object", "deny", "../x", "{n}", "${A}", "x" * 5_000, "allow"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["$ref", "type", "properties", "pattern", "allOf", "items", "argv", "actions", "when", "executor", "policy_id", "x"]
)


def places(value: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of everything inside a value."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for step, inner in steps for place in places(inner, (*here, step)))]


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """A good manifest with up to three values replaced, removed, added or copied elsewhere."""
    value: dict[str, Any] = {"": copy.deepcopy(FULL)}
    for _ in range(draw(st.integers(1, 3))):
        *way, last = ("", *draw(st.sampled_from(places(value[""]))))
        target: Any = value
        for step in way:
            target = target[step]
        match draw(st.sampled_from(["replace", "remove", "add", "copy"])):
            case "remove" if way:
                del target[last]
            case "add" if isinstance(target[last], dict):
                target[last][draw(KEYS)] = draw(JSON)
            case "copy":
                inner: Any = value[""]
                for step in draw(st.sampled_from(places(inner))):
                    inner = inner[step]
                target[last] = copy.deepcopy(inner)
            case _:
                target[last] = draw(JSON)
        if not isinstance(value[""], dict):
            break
    return value


def check(text: str) -> list[tuple[str, str]]:
    """Load, and hold the loader to what it promises of problems."""
    started = time.process_time()
    problems = problems_of(text)
    assert time.process_time() - started < SLOWEST_S
    for problem in problems or ():
        assert problem.file == "f"
        assert problem.code
        assert problem.message
        assert "\n" not in problem.message
        leads_somewhere(problem.pointer, text, problem.code)
    assert problems is None or problems
    return [(problem.pointer, problem.code) for problem in problems or ()]


def problems_of(text: str) -> tuple[Problem, ...] | None:
    try:
        load_atlas_text(text, name="f")
    except AtlasInvalidError as error:
        return error.problems
    return None


def leads_somewhere(pointer: str, text: str, code: str) -> None:
    if code in ("invalid_json", "not_utf8", "too_large"):
        assert pointer == ""
        return
    value = json.loads(text)
    for part in pointer.split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        value = value[int(step)] if isinstance(value, list) else value[step]


def test_the_atlas_that_is_mutated_is_good() -> None:
    assert check(json.dumps(FULL)) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_a_mutated_manifest_is_an_atlas_or_located_problems(value: dict[str, Any]) -> None:
    check(json.dumps(value[""]))


@pytest.mark.long
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_many_mutated_manifests_are_atlases_or_located_problems(value: dict[str, Any]) -> None:
    check(json.dumps(value[""]))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_any_text_is_an_atlas_or_located_problems(text: str) -> None:
    check(text)


SHAPE = {"wrong_type", "missing_field", "unknown_field", "invalid_format", "out_of_range", "unsupported_version"}


def agree(value: object) -> None:
    """The published schema refuses exactly what the loader calls a fault of shape.

    ``invalid_value`` and ``unsupported_feature`` are used for both kinds of fault, so they decide nothing here.
    """
    codes = {code for _, code in check(json.dumps(value))}
    accepted = VALIDATOR.is_valid(value)
    if not codes:
        assert accepted, value
    if codes & SHAPE:
        assert not accepted, (codes, value)
    if not accepted:
        assert codes & (SHAPE | {"invalid_value", "unsupported_feature", "invalid_schema", "duplicate_id"}), value


VALIDATOR = jsonschema_rs.Draft202012Validator(json_schema(), offline=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_the_published_schema_agrees_with_the_loader_on_shape(value: dict[str, Any]) -> None:
    agree(value[""])


@pytest.mark.long
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_the_published_schema_agrees_with_the_loader_on_shape_many_times(value: dict[str, Any]) -> None:
    agree(value[""])


VECTORS = Path(__file__).resolve().parents[2] / "specs" / "conformance" / "schema"


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_the_published_schema_agrees_with_the_loader_on_every_vector(path: Path) -> None:
    files = json.loads(path.read_text())["input"].get("files", {})
    if list(files) == ["atlas.json"] and isinstance(files["atlas.json"], dict):
        agree(files["atlas.json"])
