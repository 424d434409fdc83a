"""The TypeScript SDKs and the MCP Inspector drive the server."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cra_mcp.trace.event import verify
from tests.clients import install
from tests.faces.mcp.conftest import MANIFEST, Place, action, environment, write_atlas

HERE = Path(__file__).resolve().parent


def packages() -> ModuleType:
    """tests/clients/install.py, which brings node and the npm packages."""
    install.ready()
    return install


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, env=environment("agent,auditor"), timeout=120, check=False
    )


@pytest.mark.parametrize(("sdk", "mode"), [("1", "legacy"), ("2", "legacy"), ("2", "auto"), ("2", "pin")])
def test_a_typescript_client_lists_calls_is_refused_approves_watches_cancels_and_sees_progress(
    place: Place, sdk: str, mode: str
) -> None:
    npm = packages()
    script = [str(npm.node()), str(HERE / "drive.mjs"), sdk, mode, str(npm.MODULES), str(place.marks)]
    done = run([*script, sys.executable, *place.fresh_command()])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "tool_add" in report["tools"]
    assert "tool_delete" not in report["tools"]
    assert report["allowed"]["structuredContent"] == {"sum": 5}
    assert report["denied"]["isError"] is True
    assert "no-delete" in report["denied"]["content"][0]["text"]
    assert json.loads(report["approved"]["content"][0]["text"]) == {"echo": {"to": "ann"}}
    said, steps = report["steps"]
    # This client forgets the progress of a call whose answer came in the same read.
    assert (said, steps) == ("done", [[number, 3, f"step {number}"] for number in range(1, len(steps) + 1)])
    assert steps
    assert verify(report["trace"].encode().splitlines()).ok
    failed = [event["payload"]["error_code"] for event in place.events() if event["event_type"] == "action.failed"]
    assert (report["updated"][:12], failed) == ("cra://trace/", ["cancelled"])
    assert len(place.traces()) == 1, "a probing process leaves no trace"


SEVEN = "http://json-schema.org/draft-07/schema#"
HOSTILE: dict[str, dict[str, object]] = {
    "booleans": {"properties": {"a": False, "b": True, "c": {"items": False}}, "unevaluatedProperties": False},
    "flag": {"properties": {"a": {"pattern": "(?i)^x$"}}},
    "escape": {"properties": {"a": {"pattern": r"^\_$"}}},
    "group": {"properties": {"a": {"pattern": "(?P<x>a)"}}},
    "posix": {"properties": {"a": {"pattern": "[[:alpha:]]"}}},
    "anchor": {"properties": {"a": {"pattern": r"\Aa\z"}}},
    "hex": {"properties": {"a": {"pattern": r"\x{41}"}}},
    "names": {"properties": {"a": {"patternProperties": {r"\p{L}": {}}}}},
    "nullable": {"properties": {"a": {"nullable": True}}},
    "nothing": {"properties": {"a": {"enum": []}}},
    "inherited": {"properties": {"constructor": {"type": "string"}, "__proto__": {"type": "string"}}},
    "same-id": {"$id": "https://example.com/same", "properties": {"a": {"type": "string"}}},
    "same-id-too": {"$id": "https://example.com/same", "properties": {"a": {"type": "integer"}}},
    "narrowed": {
        "properties": {"a": {"$ref": "#/$defs/b", "properties": {"d": {}}}},
        "$defs": {"b": {"properties": {"c": {}}, "additionalProperties": False}},
    },
    "doubling": {
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "$defs": {
            **{f"d{n}": {"properties": {p: {"$ref": f"#/$defs/d{n + 1}"} for p in "lr"}} for n in range(11)},
            "d11": {"type": "string"},
        },
    },
    "draft-07": {
        "$schema": SEVEN,
        "properties": {"a": {"items": [{"$ref": "#/definitions/b"}], "additionalItems": False}},
        "dependencies": {"a": ["b"]},
        "definitions": {"b": {"type": "string"}},
    },
    "vendor": {"properties": {"filter[id]": {"type": "string"}}, "additionalProperties": False},
    "large": {"properties": {"a": {"enum": ["e" * 200_000]}}},
}


def hostile_atlas() -> dict[str, object]:
    actions: list[dict[str, object]] = []
    for name, more in HOSTILE.items():
        schema: dict[str, object] = {"type": "object", **more}
        actions.append(action(f"in.{name}", "echo", parameters_schema=schema))
        actions.append(action(f"out.{name}", "echo", returns_schema=schema))
        exact = {"as": "tool", "parameters_schema": "exact"}
        if name == "booleans":
            actions.append(action("exact.booleans", "echo", parameters_schema=schema, publish=exact))
    returns = {
        "type": "object",
        "properties": {"echo": {"properties": {"constructor": {"type": "string"}, "at": {"format": "date"}}}},
    }
    actions.append(action("out.called", "echo", returns_schema=returns))
    return {**MANIFEST, "actions": actions, "policies": []}


@pytest.mark.parametrize(("sdk", "mode"), [("1", "legacy"), ("2", "legacy"), ("2", "pin")])
def test_a_typescript_client_lists_whatever_schemas_an_atlas_has(tmp_path: Path, sdk: str, mode: str) -> None:
    npm = packages()
    manifest = hostile_atlas()
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", manifest))
    # A value that one validator of formats takes and another doesn't, and an object without a member of its own.
    calls = json.dumps([["out_called", {"at": "2024-0+-29"}]])
    script = [str(npm.node()), str(HERE / "list.mjs"), sdk, mode, str(npm.MODULES), calls]
    done = run([*script, sys.executable, *place.fresh_command(), "--control-tools", "all"])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    listed = {
        tool["_meta"]["dev.cra/action"]["action_id"]
        for tool in report["tools"]
        if "dev.cra/action" in tool.get("_meta", {})
    }
    assert listed == {each["action_id"] for each in manifest["actions"]}  # type: ignore[index, attr-defined]
    assert report["results"][0]["structuredContent"] == {"echo": {"at": "2024-0+-29"}}
    assert len(json.dumps(report["tools"])) < 300_000


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_lists_and_calls(place: Place, era: str) -> None:
    npm = packages()
    package = json.loads(npm.package_file("@modelcontextprotocol/inspector", "package.json").read_text())
    entry = package["bin"]["mcp-inspector"]
    inspector = [
        str(npm.node()),
        str(npm.package_file("@modelcontextprotocol/inspector", entry)),
        "--cli",
        "--connect-timeout",
        "60000",
        "--protocol-era",
        era,
        "--format",
        "json",
        "-q",
    ]
    server = [sys.executable, *place.fresh_command()]
    listed = run([*inspector, "--method", "tools/list", *server])
    assert listed.returncode == 0, listed.stderr
    assert "tool_add" in listed.stdout
    arguments = ["--tool-name", "tool_add", "--tool-args-json", '{"a": 2, "b": 3}']
    called = run([*inspector, "--method", "tools/call", *arguments, *server])
    assert called.returncode == 0, called.stderr
    assert '"sum": 5' in called.stdout.replace('\\"', '"').replace('"sum":5', '"sum": 5')
    denied = run(
        [*inspector, "--method", "tools/call", "--tool-name", "tool_delete", "--tool-args-json", "{}", *server]
    )
    assert denied.returncode != 0
