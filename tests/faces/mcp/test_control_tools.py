"""The control tools: what is listed of them, for whom, and that what they answer is what they say they answer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
import pytest
from jsonschema import Draft202012Validator
from mcp import Client
from mcp.shared.exceptions import MCPError

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.auth.principal import Principal
from cra_mcp.faces.mcp.connection import RequestContext
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession
from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import MANIFEST, write_atlas

pytestmark = pytest.mark.anyio
PATIENCE_S = 20
BOTH = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
FOR_OTHERS = {
    "pack_id": "secret",
    "name": "Secret",
    "files": ["context/rules.md"],
    "conditions": {"roles": ["operator"]},
}
AGENT_TOOLS = {
    "cra_start_session",
    "cra_request_context",
    "cra_end_session",
    "cra_trace",
    "cra_bootstrap",
    "cra_list_atlases",
    "cra_search_contexts",
    "cra_report_action",
    "cra_feedback",
}
APPROVER_TOOLS = {"cra_pending_approvals", "cra_settle_approval"}


@dataclass
class World:
    """A server of which each client is another principal."""

    runtime: CRARuntime

    @asynccontextmanager
    async def client(self, principal: Principal, mode: Any = "2026-07-28", **more: Any) -> AsyncIterator[Client]:
        sessions = ConnectionSession(self.runtime, principal, "")
        server = ServerOf(self.runtime, principal, ProcessSession(sessions))
        async with Client(server, mode=mode, cache=None, **more) as client:
            yield client


class ServerOf(GovernedServer):
    """A server whose caller is a certain principal, as HTTP would have it."""

    def __init__(self, runtime: CRARuntime, principal: Principal, sessions: ProcessSession) -> None:
        super().__init__(runtime, ServeOptions(control_tools="all"), sessions)
        self.middleware.insert(0, self._as)
        self._principal = principal

    async def _as(self, ctx: RequestContext, call_next: Any) -> Any:
        return await call_next(replace(ctx, lifespan_context=self._principal))


def who(subject: str, *roles: Any, tenant: str = "acme") -> Principal:
    return Principal(subject, tenant=tenant, roles=frozenset(roles or ("agent",)), credential="api_key")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    manifest = {**MANIFEST, "context_packs": [*MANIFEST["context_packs"], FOR_OTHERS]}
    manifest["policies"] = [*manifest["policies"]]
    async with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data")) as runtime:
        runtime.load_atlas(write_atlas(tmp_path / "atlas", manifest))
        yield World(runtime)


async def tools_of(client: Client) -> dict[str, t.Tool]:
    return {tool.name: tool for tool in (await client.list_tools()).tools if tool.name.startswith("cra_")}


async def called(client: Client, name: str, **arguments: object) -> Any:
    """The structured answer of a tool, which its text says too and which fits what is listed of it."""
    tool = (await tools_of(client))[name]
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert tool.output_schema is not None
    Draft202012Validator.check_schema(tool.output_schema)
    Draft202012Validator(tool.output_schema).validate(result.structured_content)
    if name != "cra_trace":
        assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


@BOTH
async def test_every_tool_answers_as_its_schema_says_and_in_text(world: World, mode: Any) -> None:
    async with world.client(who("ann", "agent", "approver"), mode) as client:
        assert set(await tools_of(client)) == AGENT_TOOLS | APPROVER_TOOLS
        nothing = await called(client, "cra_end_session")
        assert (nothing["ended"], nothing["chain_ok"]) == (None, None)
        assert world.runtime.active_sessions() == 0
        assert (await called(client, "cra_search_contexts", query="guide"))["results"]
        assert (await called(client, "cra_list_atlases"))["atlases"][0]["atlas_id"] == MANIFEST["atlas_id"]
        assert world.runtime.active_sessions() == 0, "looking around starts nothing"
        started = await called(client, "cra_start_session", goal="pay somebody")
        assert {"action_id": "tool.pay", "needs_approval": True} in started["allowed_actions"]
        assert "tool.secret" not in json.dumps(started)
        await called(client, "cra_request_context", need="what are the rules?", hints=["kind"], max_tokens=1_000)
        await called(client, "cra_report_action", action="rang", parameters={"n": 1}, outcome="no answer")
        await called(client, "cra_feedback", context_id="rules", helpful=False, reason="too short")
        await called(client, "cra_trace")
        asked = await client.call_tool("tool_pay", {"to": "bob"})
        assert asked.is_error
        waiting = await called(client, "cra_pending_approvals")
        assert [each["may_settle"] for each in waiting["approvals"]] == [False]
        assert (await called(client, "cra_bootstrap", goal="again"))["chain_head"]["sequence"] > 0
        ended = await called(client, "cra_end_session", summary="done")
        assert (ended["chain_ok"], ended["ended"] is None) == (True, False)


async def test_each_tool_says_what_it_does_to_the_world(world: World) -> None:
    async with world.client(who("ann", "agent", "approver")) as client:
        listed = await tools_of(client)
    hints = {name: tool.annotations for name, tool in listed.items()}
    reading = {name for name, hint in hints.items() if hint is not None and hint.read_only_hint}
    assert reading == {"cra_trace", "cra_search_contexts", "cra_list_atlases", "cra_pending_approvals"}
    assert {name for name, hint in hints.items() if hint is not None and hint.destructive_hint} == {
        "cra_settle_approval"
    }
    assert not [name for name, hint in hints.items() if hint is None or hint.open_world_hint or not hint.title]


@pytest.mark.parametrize(
    ("principal", "tools"),
    [
        (who("a"), AGENT_TOOLS),
        (who("a", "approver"), {"cra_trace", "cra_list_atlases"} | APPROVER_TOOLS),
        (who("a", "auditor"), {"cra_trace", "cra_list_atlases"}),
        (who("a", "operator"), AGENT_TOOLS | APPROVER_TOOLS),
        (replace(who("a", "operator"), credential="anonymous"), AGENT_TOOLS),
        (replace(who("a"), roles=frozenset()), set()),
    ],
)
async def test_a_tool_that_no_role_permits_does_not_exist(world: World, principal: Principal, tools: set[str]) -> None:
    async with world.client(principal) as client:
        assert set(await tools_of(client)) == tools
        for name in (AGENT_TOOLS | APPROVER_TOOLS) - tools:
            arguments = {"approval_id": "x" * 36, "decision": "approve"}
            if "agent" in principal.roles or "operator" in principal.roles:
                with pytest.raises(MCPError, match=f"Unknown tool: {name}"):
                    await client.call_tool(name, arguments)
            else:
                result = await client.call_tool(name, arguments)
                assert result.is_error, "who may not call gets no session, whatever they call"
    assert world.runtime.active_sessions() <= 1


async def test_documents_come_by_need_within_the_budget_and_each_is_recorded(world: World) -> None:
    async with world.client(who("ann")) as client:
        got = await called(client, "cra_request_context", need="the guide", max_tokens=70)
        assert [block["block_id"] for block in got["context_blocks"]] == ["guide", "rules"]
        assert got["tokens"] == sum(block["token_estimate"] for block in got["context_blocks"]) <= 70
        assert got["context_blocks"][0]["relevance"] > got["context_blocks"][1]["relevance"] == 0
        little = await called(client, "cra_request_context", need="kind rules", max_tokens=10)
        assert [block["block_id"] for block in little["context_blocks"]] == ["rules"]
        assert [block["block_id"] for block in little["left_out"]] == ["guide"]
        found = await called(client, "cra_search_contexts", query="kind", limit=1)
        assert [each["uri"] for each in found["results"]] == [f"cra://context/{MANIFEST['atlas_id']}/rules"]
        assert (await called(client, "cra_search_contexts", query="nothing of the sort"))["results"] == []
        events = world.runtime.get_trace(got["session_id"])
    injected = [event.payload["block_id"] for event in events if event.event_type == "context.injected"]
    assert injected == ["guide", "rules", "rules"]


@BOTH
async def test_a_document_that_is_for_others_is_nowhere(world: World, mode: Any) -> None:
    uri = f"cra://context/{MANIFEST['atlas_id']}/secret"
    async with world.client(who("ann"), mode) as client:
        assert uri not in [str(each.uri) for each in (await client.list_resources()).resources]
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)
        with pytest.raises(MCPError) as missing:
            await client.read_resource(uri.replace("secret", "absent"))
        assert refused.value.error.code == missing.value.error.code
        assert refused.value.error.message == missing.value.error.message
        reference = t.ResourceTemplateReference(uri="cra://context/{atlas_id}/{block_id}")
        completed = await client.complete(reference, {"name": "block_id", "value": ""})
        assert completed.completion.values == ["guide", "rules"]
        assert uri not in (await client.read_resource(f"cra://atlas/{MANIFEST['atlas_id']}")).contents[0].text
        found = [
            await called(client, "cra_bootstrap", goal="rules"),
            await called(client, "cra_request_context", need="secret rules"),
            await called(client, "cra_search_contexts", query="secret rules"),
        ]
        assert "secret" not in json.dumps([each | {"session": None} for each in found])
    async with world.client(who("eve", "operator"), mode) as client:
        assert (await client.read_resource(uri)).contents[0].text.startswith("# Rules")


@pytest.mark.parametrize("arguments", [{"need": ""}, {"need": "x", "max_tokens": 0}, {"need": "x", "more": 1}, {}])
async def test_arguments_that_do_not_fit_are_told_with_their_place(world: World, arguments: dict[str, object]) -> None:
    async with world.client(who("ann")) as client:
        result = await client.session.call_tool("cra_request_context", arguments)
    assert result.is_error
    assert result.content[0].text.startswith("Invalid parameters: /")


# --- approving from elsewhere ---


async def waiting(world: World, agent: Client, to: str = "bob") -> str:
    result = await agent.call_tool("tool_pay", {"to": to})
    return (result.meta or {})["dev.cra/receipt"]["details"]["approval_id"]


@BOTH
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_an_approver_sees_what_waits_is_told_and_settles_it_with_a_reason(
    world: World, mode: Any, decision: str
) -> None:
    told = anyio.Event()

    async def notice(message: object) -> None:
        if isinstance(message, t.ResourceUpdatedNotification):
            told.set()

    async with (
        world.client(who("ann"), mode) as agent,
        world.client(who("zoe", "approver"), "2026-07-28", message_handler=notice) as approver,
        approver.listen(resource_subscriptions=["cra://approvals"]) as stream,
    ):
        assert stream.honored.resource_subscriptions == ["cra://approvals"]
        approval_id = await waiting(world, agent)
        with anyio.fail_after(PATIENCE_S):
            await anext(stream)
        (seen,) = (await called(approver, "cra_pending_approvals"))["approvals"]
        assert (seen["approval_id"], seen["parameters"], seen["may_settle"]) == (approval_id, {"to": "bob"}, True)
        read = json.loads((await approver.read_resource("cra://approvals")).contents[0].text)
        assert read["approvals"] == [seen]
        settled = await called(
            approver, "cra_settle_approval", approval_id=approval_id, decision=decision, comment="checked"
        )
        assert (settled["by"], settled["channel"], settled["grade"]) == ("zoe", "approver", "authenticated_approver")
        with anyio.fail_after(PATIENCE_S):
            await anext(stream)
        assert (await called(approver, "cra_pending_approvals"))["approvals"] == []
        again = await approver.call_tool("cra_settle_approval", {"approval_id": approval_id, "decision": "approve"})
        assert again.is_error
        result = await agent.call_tool("tool_pay", {"to": "bob"})
        assert result.is_error is (decision == "reject")
        other = await agent.call_tool("tool_pay", {"to": "eve"})
        assert (other.meta or {})["dev.cra/receipt"]["status"] == "pending_approval", "for exactly those arguments"
    lines = world.runtime.read_trace(seen["session_id"])
    assert verify(lines).ok
    kind = "approval.granted" if decision == "approve" else "approval.rejected"
    said = [event.payload for event in world.runtime.get_trace(seen["session_id"]) if event.event_type == kind]
    assert [(each["by"], each["channel"], each["grade"], each["comment"]) for each in said] == [
        ("zoe", "approver", "authenticated_approver", "checked")
    ]


async def test_a_call_that_waits_for_its_client_goes_on_when_an_approver_says_yes(world: World) -> None:
    async def person(_context: Any, _params: Any) -> t.ElicitResult:
        await anyio.sleep_forever()
        raise AssertionError

    results: list[t.CallToolResult] = []
    async with (
        world.client(who("ann"), "legacy", elicitation_callback=person) as agent,
        world.client(who("zoe", "approver")) as approver,
        anyio.create_task_group() as group,
    ):

        async def call() -> None:
            results.append(await agent.call_tool("tool_pay", {"to": "bob"}))

        group.start_soon(call)
        with anyio.fail_after(PATIENCE_S):
            while not (found := (await called(approver, "cra_pending_approvals"))["approvals"]):
                await anyio.sleep(0.01)
            await called(approver, "cra_settle_approval", approval_id=found[0]["approval_id"], decision="approve")
            while not results:
                await anyio.sleep(0.01)
    assert results[0].is_error is False


async def test_nobody_sees_or_settles_what_is_another_tenants(world: World) -> None:
    async with (
        world.client(who("ann")) as agent,
        world.client(who("zoe", "operator", tenant="other")) as stranger,
        stranger.listen(resource_subscriptions=["cra://approvals"], tools_list_changed=True) as stream,
    ):
        approval_id = await waiting(world, agent)
        assert (await called(stranger, "cra_pending_approvals"))["approvals"] == []
        arguments = {"approval_id": approval_id, "decision": "approve"}
        theirs = await stranger.call_tool("cra_settle_approval", arguments)
        unknown = await stranger.call_tool("cra_settle_approval", {**arguments, "approval_id": "0" * 36})
        assert theirs.is_error
        assert theirs == unknown
        world.runtime.unload_atlas(MANIFEST["atlas_id"])
        with anyio.fail_after(PATIENCE_S):
            assert type(await anext(stream)).__name__ == "ToolsListChanged", "and is not told of it"
    assert world.runtime.approval(approval_id).status == "pending"


async def test_one_who_both_calls_and_approves_does_not_approve_their_own_call(world: World) -> None:
    async with (
        world.client(who("ann", "agent", "approver")) as both,
        world.client(replace(who("ann", "approver"), agent_id="another")) as again,
    ):
        approval_id = await waiting(world, both)
        for client in (both, again):
            for decision in ("approve", "reject"):
                refused = await client.call_tool(
                    "cra_settle_approval", {"approval_id": approval_id, "decision": decision}
                )
                assert refused.is_error
                assert (refused.meta or {})["dev.cra/receipt"]["error"] == "self_approval"
    assert world.runtime.approval(approval_id).status == "pending"


@BOTH
async def test_who_may_not_approve_can_not_watch_or_read_what_waits(world: World, mode: Any) -> None:
    async with world.client(who("ann"), mode) as agent:
        await waiting(world, agent)
        assert "cra://approvals" not in [str(each.uri) for each in (await agent.list_resources()).resources]
        with pytest.raises(MCPError) as refused:
            await agent.read_resource("cra://approvals")
        with pytest.raises(MCPError) as missing:
            await agent.read_resource("cra://absent")
        assert refused.value.error.message == missing.value.error.message
        if mode != "legacy":
            async with agent.listen(resource_subscriptions=["cra://approvals"]) as stream:
                assert stream.honored.resource_subscriptions is None
