"""Actions that ask their caller's client, and actions that are prompts and resources: the real server, in both protocol eras."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession

pytestmark = pytest.mark.anyio

LEGACY, MODERN = "legacy", "2026-07-28"
BOTH = pytest.mark.parametrize("mode", [LEGACY, MODERN])
FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
EVIL = "a\u2028b\u202ec\u200bd\x85e"
FUNCTIONS = f"""
import asyncio
from pathlib import Path
from cra_mcp import ActionError, Content
FORM = {FORM!r}
EVIL = {EVIL!r}
def mark():
    with (Path(MARKS_FOLDER) / "marks").open("a") as file:
        file.write("x")
async def greet(ctx):
    mark()
    answer = await ctx.elicit("Who are you?", FORM, key="who")
    return answer["action"] + ":" + answer.get("content", {{}}).get("name", "")
async def twice(ctx):
    mark()
    first = await ctx.elicit("First?", FORM, key="first")
    second = await ctx.elicit("Second?", FORM, key="second")
    return [first["content"]["name"], second["content"]["name"]]
async def slow(ctx):
    await ctx.elicit("Who are you?", FORM, key="who")
    mark()
    await asyncio.sleep(60)
async def veiled(ctx):
    schema = dict(FORM, properties={{"name": {{"type": "string", "title": EVIL, "description": EVIL}}}})
    return (await ctx.elicit(EVIL, schema, key="who"))["action"]
def model(ctx):
    return ctx.sample("hi", max_tokens=5)["content"]["text"]
def folders(ctx):
    return ctx.roots()["roots"][0]["uri"]
def log(ctx):
    ctx.log("debug", "quiet")
    ctx.log("warning", {{"loud": True}}, "worker")
def say(ctx, name="nobody"):
    if name == "nobody":
        raise ActionError("there is nobody")
    return f"Hello, {{name}}."
def picture(ctx):
    return Content().image(b"png", "image/png").text("Look.").document("a://b", "text", "text/plain")
def record(id):
    return {{"id": id}}
"""
NAME = {
    "type": "object",
    "properties": {"name": {"type": "string", "description": "Whom to greet.", "enum": ["Ada", "Alan", "nobody"]}},
    "required": ["name"],
    "additionalProperties": False,
}
ID = {"type": "object", "properties": {"id": {"type": "string", "maxLength": 5}}, "required": ["id"]}


def action(
    name: str, function: str, *, asks: tuple[str, ...] = (), context: bool = True, **more: Any
) -> dict[str, Any]:
    executor: dict[str, Any] = {"type": "python", "callable": f"functions:{function}"}
    if context:
        executor["context"] = "ctx"
    if asks:
        executor["asks"] = list(asks)
    return {
        "action_id": f"a.{name}",
        "name": name.title(),
        "description": f"Does {name}.",
        "parameters_schema": {"type": "object"},
        "executor": executor,
        **more,
    }


MANIFEST = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.talking",
    "version": "1.0.0",
    "name": "Talking",
    "description": "For the tests.",
    "actions": [
        action("greet", "greet", asks=("elicitation",)),
        action("greet_quickly", "greet", asks=("elicitation",), timeout_seconds=1),
        action("greet_limited", "greet", asks=("elicitation",)),
        action("greet_approved", "greet", asks=("elicitation",)),
        action("veiled_form", "veiled", asks=("elicitation",)),
        action("twice", "twice", asks=("elicitation",)),
        action("slow", "slow", asks=("elicitation",)),
        action("model", "model", asks=("sampling",)),
        action("folders", "folders", asks=("roots",)),
        action("log", "log"),
        action("hello", "say", parameters_schema=NAME, publish={"as": "prompt", "name": "hello"}),
        action("denied", "say", publish={"as": "prompt", "name": "denied"}),
        action("hidden", "say", publish={"as": "prompt", "name": "hidden"}),
        action("asking", "greet", asks=("elicitation",), publish={"as": "prompt", "name": "asking"}),
        action("picture", "picture", publish={"as": "prompt", "name": "picture"}),
        action("fixed", "picture", publish={"as": "resource", "uri": "app://fixed", "mime_type": "text/plain"}),
        action(
            "record",
            "record",
            context=False,
            parameters_schema=ID,
            publish={"as": "resource", "uri": "app://record/{id}", "mime_type": "application/json"},
        ),
        action("closed", "picture", publish={"as": "resource", "uri": "app://closed"}),
        action("veiled", "picture", publish={"as": "resource", "uri": "app://veiled"}),
        action(
            "exact",
            "say",
            parameters_schema={"$schema": "https://json-schema.org/draft/2020-12/schema", **NAME, "$defs": {"x": {}}},
            publish={"as": "tool", "name": "exact", "parameters_schema": "exact"},
        ),
    ],
    "policies": [
        {"policy_id": "no", "type": "deny", "actions": ["a.denied", "a.closed"], "reason": "not now"},
        {"policy_id": "hide", "type": "deny", "actions": ["a.hidden", "a.veiled"], "reason": "x", "disclose": False},
        {"policy_id": "ask", "type": "require_approval", "actions": ["a.greet_approved"], "reason": "delicate"},
        {
            "policy_id": "once",
            "type": "rate_limit",
            "actions": ["a.greet_limited"],
            "parameters": {"max_calls": 1, "window_seconds": 600},
        },
    ],
}


@dataclass
class Person:
    """Whoever sits before the client."""

    name: str = "Ada"
    approve: bool = True
    asked: list[str] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)
    before: Callable[[], None] | None = None

    async def fill(self, _ctx: object, params: t.ElicitRequestParams) -> t.ElicitResult:
        self.asked.append(params.message.split("\n")[0])
        self.forms.append(params.message + json.dumps(params.requested_schema, ensure_ascii=False))
        if self.before is not None:
            self.before()
        if "approve" in params.requested_schema["properties"]:
            return t.ElicitResult(action="accept", content={"approve": self.approve})
        return t.ElicitResult(action="accept", content={"name": self.name})

    async def sample(self, _ctx: object, params: t.CreateMessageRequestParams) -> t.CreateMessageResult:
        self.asked.append(params.messages[0].content.text)
        return t.CreateMessageResult(
            role="assistant", content=t.TextContent(type="text", text="hello"), model="m", stop_reason="endTurn"
        )

    async def roots(self, _ctx: object) -> t.ListRootsResult:
        return t.ListRootsResult(roots=[t.Root(uri="file:///work", name="work")])


@dataclass
class World:
    runtime: CRARuntime
    server: GovernedServer
    sessions: ConnectionSession
    folder: Path

    @asynccontextmanager
    async def client(self, mode: str, person: Person | None = None, **more: Any) -> AsyncIterator[Client]:
        if person is not None:
            more = {
                "elicitation_callback": person.fill,
                "sampling_callback": person.sample,
                "list_roots_callback": person.roots,
                **more,
            }
        async with Client(self.server, mode=mode, cache=None, **more) as client:
            yield client

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        trace = self.runtime.get_trace(self.sessions.current().session_id)
        return [(event.event_type, dict(event.payload)) for event in trace]

    def kinds(self, *wanted: str) -> list[str]:
        return [kind for kind, _ in self.events() if kind in wanted]

    def runs(self) -> int:
        path = self.folder / "marks"
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "functions.py").write_text(f"MARKS_FOLDER = {str(tmp_path)!r}\n{FUNCTIONS}")
    (tmp_path / "atlas.json").write_text(json.dumps(MANIFEST))
    async with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(tmp_path)
        options = ServeOptions()
        sessions = ConnectionSession(runtime, local_principal(runtime, options), "")
        yield World(runtime, GovernedServer(runtime, options, ProcessSession(sessions)), sessions, tmp_path)


def text(result: t.CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, t.TextContent)
    return content.text


# --- asking --------------------------------------------------------------------------------------------------------


@BOTH
async def test_an_action_asks_its_client_and_runs_once(world: World, mode: str) -> None:
    async with world.client(mode, Person("Grace")) as client:
        assert text(await client.call_tool("a_greet", {})) == "accept:Grace"
    assert world.runs() == 1
    wanted = (
        "action.requested",
        "x.cra.client.asked",
        "x.cra.call.resumed",
        "x.cra.client.answered",
        "action.executed",
    )
    expected = [kind for kind in wanted if mode == MODERN or kind != "x.cra.call.resumed"]
    assert world.kinds(*wanted) == expected
    assert world.runtime.verify_chain(world.sessions.current().session_id).ok


@BOTH
async def test_an_action_asks_several_times_and_runs_once(world: World, mode: str) -> None:
    person = Person()
    async with world.client(mode, person) as client:
        assert json.loads(text(await client.call_tool("a_twice", {}))) == ["Ada", "Ada"]
    assert person.asked == ["First?", "Second?"]
    assert world.runs() == 1


@BOTH
async def test_models_and_folders_can_be_asked(world: World, mode: str) -> None:
    async with world.client(mode, Person()) as client:
        assert text(await client.call_tool("a_model", {})) == "hello"
        assert text(await client.call_tool("a_folders", {})) == "file:///work"


@BOTH
async def test_consent_and_limits_are_used_once_however_many_rounds_a_call_takes(world: World, mode: str) -> None:
    person = Person()
    async with world.client(mode, person) as client:
        assert text(await client.call_tool("a_greet_approved", {})) == "accept:Ada"
        assert text(await client.call_tool("a_greet_limited", {})) == "accept:Ada"
        refused = await client.call_tool("a_greet_limited", {})
    assert refused.is_error
    assert len(person.asked) == 3
    assert world.kinds("approval.granted") == ["approval.granted"]
    assert world.runs() == 2


async def test_a_client_that_can_not_be_asked_is_told_so_in_the_form_of_its_era(world: World) -> None:
    async with world.client(LEGACY) as client:
        result = await client.call_tool("a_greet", {})
        assert result.is_error
        assert "supports elicitation" in text(result)
    async with world.client(MODERN) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("a_greet", {})
    assert caught.value.error.code == t.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert caught.value.error.data == {"requiredCapabilities": {"elicitation": {}}}
    assert [payload["error_code"] for kind, payload in world.events() if kind == "action.failed"] == [
        "ask_unsupported",
        "ask_unsupported",
    ]


ANSWER: t.InputResponses = {"who": t.ElicitResult(action="accept", content={"name": "Eve"})}


async def ask(client: Client, name: str = "a_greet", **more: Any) -> t.CallToolResult | t.InputRequiredResult:
    return await client.session.call_tool(name, {}, allow_input_required=True, **more)


async def begun(client: Client, name: str = "a_greet") -> str:
    first = await ask(client, name)
    assert isinstance(first, t.InputRequiredResult)
    assert first.request_state is not None
    return first.request_state


async def test_an_answer_serves_once(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        state = await begun(client)
        first = await ask(client, input_responses=ANSWER, request_state=state)
        again = await ask(client, input_responses=ANSWER, request_state=state)
    assert isinstance(first, t.CallToolResult)
    assert text(first) == "accept:Eve"
    assert isinstance(again, t.CallToolResult)
    assert again.is_error
    assert world.runs() == 1
    assert world.kinds("error.occurred") == ["error.occurred"]


async def test_a_state_that_was_answered_is_of_no_use_while_its_call_goes_on(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        state = await begun(client, "a_twice")
        first: t.InputResponses = {"first": ANSWER["who"]}
        second: t.InputResponses = {"second": ANSWER["who"]}
        asked = await ask(client, "a_twice", input_responses=first, request_state=state)
        assert isinstance(asked, t.InputRequiredResult)
        old = await ask(client, "a_twice", input_responses=second, request_state=state)
        new = await ask(client, "a_twice", input_responses=second, request_state=asked.request_state)
    assert isinstance(old, t.CallToolResult)
    assert "has ended" in text(old)
    assert isinstance(new, t.CallToolResult)
    assert json.loads(text(new)) == ["Eve", "Eve"]


async def test_an_answer_for_another_action_is_refused_and_recorded(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        state = await begun(client)
        with pytest.raises(MCPError):
            await ask(client, "a_twice", input_responses=ANSWER, request_state=state)
        with pytest.raises(MCPError):
            await ask(client, input_responses=ANSWER, request_state=state + "x")
    assert world.kinds("error.occurred", "action.requested") == ["action.requested", "error.occurred", "error.occurred"]
    assert world.runs() == 1


async def test_a_question_left_open_is_asked_again(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        state = await begun(client)
        other: t.InputResponses = {"other": ANSWER["who"]}
        again = await ask(client, input_responses=other, request_state=state)
        assert isinstance(again, t.InputRequiredResult)
        done = await ask(client, input_responses=ANSWER, request_state=again.request_state)
    assert isinstance(done, t.CallToolResult)
    assert text(done) == "accept:Eve"
    assert world.runs() == 1


async def test_what_a_client_answers_before_it_is_asked_is_not_asked(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        done = await ask(client, input_responses=ANSWER)
    assert isinstance(done, t.CallToolResult)
    assert text(done) == "accept:Eve"


async def test_a_client_that_never_comes_back_ends_the_call_at_its_timeout(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        state = await begun(client, "a_greet_quickly")
        with anyio.fail_after(20):
            while not world.kinds("action.failed"):
                await anyio.sleep(0.02)
        late = await ask(client, "a_greet_quickly", input_responses=ANSWER, request_state=state)
    assert isinstance(late, t.CallToolResult)
    assert "has ended" in text(late)
    assert dict(world.events())["action.failed"]["error_code"] == "timeout"


async def test_a_session_has_a_few_calls_waiting_at_most(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        for _ in range(8):
            await begun(client)
        refused = await ask(client)
    assert isinstance(refused, t.CallToolResult)
    assert "wait for answers already" in text(refused)


async def test_a_server_that_stops_ends_the_calls_that_wait(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        await begun(client)
    await world.server.aclose()
    assert dict(world.events())["action.failed"]["error_code"] == "cancelled"


async def test_a_request_that_is_given_up_ends_its_call(world: World) -> None:
    async with world.client(MODERN, Person()) as client:
        state = await begun(client, "a_slow")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: ask(client, "a_slow", input_responses=ANSWER, request_state=state))
            with anyio.fail_after(20):
                while not world.runs():
                    await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(20):
            while not world.kinds("action.failed"):
                await anyio.sleep(0.005)
    assert dict(world.events())["action.failed"]["error_code"] == "cancelled"


# --- logging -------------------------------------------------------------------------------------------------------


async def test_a_2025_era_client_gets_the_messages_of_the_level_it_set(world: World) -> None:
    got: list[t.LoggingMessageNotificationParams] = []

    async def keep(params: t.LoggingMessageNotificationParams) -> None:
        got.append(params)

    async with world.client(LEGACY, logging_callback=keep) as client:
        await client.call_tool("a_log", {})
        assert [(each.level, each.data, each.logger) for each in got] == [("warning", {"loud": True}, "worker")]
        await client.session.send_request(
            t.SetLevelRequest(params=t.SetLevelRequestParams(level="debug")), t.EmptyResult
        )
        await client.call_tool("a_log", {})
    assert [each.level for each in got] == ["warning", "debug", "warning"]


async def test_a_2026_era_client_gets_messages_only_where_it_asks_for_them(world: World) -> None:
    got: list[str] = []

    async def keep(params: t.LoggingMessageNotificationParams) -> None:
        got.append(params.level)

    async with world.client(MODERN, logging_callback=keep) as client:
        await client.call_tool("a_log", {}, meta={t.LOG_LEVEL_META_KEY: "error"})
        await client.call_tool("a_log", {}, meta={t.LOG_LEVEL_META_KEY: "warning"})
    assert got == ["warning"]


# --- prompts and resources -----------------------------------------------------------------------------------------


@BOTH
async def test_an_action_can_be_a_prompt(world: World, mode: str) -> None:
    async with world.client(mode, Person()) as client:
        prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        tools = [tool.name for tool in (await client.list_tools()).tools]
        got = await client.get_prompt("hello", {"name": "Ada"})
        asked = await client.get_prompt("asking")
        shown = await client.get_prompt("picture")
        values = await client.complete(
            t.PromptReference(type="ref/prompt", name="hello"), {"name": "name", "value": "A"}
        )
    assert sorted(prompts) == ["asking", "hello", "picture"]
    assert prompts["hello"].arguments == [t.PromptArgument(name="name", description="Whom to greet.", required=True)]
    assert not set(prompts) & set(tools)
    assert [message.content.text for message in got.messages] == ["Hello, Ada."]  # type: ignore[union-attr]
    assert [message.content.text for message in asked.messages] == ["accept:Ada"]  # type: ignore[union-attr]
    assert [message.content.type for message in shown.messages] == ["image", "text", "resource"]
    assert values.completion.values == ["Ada", "Alan"]
    assert world.kinds("action.requested") == ["action.requested"] * 3


@BOTH
@pytest.mark.parametrize(
    ("name", "arguments", "code", "says"),
    [
        ("denied", {}, 1001, "denied by policy"),
        ("hidden", {}, t.INVALID_PARAMS, "Unknown prompt: hidden"),
        ("nowhere", {}, t.INVALID_PARAMS, "Unknown prompt: nowhere"),
        ("a_greet", {}, t.INVALID_PARAMS, "Unknown prompt: a_greet"),
        ("hello", {"name": "Eve"}, t.INVALID_PARAMS, "invalid parameters"),
        ("hello", {"name": "nobody"}, 1001, "there is nobody"),
    ],
)
async def test_a_prompt_that_is_refused_says_why(  # noqa: PLR0917
    world: World, mode: str, name: str, arguments: dict[str, str], code: int, says: str
) -> None:
    async with world.client(mode, Person()) as client:
        with pytest.raises(MCPError) as caught:
            await client.get_prompt(name, arguments)
    assert caught.value.error.code == code
    assert says in caught.value.error.message


@BOTH
async def test_an_action_can_be_a_resource(world: World, mode: str) -> None:
    async with world.client(mode, Person()) as client:
        listed = [str(each.uri) for each in (await client.list_resources()).resources]
        templates = [each.uri_template for each in (await client.list_resource_templates()).resource_templates]
        fixed = (await client.read_resource("app://fixed")).contents
        (record,) = (await client.read_resource("app://record/a%2Fb")).contents
    assert "app://fixed" in listed
    assert "app://record/{id}" in templates
    assert not {"app://closed", "app://veiled"} & set(listed)
    assert [type(each).__name__ for each in fixed] == [
        "BlobResourceContents",
        "TextResourceContents",
        "TextResourceContents",
    ]
    assert {str(each.uri) for each in fixed} == {"app://fixed"}
    assert isinstance(record, t.TextResourceContents)
    assert (json.loads(record.text), record.mime_type) == ({"id": "a/b"}, "application/json")
    assert world.kinds("action.executed") == ["action.executed"] * 2


@BOTH
@pytest.mark.parametrize(
    ("uri", "modern_code", "legacy_code"),
    [
        ("app://closed", 1001, 1001),
        ("app://veiled", t.INVALID_PARAMS, -32002),
        ("app://nowhere", t.INVALID_PARAMS, -32002),
        ("app://record/too-long", t.INVALID_PARAMS, t.INVALID_PARAMS),
    ],
)
async def test_a_resource_that_is_refused_says_why(
    world: World, mode: str, uri: str, modern_code: int, legacy_code: int
) -> None:
    async with world.client(mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.error.code == (modern_code if mode == MODERN else legacy_code)


@BOTH
async def test_a_schema_is_listed_as_it_is_written_where_the_atlas_says_so(world: World, mode: str) -> None:
    async with world.client(mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools["exact"].input_schema == MANIFEST["actions"][-1]["parameters_schema"]  # type: ignore[index]
    assert "$schema" not in tools["a_greet"].input_schema


@BOTH
@pytest.mark.parametrize(("tool", "arguments"), [("a_veiled_form", {}), ("a_greet_approved", {EVIL: EVIL})])
async def test_a_form_shows_nothing_raw(world: World, mode: str, tool: str, arguments: dict[str, str]) -> None:
    """A person must not be shown less than what runs, nor in another order."""
    person = Person()
    async with world.client(mode, person) as client:
        await client.call_tool(tool, arguments)
    form = person.forms[0]
    assert "a\\u{2028}b\\u{202e}c\\u{200b}d\\u{85}e" in form.replace("\\\\", "\\")
    assert [part for part in form if not part.isprintable() and part != "\n"] == []
