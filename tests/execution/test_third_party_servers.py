"""Upstreams that others wrote: the reference servers of the MCP project, run by Node (tests/clients/package.json)."""

import base64
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import anyio
import pytest

from cra_mcp.atlas.model import McpExecutor, Upstream
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import Result
from cra_mcp.execution.mcp_upstream import McpBackend

pytestmark = pytest.mark.anyio

EVERYTHING = "@modelcontextprotocol/server-everything"
FILESYSTEM = "@modelcontextprotocol/server-filesystem"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stdio_upstream(clients) -> Upstream:
    script = str(clients.package_file(EVERYTHING, "dist/index.js"))
    return Upstream("everything-stdio", command=str(clients.node()), args=(script, "stdio"))


@pytest.fixture(scope="module")
def http_upstream(clients) -> Iterator[Upstream]:
    port = free_port()
    script = str(clients.package_file(EVERYTHING, "dist/index.js"))
    process = subprocess.Popen(
        [str(clients.node()), script, "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if b"listening" in line:
                break
        yield Upstream("everything-http", url=f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


@pytest.fixture(params=["stdio", "http"], scope="module")
def upstream(request, clients) -> Upstream:
    return stdio_upstream(clients) if request.param == "stdio" else request.getfixturevalue("http_upstream")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def backend(anyio_backend):
    """One back end for all, so that each server is started once: Node takes a second."""
    async with McpBackend() as entered:
        yield entered


async def use(kit, backend, upstream, tool, *, parameters=None, on_progress=None, **action) -> Result:
    kit.digest = "3" * 64
    bound = kit.action(McpExecutor(upstream.name, tool), **action)
    return await kit.call(backend, bound, kit.atlas(upstream), parameters or {}, on_progress)


async def test_a_text_comes_back(kit, backend, upstream) -> None:
    result = await use(kit, backend, upstream, "echo", parameters={"message": "hello"})
    assert result == Result(content=({"type": "text", "text": "Echo: hello"},))


async def test_an_image_arrives_whole(kit, backend, upstream) -> None:
    result = await use(kit, backend, upstream, "get-tiny-image")
    image = next(block for block in result.content or () if block["type"] == "image")
    assert image["mimeType"] == "image/png"
    assert base64.b64decode(str(image["data"])).startswith(b"\x89PNG\r\n\x1a\n")


async def test_structured_content_is_the_value(kit, backend, upstream) -> None:
    result = await use(kit, backend, upstream, "get-structured-content", parameters={"location": "New York"})
    assert isinstance(result.value, dict)
    assert set(result.value) == {"temperature", "conditions", "humidity"}
    assert result.content


async def test_links_and_embedded_resources_keep_all_their_fields(kit, backend, upstream) -> None:
    links = await use(kit, backend, upstream, "get-resource-links", parameters={"count": 2})
    assert [block["type"] for block in links.content or ()] == ["text", "resource_link", "resource_link"]
    reference = await use(
        kit, backend, upstream, "get-resource-reference", parameters={"resourceType": "Blob", "resourceId": 1}
    )
    embedded = next(block for block in reference.content or () if block["type"] == "resource")
    assert {"uri", "mimeType", "blob"} <= set(embedded["resource"])  # type: ignore[arg-type]


async def test_annotations_are_kept(kit, backend, upstream) -> None:
    result = await use(
        kit, backend, upstream, "get-annotated-message", parameters={"messageType": "error", "includeImage": True}
    )
    assert [block["annotations"]["priority"] for block in result.content or ()] == [1, 0.5]  # type: ignore[index]


async def test_errors_of_tools_stay_errors_of_tools(kit, backend, upstream) -> None:
    result = await use(kit, backend, upstream, "get-sum", parameters={"a": "one", "b": 2})
    assert result.is_error
    assert result.content


async def test_progress_is_forwarded(kit, backend, upstream) -> None:
    seen = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total))

    result = await use(
        kit,
        backend,
        upstream,
        "trigger-long-running-operation",
        parameters={"duration": 0.4, "steps": 4},
        on_progress=on_progress,
    )
    assert not result.is_error
    assert seen[:3] == [(1.0, 4.0), (2.0, 4.0), (3.0, 4.0)]


async def test_a_call_left_behind_does_not_disturb_the_next(kit, backend, upstream) -> None:
    await use(kit, backend, upstream, "echo", parameters={"message": "warm"})
    with anyio.move_on_after(0.2) as scope:
        await use(kit, backend, upstream, "trigger-long-running-operation", parameters={"duration": 30, "steps": 30})
    assert scope.cancelled_caught
    result = await use(kit, backend, upstream, "echo", parameters={"message": "next"})
    assert result.content == ({"type": "text", "text": "Echo: next"},)


async def test_many_calls_at_once_get_their_own_answers(kit, backend, upstream) -> None:
    answers = {}

    async def one(number: int) -> None:
        result = await use(kit, backend, upstream, "get-sum", parameters={"a": number, "b": 1000})
        answers[number] = result.content[0]["text"]  # type: ignore[index]

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(one, number)
    assert all(str(number + 1000) in str(text) for number, text in answers.items())
    assert len(answers) == 30


def noted_upstream(clients, kit) -> Upstream:
    """A server of this test alone, whose process id is in the file ``pid``."""
    plain = stdio_upstream(clients)
    script = 'echo $$ > "$0"; exec "$@"'
    return Upstream(
        f"noted-{kit.folder.name}",
        command="sh",
        args=("-c", script, str(kit.folder / "pid"), str(plain.command), *plain.args),
    )


async def test_after_a_kill_of_a_stdio_server_the_next_call_works(kit, backend, clients) -> None:
    upstream = noted_upstream(clients, kit)
    for _ in range(2):
        await use(kit, backend, upstream, "echo", parameters={"message": "x"})
        pid = int((kit.folder / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        await kit.until(lambda pid=pid: kit.reaped(pid))
    result = await use(kit, backend, upstream, "echo", parameters={"message": "back"})
    assert result.content == ({"type": "text", "text": "Echo: back"},)


async def test_a_kill_in_the_middle_of_a_call_leaves_its_outcome_unknown(kit, backend, clients) -> None:
    upstream = noted_upstream(clients, kit)
    started = anyio.Event()
    errors = []

    async def on_progress(*_: object) -> None:
        started.set()

    async def long_call() -> None:
        with pytest.raises(ExecutionError) as caught:
            await use(
                kit,
                backend,
                upstream,
                "trigger-long-running-operation",
                parameters={"duration": 30, "steps": 300},
                on_progress=on_progress,
            )
        errors.append(caught.value.code)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(long_call)
        await started.wait()
        os.kill(int((kit.folder / "pid").read_text()), signal.SIGKILL)
    assert errors == ["upstream_lost"]


async def test_the_filesystem_server_reads_writes_and_refuses(kit, backend, clients) -> None:
    allowed = kit.folder / "allowed"
    allowed.mkdir()
    (allowed / "note.txt").write_text("content ü")
    script = str(clients.package_file(FILESYSTEM, "dist/index.js"))
    upstream = Upstream("files", command=str(clients.node()), args=(script, str(allowed)))
    read = await use(kit, backend, upstream, "read_text_file", parameters={"path": str(allowed / "note.txt")})
    assert read.content == ({"type": "text", "text": "content ü"},)
    written = {"path": str(allowed / "new.txt"), "content": "written"}
    assert not (await use(kit, backend, upstream, "write_file", parameters=written)).is_error
    assert (allowed / "new.txt").read_text() == "written"
    outside = await use(kit, backend, upstream, "read_text_file", parameters={"path": str(kit.folder / "other.txt")})
    assert outside.is_error
