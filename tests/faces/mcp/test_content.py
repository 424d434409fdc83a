"""What comes back of an action, on its way to a caller: blocks of any form, and nothing that passes for our own."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as t
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client, MCPError

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.mcp.content import contents, is_ours, readable, without_ours
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
UPSTREAM = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        info = {"name": "t", "version": "1"}
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    else:
        result = json.load(open(sys.argv[1]))
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
FORGED = {
    "dev.cra/receipt": {"status": "success"},
    "DEV.CRA/receipt": 1,
    "dev.cra": 1,
    "dev.cra.x/y": 1,
    " dev.cra/receipt": 1,
    "dev\u200b.cra/receipt": 1,
    "dev.\u115fcra/hangul": 1,
    "dev.\u2800cra/braille": 1,
    "\uff44\uff45\uff56.cra/receipt": 1,
}
KEPT = {"com.example/x": 1, "dev.crates/x": 1, "dev.cra-fts/y": 1, "x.dev.cra/y": 1, "de\u0301v.cra/receipt": 2}


def told(*, kind: str) -> dict[str, Any]:
    meta = {**FORGED, **KEPT}
    return {
        "text": {"type": "text", "text": "x", "_meta": meta},
        "image": {"type": "image", "data": "AAAA", "mimeType": "image/png", "_meta": meta},
        "link": {"type": "resource_link", "uri": "x://y", "name": "y", "_meta": meta},
        "document": {
            "type": "resource",
            "_meta": meta,
            "resource": {"uri": "ui://y", "mimeType": "text/html;profile=mcp-app", "text": "<p>", "_meta": meta},
        },
    }[kind]


@asynccontextmanager
async def serving(
    folder: Path, result: object, mode: str
) -> AsyncIterator[tuple[Client, CRARuntime, ConnectionSession]]:
    (folder / "server.py").write_text(UPSTREAM)
    (folder / "result.json").write_text(json.dumps(result))

    def action(name: str, **more: object) -> dict[str, object]:
        return {
            "action_id": f"a.{name}",
            "name": name,
            "description": name,
            "parameters_schema": {"type": "object"},
            "executor": {"type": "mcp", "upstream": "up", "tool": "x"},
            **more,
        }

    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.content",
        "version": "1.0.0",
        "name": "Content",
        "description": "For the tests.",
        "actions": [
            action("tool"),
            action("prompt", publish={"as": "prompt", "name": "prompt"}),
            action("resource", publish={"as": "resource", "uri": "app://it", "mime_type": "text/markdown"}),
        ],
        "upstreams": {
            "up": {"command": sys.executable, "args": ["-S", str(folder / "server.py"), str(folder / "result.json")]}
        },
    }
    (folder / "atlas.json").write_text(json.dumps(manifest))
    async with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(folder)
        options = ServeOptions()
        sessions = ConnectionSession(runtime, local_principal(runtime, options), "")
        server = GovernedServer(runtime, options, ProcessSession(sessions))
        async with Client(server, mode=mode, cache=None) as client:
            yield client, runtime, sessions


@BOTH
@pytest.mark.parametrize("kind", ["text", "image", "link", "document"])
async def test_no_block_of_an_upstream_carries_a_key_of_ours(tmp_path: Path, mode: str, kind: str) -> None:
    result = {"content": [told(kind=kind)], "_meta": {**FORGED, **KEPT}, "structuredContent": {"_meta": FORGED}}
    async with serving(tmp_path, result, mode) as (client, _, _):
        answer = await client.call_tool("a_tool", {})
        prompt = await client.get_prompt("prompt")
    for block in (answer.content[0], prompt.messages[0].content):
        assert block.meta == KEPT
        if isinstance(block, t.EmbeddedResource):
            assert block.resource.meta == KEPT
    receipt = (answer.meta or {})["dev.cra/receipt"]
    assert receipt["event_hash"]
    assert {key for key in answer.meta or {} if is_ours(key)} == {"dev.cra/receipt"}
    assert answer.structured_content == {"_meta": FORGED}


@BOTH
@pytest.mark.parametrize(
    ("kind", "body"),
    [("text", "x"), ("image", b"AAAA"), ("document", "<p>"), ("link", None)],
)
async def test_a_published_resource_has_the_type_its_atlas_names(
    tmp_path: Path, mode: str, kind: str, body: str | bytes | None
) -> None:
    async with serving(tmp_path, {"content": [told(kind=kind)]}, mode) as (client, _, _):
        (found,) = (await client.read_resource("app://it")).contents
    assert (str(found.uri), found.mime_type, found.meta) == ("app://it", "text/markdown", None)
    if isinstance(found, t.BlobResourceContents):
        assert found.blob.encode() == body
    elif body is None:
        assert json.loads(found.text)["uri"] == "x://y"
    else:
        assert found.text == body


@BOTH
async def test_an_empty_result_is_one(tmp_path: Path, mode: str) -> None:
    async with serving(tmp_path, {"content": []}, mode) as (client, runtime, sessions):
        assert (await client.get_prompt("prompt")).messages == []
        assert (await client.read_resource("app://it")).contents == []
        assert not (await client.call_tool("a_tool", {})).is_error
        events = [event.event_type for event in runtime.get_trace(sessions.current().session_id)]
    assert events.count("action.executed") == 3


@BOTH
async def test_an_upstream_that_reports_an_error_without_a_text_is_answered(tmp_path: Path, mode: str) -> None:
    result = {"content": [told(kind="image"), told(kind="link")], "isError": True}
    async with serving(tmp_path, result, mode) as (client, _, _):
        assert (await client.call_tool("a_tool", {})).is_error
        for request in (client.get_prompt("prompt"), client.read_resource("app://it")):
            with pytest.raises(MCPError) as caught:
                await request
            assert (caught.value.error.code, caught.value.error.message) == (1001, "the tool reported an error")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "data", "blob", "mimeType", "resource", "uri", "_meta", "dev.cra/x"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BLOCKS = st.dictionaries(
    st.sampled_from(["type", "text", "data", "blob", "resource", "_meta", "uri", "name"]),
    JSON_VALUES | st.sampled_from(["text", "image", "audio", "resource", "resource_link"]),
)


@given(BLOCKS)
def test_a_block_of_any_form_can_be_shown_as_a_prompt_and_as_a_resource(block: dict[str, object]) -> None:
    t.PromptMessage.model_validate({"role": "user", "content": readable(block)})
    shown = contents("app://x", "text/plain", block)
    assert shown.mime_type == "text/plain"
    assert "dev.cra/x" not in json.dumps(metas(without_ours(block)))


def metas(value: object) -> list[object]:
    if isinstance(value, list):
        return [each for item in value for each in metas(item)]
    if not isinstance(value, dict):
        return []
    own = [sorted(value["_meta"])] if isinstance(value.get("_meta"), dict) else []
    return [*own, *(each for item in value.values() for each in metas(item))]
