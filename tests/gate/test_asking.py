"""Actions that talk back to whoever called them: what they may ask, what they get, and what the trace keeps of it."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.actions.client import Answer, Capability, Question
from cra_mcp.errors import AskError
from cra_mcp.gate.call import ExecutionOutcome

pytestmark = pytest.mark.anyio

FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
FUNCTIONS = f"""
from cra_mcp.actions.context import elicitation, roots, sampling
FORM = {FORM!r}
async def greet(ctx):
    answer = await ctx.elicit("Who are you?", FORM, key="who")
    return answer["action"] + ":" + answer.get("content", {{}}).get("name", "")
def greet_blocking(ctx):
    return ctx.elicit("Who are you?", FORM, key="who")["content"]["name"]
async def everything(ctx):
    answers = await ctx.ask({{"a": elicitation("?", FORM), "b": sampling("hi", max_tokens=5), "c": roots()}})
    return sorted(answers)
async def progress(ctx):
    await ctx.progress(1, 2, "half")
    await ctx.log("info", {{"at": "half"}}, "worker")
    await ctx.release()
    return [ctx.action_id, ctx.can("elicitation"), ctx.can("sampling")]
def progress_blocking(ctx):
    ctx.progress(1, 2, "half")
    ctx.log("info", {{"at": "half"}})
    ctx.release()
    return ctx.execution_id
async def caught(ctx):
    try:
        await ctx.sample("hi", max_tokens=5)
    except Exception as error:
        return [type(error).__name__, error.code]
async def many(ctx):
    return await ctx.ask({{f"k{{n}}": roots() for n in range(9)}})
async def odd_key(ctx):
    return await ctx.roots(key="not a name")
async def huge(ctx):
    return await ctx.elicit("x" * 70_000, FORM)
"""
ALL = ["elicitation", "sampling", "roots"]
ACTIONS = {
    "greet": ["elicitation"],
    "greet_blocking": ["elicitation"],
    "everything": ALL,
    "progress": ["elicitation"],
    "progress_blocking": None,
    "caught": ["elicitation"],
    "many": ALL,
    "odd_key": ALL,
    "huge": ALL,
}


@dataclass
class Person:
    """A client whose person answers what the test says."""

    answers: Mapping[str, Answer] = field(default_factory=dict)
    capabilities: tuple[Capability, ...] = ("elicitation", "sampling", "roots")
    told: list[object] = field(default_factory=list)
    asked: list[Mapping[str, Question]] = field(default_factory=list)
    before_answer: Callable[[], object] | None = None
    waits: anyio.Event | None = None

    def can(self, capability: Capability) -> bool:
        return capability in self.capabilities

    async def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.told.append((done, total, message))

    async def log(self, level: str, data: object, logger: str | None) -> None:
        self.told.append((level, data, logger))

    async def release(self) -> None:
        self.told.append("released")

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        self.asked.append(questions)
        if self.before_answer is not None:
            self.before_answer()
        if self.waits is not None:
            self.waits.set()
            await anyio.sleep_forever()
        return self.answers


@dataclass
class World:
    runtime: CRARuntime
    session: str

    async def call(self, name: str, person: Person | None, otel: Mapping[str, str] | None = None) -> ExecutionOutcome:
        return await self.runtime.execute(self.session, f"test.{name}", {}, client=person, otel=otel)

    def events(self, prefix: str = "x.cra.client") -> list[tuple[str, Mapping[str, object]]]:
        trace = self.runtime.get_trace(self.session)
        return [(event.event_type, event.payload) for event in trace if event.event_type.startswith(prefix)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "functions.py").write_text(FUNCTIONS)
    actions = [
        {
            "action_id": f"test.{name}",
            "name": name,
            "description": "does something",
            "parameters_schema": {"type": "object"},
            "timeout_seconds": 1 if name == "greet_blocking" else 20,
            "executor": {"type": "python", "callable": f"functions:{name}", "context": "ctx"}
            | ({} if asks is None else {"asks": asks}),
        }
        for name, asks in ACTIONS.items()
    ]
    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.asking",
        "version": "1.0.0",
        "name": "Asking",
        "description": "For the tests.",
        "actions": actions,
    }
    (tmp_path / "atlas.json").write_text(json.dumps(manifest))
    async with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(tmp_path)
        yield World(runtime, runtime.create_session("agent", "a goal").session_id)


def accepts(**content: object) -> Answer:
    return {"action": "accept", "content": content}


@pytest.mark.parametrize(("name", "value"), [("greet", "accept:Ada"), ("greet_blocking", "Ada")])
async def test_an_answer_reaches_the_function(world: World, name: str, value: str) -> None:
    person = Person({"who": accepts(name="Ada")})
    outcome = await world.call(name, person)
    assert (outcome.status, outcome.value) == ("success", value)
    (questions,) = person.asked
    assert questions["who"].params == {"message": "Who are you?", "requestedSchema": FORM}


async def test_the_question_is_stored_before_it_is_sent_and_the_answer_by_its_hash(world: World) -> None:
    seen: list[int] = []
    person = Person({"who": accepts(name="Ada")}, before_answer=lambda: seen.append(len(world.events())))
    outcome = await world.call("greet", person)
    assert seen == [1]
    (asked, question), (answered, answer) = world.events()
    assert (asked, answered) == ("x.cra.client.asked", "x.cra.client.answered")
    assert question["execution_id"] == answer["execution_id"] == outcome.execution_id
    assert [entry["method"] for entry in question["questions"]] == ["elicitation/create"]  # type: ignore[index,union-attr]
    assert [entry["action"] for entry in answer["answers"]] == ["accept"]  # type: ignore[index,union-attr]
    assert "Ada" not in json.dumps([question, answer])
    assert world.runtime.verify_chain(world.session).ok


async def test_several_things_are_asked_at_once(world: World) -> None:
    sample = {"role": "assistant", "content": {"type": "text", "text": "hello"}, "model": "m"}
    person = Person({"a": accepts(name="Ada"), "b": sample, "c": {"roots": []}})
    assert (await world.call("everything", person)).value == ["a", "b", "c"]
    assert len(person.asked) == 1
    (_, asked), _ = world.events()
    methods = [entry["method"] for entry in asked["questions"]]  # type: ignore[index,union-attr]
    assert methods == ["elicitation/create", "sampling/createMessage", "roots/list"]


async def test_a_refusal_is_an_answer(world: World) -> None:
    assert (await world.call("greet", Person({"who": {"action": "decline"}}))).value == "decline:"


@pytest.mark.parametrize(
    ("name", "person", "code"),
    [
        ("greet", None, "ask_unsupported"),
        ("greet", Person(capabilities=("sampling",)), "ask_unsupported"),
        ("greet", Person({"who": accepts(name=7)}), "ask_invalid"),
        ("greet", Person({"who": {"action": "accept"}}), "ask_invalid"),
        ("many", Person(), "ask_invalid"),
        ("odd_key", Person(), "ask_invalid"),
        ("huge", Person(), "ask_invalid"),
    ],
)
async def test_no_usable_answer_fails_the_call_with_its_code(
    world: World, name: str, person: Person | None, code: str
) -> None:
    outcome = await world.call(name, person)
    assert outcome.status == "error"
    assert outcome.fault is not None
    assert outcome.fault.code == code
    assert [kind for kind, _ in world.events("action.")] == ["action.requested", "action.approved", "action.failed"]


async def test_a_missing_capability_is_named(world: World) -> None:
    outcome = await world.call("greet", Person(capabilities=()))
    assert outcome.fault is not None
    assert outcome.fault.details == {"capability": "elicitation"}


async def test_a_function_asks_only_for_what_its_atlas_declares(world: World) -> None:
    person = Person()
    assert (await world.call("caught", person)).value == ["AskError", "ask_undeclared"]
    assert person.asked == []
    assert world.events() == []


@pytest.mark.parametrize("name", ["progress", "progress_blocking"])
async def test_progress_and_log_reach_the_client(world: World, name: str) -> None:
    person = Person(capabilities=("elicitation", "sampling"))
    outcome = await world.call(name, person)
    assert person.told[0] == (1, 2, "half")
    assert person.told[1][:2] == ("info", {"at": "half"})  # type: ignore[index]
    assert person.told[2] == "released"
    expected = outcome.execution_id if name == "progress_blocking" else ["test.progress", True, False]
    assert outcome.value == expected


async def test_progress_without_a_client_goes_nowhere(world: World) -> None:
    assert (await world.call("progress", None)).value == ["test.progress", False, False]


@pytest.mark.parametrize("name", ["greet_blocking"])
async def test_waiting_for_an_answer_is_bounded_by_the_timeout_of_the_action(world: World, name: str) -> None:
    outcome = await world.call(name, Person(waits=anyio.Event()))
    assert outcome.fault is not None
    assert outcome.fault.code == "timeout"
    assert [kind for kind, _ in world.events()] == ["x.cra.client.asked"]
    # The thread that waited is free again: were it not, 40 of these would use up every thread there is.
    assert (await world.call("progress_blocking", Person())).status == "success"


async def test_a_client_that_cancels_while_it_is_asked_ends_the_call(world: World) -> None:
    person = Person(waits=anyio.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.call, "greet", person)
        await person.waits.wait()  # type: ignore[union-attr]
        tasks.cancel_scope.cancel()
    assert world.events("action.")[-1][1]["error_code"] == "cancelled"


async def test_a_client_that_fails_to_answer_fails_the_call(world: World) -> None:
    def fail() -> None:
        raise AskError("ask_unanswered", "the client closed the form")

    outcome = await world.call("greet", Person(before_answer=fail))
    assert outcome.fault is not None
    assert (outcome.fault.code, outcome.fault.message) == ("ask_unanswered", "the client closed the form")


async def test_a_call_names_the_opentelemetry_span_it_is_made_in(world: World) -> None:
    span = {"trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "1"}
    await world.call("progress", None, span)
    await world.call("progress", None)
    requested = [payload.get("otel") for kind, payload in world.events("action.requested")]
    assert requested == [span, None]
