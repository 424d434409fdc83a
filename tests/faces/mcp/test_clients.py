"""What the Python SDK's client sees, in both protocol eras."""

import json
import re
from typing import Any, Literal

import anyio
import mcp_types as t
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import Place

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])]
Mode = Literal["legacy", "2026-07-28"]
HOST_SAFE = re.compile(r"^[a-zA-Z][a-zA-Z0-9_-]{0,39}$")


def text(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def receipt(result: Any) -> dict[str, Any]:
    return result.meta["dev.cra/receipt"]


async def test_the_list_is_what_policy_could_allow(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == sorted(tools)
        assert all(HOST_SAFE.match(name) for name in tools)
        assert {"tool_echo", "tool_pay", "cra_start_session", "cra_request_context", "cra_end_session"} <= set(tools)
        assert not {"tool_delete", "tool_secret"} & set(tools)
        add = tools["tool_add"]
        assert add.input_schema == {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        }
        assert add.output_schema is not None
        assert add.output_schema["required"] == ["sum"]
        assert tools["tool_echo"].annotations is not None
        assert tools["tool_echo"].annotations.read_only_hint is True
        assert tools["tool_pay"].annotations is not None
        assert tools["tool_pay"].annotations.destructive_hint is True
        assert "Money leaves the house" in (tools["tool_pay"].description or "")
        long = next(name for name in tools if name.startswith("tool_a-name"))
        assert re.search(r"_[0-9a-f]{8}$", long)
        await client.list_resources()
        await client.list_resource_templates()
    assert place.traces() == [], "listing starts no session"


async def test_an_allowed_call_answers_with_structure_and_receipt(place: Place, mode: Mode) -> None:
    async with Client(place.parameters("--agent-id", "me", "--goal", "sum up"), mode=mode, cache=None) as client:
        result = await client.call_tool("tool_add", {"a": 2, "b": 3})
        assert (result.structured_content, result.is_error) == ({"sum": 5}, False)
        assert json.loads(text(result)) == {"sum": 5}
        found = receipt(result)
        assert found["status"] == "success"
    events = place.events()
    assert (events[0]["payload"]["agent_id"], events[0]["payload"]["goal"]) == ("me", "sum up")
    assert events[found["sequence"]]["event_hash"] == found["event_hash"]
    assert events[-1]["event_type"] == "session.ended"
    assert verify(place.traces()[0].read_bytes().splitlines(), session_id=found["session_id"]).ok


async def test_a_denied_call_says_which_policy_why_what_next_and_where_it_is_recorded(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        result = await client.call_tool("tool_delete", {})
        found = receipt(result)
        assert result.is_error
        for part in (
            "no-delete",
            "Deleting is for people",
            "What can be done",
            f"event {found['sequence']}",
            found["session_id"],
        ):
            assert part in text(result)
        assert found["details"]["policy_id"] == "no-delete"


async def test_a_hidden_tool_answers_exactly_as_an_unknown_one(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        answers = []
        for name in ("tool_secret", "tool_nowhere"):
            with pytest.raises(MCPError) as caught:
                await client.session.call_tool(name, {})
            answers.append(
                (caught.value.error.code, caught.value.error.message.replace(name, "?"), caught.value.error.data)
            )
        assert answers[0] == answers[1] == (t.INVALID_PARAMS, "Unknown tool: ?", None)
    denied = [event["payload"]["policy_id"] for event in place.events() if event["event_type"] == "action.denied"]
    assert denied == ["hide", "undeclared"]


async def test_what_goes_wrong_is_told_without_foreign_text(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        invalid = await client.session.call_tool("tool_add", {"a": "x"})
        assert invalid.is_error
        assert "/a" in text(invalid)
        failed = await client.call_tool("tool_fail", {})
        assert failed.is_error
        assert "RuntimeError" in text(failed)
        assert "hunter2" not in text(failed)
        refused = await client.call_tool("tool_refuse", {})
        assert refused.is_error
        assert "there is no such thing" in text(refused)
        large = await client.call_tool("tool_large", {"size": 700_000})
        assert "[cra: result cut: 700002 bytes" in text(large)
        assert (await client.call_tool("tool_echo", {"still": "here"})).is_error is False


async def test_a_client_that_can_be_asked_decides(place: Place, mode: Mode) -> None:
    answers: list[t.ElicitResult] = [
        t.ElicitResult(action="accept", content={"approve": True}),
        t.ElicitResult(action="accept", content={"approve": False}),
        t.ElicitResult(action="decline"),
        t.ElicitResult(action="cancel"),
    ]
    asked: list[str] = []

    async def answer(_context: Any, params: Any) -> t.ElicitResult:
        asked.append(params.message)
        return answers.pop(0)

    async with Client(place.parameters(), mode=mode, cache=None, elicitation_callback=answer) as client:
        granted = await client.call_tool("tool_pay", {"to": "ann"})
        assert granted.is_error is False
        assert json.loads(text(granted)) == {"echo": {"to": "ann"}}
        for number, word in ((1, "rejected"), (2, "rejected"), (3, "cra-mcp approve")):
            refused = await client.call_tool("tool_pay", {"to": "bob", "n": number})
            assert refused.is_error
            assert word in text(refused)
    assert '"to": "ann"' in asked[0]
    assert "Money leaves the house" in asked[0]
    kinds = [event["event_type"] for event in place.events()]
    assert kinds.count("approval.granted") == 1
    assert kinds.count("approval.rejected") == 2
    granted_event = next(event for event in place.events() if event["event_type"] == "approval.granted")
    assert granted_event["payload"]["grade"] == "client_elicitation"


async def test_a_client_that_can_not_be_asked_is_told_the_command_and_it_works(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        waiting = await client.call_tool("tool_pay", {"to": "ann"})
        approval_id = receipt(waiting)["details"]["approval_id"]
        assert f"cra-mcp approve {approval_id}" in text(waiting)
        listed = await anyio.to_thread.run_sync(place.cli, "pending", "--json")
        assert [item["approval_id"] for item in json.loads(listed.stdout)["pending"]] == [approval_id]
        unsure = await anyio.to_thread.run_sync(place.cli, "approve", approval_id[:20])
        assert unsure.returncode == 2
        assert '"to": "ann"' in unsure.stderr
        approved = await anyio.to_thread.run_sync(place.cli, "approve", approval_id, "--yes")
        assert approved.returncode == 0
        assert (await client.call_tool("tool_pay", {"to": "bob"})).is_error
        assert (await client.call_tool("tool_pay", {"to": "ann"})).is_error is False
        assert (await client.call_tool("tool_pay", {"to": "ann"})).is_error
        again = await anyio.to_thread.run_sync(place.cli, "approve", approval_id, "--yes")
        assert (again.returncode, "approval_settled" in again.stderr) == (1, True)
        other = next(
            a
            for a in json.loads((await anyio.to_thread.run_sync(place.cli, "pending", "--json")).stdout)["pending"]
            if a["parameters"] == {"to": "ann"}
        )
        denied = await anyio.to_thread.run_sync(place.cli, "deny", other["approval_id"])
        assert denied.returncode == 0
        assert "rejected" in text(await client.call_tool("tool_pay", {"to": "ann"}))
    granted = next(event for event in place.events() if event["event_type"] == "approval.granted")["payload"]
    assert (granted["channel"], granted["grade"]) == ("cli", "local_cli")


async def test_sessions_are_started_and_ended_by_control_tools(place: Place, mode: Mode) -> None:
    async with Client(place.parameters("--control-tools", "all"), mode=mode, cache=None) as client:
        first = json.loads(text(await client.call_tool("cra_start_session", {"goal": "read the guide"})))
        assert first["session"]["goal"] == "read the guide"
        assert [entry["action_id"] for entry in first["denied_actions"]] == ["tool.delete"]
        assert "tool.secret" not in json.dumps(first)
        context = json.loads(text(await client.call_tool("cra_request_context", {"need": "guide", "max_tokens": 20})))
        assert [block["block_id"] for block in context["context_blocks"]] == ["rules"]
        assert [each["block_id"] for each in context["left_out"]] == ["guide"]
        found = json.loads(text(await client.call_tool("cra_search_contexts", {"query": "guide"})))
        assert found["results"][0]["block_id"] == "guide"
        assert json.loads(text(await client.call_tool("cra_list_atlases", {})))["atlases"][0]["version"] == "1.0.0"
        for name, arguments in (
            ("cra_report_action", {"action": "wrote a letter", "parameters": {"n": 1}}),
            ("cra_feedback", {"context_id": "guide", "helpful": True}),
        ):
            assert json.loads(text(await client.call_tool(name, arguments)))["recorded"] is True
        bad = await client.session.call_tool("cra_start_session", {"goal": ""})
        assert bad.is_error
        second = json.loads(text(await client.call_tool("cra_bootstrap", {"goal": "go on"})))
        assert len(second["context_blocks"]) == 2
        assert second["session"]["session_id"] != first["session"]["session_id"]
        ended = json.loads(text(await client.call_tool("cra_end_session", {"summary": "done"})))
        assert ended["chain_ok"] is True
        assert json.loads(text(await client.call_tool("cra_end_session", {})))["ended"] is None
    assert len(place.traces()) == 2
    kinds = [event["event_type"] for event in place.events()]
    assert kinds.count("session.ended") == 2
    assert {"action.reported", "feedback.received", "context.injected"} <= set(kinds)


@pytest.mark.parametrize(("which", "count"), [("none", 0), ("default", 4), ("all", 9)])
async def test_control_tools_are_published_as_asked(place: Place, mode: Mode, which: str, count: int) -> None:
    async with Client(place.parameters("--control-tools", which), mode=mode, cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert len([name for name in names if name.startswith("cra_")]) == count


async def test_traces_are_read_as_resources_byte_for_byte(place: Place, mode: Mode) -> None:
    place.roles = "agent,auditor"
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        current = json.loads((await client.read_resource("cra://session/current")).contents[0].text)
        assert current["session"] is None
        assert place.traces() == []
        for number in range(3):
            found = receipt(await client.call_tool("tool_echo", {"n": number}))
        session_id = found["session_id"]
        stored = place.traces()[0].read_text()
        trace = (await client.read_resource(f"cra://trace/{session_id}")).contents[0]
        assert (trace.text, trace.mime_type) == (stored, "application/vnd.cra.trace+jsonl")
        page = (await client.read_resource(f"cra://trace/{session_id}?after=1&limit=2")).contents[0]
        assert page.text.splitlines() == stored.splitlines()[2:4]
        assert page.meta is not None
        assert page.meta["dev.cra/next"] == f"cra://trace/{session_id}?after=3&limit=2"
        event = (await client.read_resource(f"cra://trace/{session_id}/2")).contents[0]
        assert event.text == stored.splitlines()[2]
        chain = json.loads((await client.read_resource(f"cra://chain/{session_id}")).contents[0].text)
        assert (chain["ok"], chain["events"]) == (True, len(stored.splitlines()))
        current = json.loads((await client.read_resource("cra://session/current")).contents[0].text)
        assert current["session"]["session_id"] == session_id
        sessions = json.loads((await client.read_resource("cra://sessions")).contents[0].text)
        assert [entry["session_id"] for entry in sessions["sessions"]] == [session_id]
        atlas = (await client.read_resource("cra://atlas/com.example.faces")).contents[0].text
        assert "tool.echo" in atlas
        assert "tool.secret" not in atlas
        guide = (await client.read_resource("cra://context/com.example.faces/guide")).contents[0]
        assert (guide.mime_type, guide.text.startswith("# Guide")) == ("text/markdown", True)
        assert json.loads(place.traces()[0].read_text().splitlines()[-1])["event_type"] == "context.injected"
        listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert [uri for uri in listed if session_id in uri] == [f"cra://trace/{session_id}/table"], "to be picked"
        current = json.loads((await client.read_resource("cra://session/current")).contents[0].text)
        assert current["trace"] == f"cra://trace/{session_id}"
        assert "cra://context/com.example.faces/rules" in listed
        code = t.INVALID_PARAMS if mode != "legacy" else -32002
        for missing in (
            "cra://nothing",
            f"cra://trace/{session_id}/999",
            f"cra://trace/{session_id}/x",
            f"cra://trace/{session_id}?limit=0",
            "cra://trace/../../etc/passwd",
            "cra://chain/nobody",
            "cra://atlas/nope",
            "cra://context/com.example.faces/nope",
        ):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(missing)
            assert caught.value.error.code == code


async def test_templates_complete_their_arguments(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        session_id = receipt(await client.call_tool("tool_echo", {}))["session_id"]
        templates = {
            item.name: item.uri_template for item in (await client.list_resource_templates()).resource_templates
        }

        async def complete(template: str, name: str, typed: str, **chosen: str) -> list[str]:
            reference = t.ResourceTemplateReference(uri=templates[template])
            answer = await client.complete(reference, {"name": name, "value": typed}, context_arguments=chosen or None)
            return answer.completion.values

        assert await complete("trace", "session_id", session_id[:6]) == [session_id]
        assert await complete("trace-event", "sequence", "1", session_id=session_id) == ["1"]
        assert await complete("trace-event", "sequence", "", session_id="nobody") == []
        assert await complete("atlas", "atlas_id", "com.") == ["com.example.faces"]
        assert await complete("context", "block_id", "", atlas_id="com.example.faces") == ["guide", "rules"]
        assert await complete("context", "block_id", "", atlas_id="com.other") == []
        assert await complete("trace", "nonsense", "") == []


async def test_a_cancelled_call_is_recorded_so_and_the_next_is_answered(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        await client.call_tool("tool_echo", {})
        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "tool_wait", {"marks": str(place.marks)})
                while "began" not in place.marked():
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
        assert (await client.call_tool("tool_echo", {})).is_error is False
        with anyio.fail_after(5):
            while "ended" not in place.marked():
                await anyio.sleep(0.02)
    failed = [event["payload"]["error_code"] for event in place.events() if event["event_type"] == "action.failed"]
    assert failed == ["cancelled"]
