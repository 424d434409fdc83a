"""What every back end promises (cra_mcp/execution/backend.py), held against real things: functions, programs, servers.

Each kind offers the same actions: ``echo`` gives its text back, ``fail`` reports an error of its own, ``break`` does not complete,
``hang`` notes "started" and never ends by itself.
"""

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from cra_mcp.atlas.model import (
    Atlas,
    CommandExecutor,
    Executor,
    HttpBody,
    HttpExecutor,
    McpExecutor,
    PythonExecutor,
)
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import Backend, Result
from cra_mcp.execution.command import CommandBackend
from cra_mcp.execution.http_endpoint import HttpBackend
from cra_mcp.execution.mcp_upstream import McpBackend
from cra_mcp.execution.python_callable import PythonBackend
from tests.execution.http_service import Handler, serving

pytestmark = pytest.mark.anyio

TOOLS = Path(__file__).parent / "upstreams" / "tools.py"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


@dataclass
class Kind:
    """One kind of back end, its actions and how to read a text out of its results."""

    backend: Backend
    executor: Callable[[str], Executor]
    atlas: Atlas
    text: Callable[[Result], str]
    broken: str = "execution_failed"
    needs: contextlib.AbstractContextManager[object] | None = None


def python_kind(kit, flavour: str) -> Kind:
    kit.python(TOOLS.read_text(), "tools")
    return Kind(
        PythonBackend(max_threads=4),
        lambda name: PythonExecutor(f"tools:{name if flavour == 'sync' else 'async_' + name}"),
        kit.atlas(),
        lambda result: result.value if isinstance(result.value, str) else result.value["error"],
    )


def command_kind(kit) -> Kind:
    shutil.copy(TOOLS, kit.folder / "tools.py")
    return Kind(
        CommandBackend(),
        lambda name: (
            CommandExecutor(("no-such-program",))
            if name == "break"
            else CommandExecutor((sys.executable, "tools.py", name, "text={text}"))
        ),
        kit.atlas(),
        lambda result: result.value["stdout"].removesuffix("\n"),
    )


def mcp_kind(kit) -> Kind:
    def text(result: Result) -> str:
        assert result.content is not None
        return str(result.content[0]["text"])

    return Kind(
        McpBackend(),
        lambda name: McpExecutor("up", "error" if name == "break" else name),
        kit.atlas(kit.server("good")),
        text,
    )


def http_kind(kit) -> Kind:
    def answer(handler: Handler) -> None:
        if handler.path == "/echo":
            handler.json(json.loads(handler.asked.body)["text"])
        elif handler.path == "/fail":
            handler.reply(500, b"it went wrong", content_type="text/plain")
        else:
            (kit.folder / "started").write_text("yes\n")
            handler.closed_by_client()

    def executor(name: str) -> HttpExecutor:
        url = "http://127.0.0.1:1/" if name == "break" else f"{service.url}/{name}"
        return HttpExecutor("POST", url, body=HttpBody({"text": "{text}"}))

    context = serving()
    service = context.__enter__()
    service.answer = answer
    return Kind(
        HttpBackend(allow_private_hosts=["127.0.0.1"]),
        executor,
        kit.atlas(),
        lambda result: result.value if isinstance(result.value, str) else result.value["body"],
        "upstream_unavailable",
        context,
    )


KINDS: dict[str, Callable[..., Kind]] = {
    "python": lambda kit: python_kind(kit, "sync"),
    "python-async": lambda kit: python_kind(kit, "async"),
    "command": command_kind,
    "mcp": mcp_kind,
    "http": http_kind,
}


@pytest.fixture(params=KINDS)
async def kind(request, kit):
    made = KINDS[request.param](kit)
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(made.backend, contextlib.AbstractAsyncContextManager):
            await stack.enter_async_context(made.backend)
        yield made
        (kit.folder / "release").touch()
        await made.backend.aclose()
    if made.needs is not None:
        made.needs.__exit__(None, None, None)


async def call(kit, kind: Kind, name: str, **parameters: object) -> Result:
    return await kit.call(kind.backend, kit.action(kind.executor(name), SCHEMA), kind.atlas, parameters)


async def test_a_result_comes_back(kit, kind) -> None:
    result = await call(kit, kind, "echo", text="hello")
    assert kind.text(result) == "hello"
    assert result.is_error is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-rf",
        "a b  c",
        "'\"`$(id)\\",
        "ünï\u2028✓ \U0001f600",
        "line\nline\r\n\ttab",
        "x" * 100_000,
        "{text} ${HOME} %PATH%",
    ],
    ids=range(8),
)
async def test_any_text_comes_back_as_it_was(kit, kind, text) -> None:
    assert kind.text(await call(kit, kind, "echo", text=text)) == text


async def test_calls_at_once_get_their_own_results(kit, kind) -> None:
    results: dict[str, str] = {}

    async def one(text: str) -> None:
        results[text] = kind.text(await call(kit, kind, "echo", text=text))

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(one, f"call {number}")
    assert results == {f"call {number}": f"call {number}" for number in range(12)}


async def test_an_error_of_the_tool_is_a_result(kit, kind) -> None:
    result = await call(kit, kind, "fail")
    assert result.is_error
    assert "it went wrong" in kind.text(result)


async def test_what_can_not_be_completed_says_so_and_the_next_call_works(kit, kind) -> None:
    with pytest.raises(ExecutionError) as caught:
        await call(kit, kind, "break")
    assert caught.value.code == kind.broken
    assert "\n" not in caught.value.message
    assert kind.text(await call(kit, kind, "echo", text="next")) == "next"


async def test_binding_does_nothing(kit, kind) -> None:
    before = sorted(kit.folder.rglob("*"))
    for name in ("echo", "hang", "break"):
        kind.backend.bind(kit.action(kind.executor(name), SCHEMA), kind.atlas)
    await anyio.lowlevel.checkpoint()
    assert sorted(kit.folder.rglob("*")) == before


async def test_an_action_of_another_kind_is_refused(kit, kind) -> None:
    with pytest.raises(ExecutionError) as caught:
        kind.backend.bind(kit.action(None), kind.atlas)
    assert caught.value.code == "no_executor"


async def test_cancelling_ends_the_call_at_once_and_the_next_one_works(kit, kind) -> None:
    async with kit.started(lambda: call(kit, kind, "hang")) as scope:
        await kit.text_of("started")
        before = time.monotonic()
        scope.cancel()
    assert time.monotonic() - before < 2
    assert kind.text(await call(kit, kind, "echo", text="next")) == "next"


async def test_a_running_action_does_not_block_the_event_loop(kit, kind) -> None:
    async with kit.started(lambda: call(kit, kind, "hang")):
        await kit.text_of("started")
        before = time.monotonic()
        for _ in range(20):
            await anyio.sleep(0.001)
        assert time.monotonic() - before < 1


async def test_closing_twice_is_safe(kit, kind) -> None:
    await call(kit, kind, "echo", text="x")
    await kind.backend.aclose()
    await kind.backend.aclose()
