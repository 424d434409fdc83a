"""Upstreams of atlases that are edited: real processes, counted."""

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import AtlasInvalidError
from cra_mcp.faces.reloading import Reloader, look_at

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")]

SERVER = """
import json, sys, time, pathlib
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        info = {"name": "t", "version": "1"}
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    else:
        import os
        wait = message["params"]["arguments"].get("until")
        while wait and not pathlib.Path(wait).exists():
            time.sleep(0.01)
        result = {"content": [{"type": "text", "text": str(os.getpid())}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
UPSTREAMS = ("one", "two")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    """An atlas with two upstreams, served and edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "atlas"
        self.folder.mkdir()
        (self.folder / "server.py").write_text(SERVER)
        self.manifest: dict[str, Any] = {
            "atlas_version": "1.0",
            "atlas_id": "com.example.edited",
            "version": "1.0.0",
            "name": "Edited",
            "description": "For the tests.",
            "actions": [
                {
                    "action_id": f"a.{name}",
                    "name": name,
                    "description": name,
                    "parameters_schema": {"type": "object"},
                    "executor": {"type": "mcp", "upstream": name, "tool": "pid"},
                }
                for name in UPSTREAMS
            ],
            "upstreams": {name: {"command": sys.executable, "args": ["-S", "./server.py", name]} for name in UPSTREAMS},
        }
        self.write()
        self.policies = folder / "policy.json"
        self.policies.write_text(json.dumps({"policies": []}))
        self.runtime = CRARuntime(RuntimeConfig(store="memory", policy_files=(self.policies,)))
        self.runtime.load_atlas(self.folder)
        self.session = self.runtime.create_session("bot", "g").session_id

    def write(self) -> None:
        (self.folder / "atlas.json").write_text(json.dumps(self.manifest))

    async def edit(self, *, version: str) -> None:
        """As a server does it: on a thread."""
        self.manifest["version"] = version
        self.write()
        await anyio.to_thread.run_sync(self.runtime.replace_atlas, "com.example.edited", self.folder)

    async def pid(self, name: str, **parameters: object) -> int:
        outcome = await self.runtime.execute(self.session, f"a.{name}", parameters)
        assert outcome.result is not None, outcome.fault
        assert outcome.result.content is not None
        return int(str(outcome.result.content[0]["text"]))

    async def pids(self) -> list[int]:
        return [await self.pid(name) for name in UPSTREAMS]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    async with made.runtime:
        yield made
    assert children() == []


def children() -> list[int]:
    """The processes this one has, without those that have ended."""
    me, found = os.getpid(), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == me and state not in "ZX" and b"server.py" in (path.parent / "cmdline").read_bytes():
            found.append(int(path.parent.name))
    return sorted(found)


async def until(pids: list[int]) -> None:
    with anyio.fail_after(10):
        while children() != sorted(pids):
            await anyio.sleep(0.01)


async def test_an_edit_that_leaves_an_upstream_alone_restarts_nothing(world: World) -> None:
    before = await world.pids()
    for number in range(5):
        await world.edit(version=f"1.0.{number + 1}")
        assert await world.pids() == before
    await until(before)


async def test_an_edit_of_one_upstream_restarts_it_alone(world: World) -> None:
    one, two = await world.pids()
    for number in range(5):
        world.manifest["upstreams"]["one"]["env"] = {"N": str(number)}
        await world.edit(version=f"1.1.{number}")
        again, other = await world.pids()
        assert (again != one, other) == (True, two)
        await until([again, two])
        one = again


async def test_a_program_of_the_atlas_that_was_edited_is_started_again(world: World) -> None:
    before = await world.pids()
    (world.folder / "server.py").write_text(SERVER + "\n# edited\n")
    await world.edit(version="1.2.0")
    after = await world.pids()
    assert not set(before) & set(after)
    await until(after)


async def test_upstreams_that_are_named_no_longer_end(world: World) -> None:
    one, _ = await world.pids()
    del world.manifest["upstreams"]["two"], world.manifest["actions"][1]
    await world.edit(version="2.0.0")
    await until([one])
    await anyio.to_thread.run_sync(world.runtime.unload_atlas, "com.example.edited")
    await until([])


async def test_a_call_under_way_ends_before_its_upstream_does(world: World, tmp_path: Path) -> None:
    one, two = await world.pids()
    go, answers = tmp_path / "go", []

    async def call() -> None:
        answers.append(await world.pid("one", until=str(go)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await anyio.sleep(0.1)
        world.manifest["upstreams"]["one"]["env"] = {"N": "1"}
        await world.edit(version="3.0.0")
        new = await world.pid("one")
        assert new != one
        await until([one, two, new])
        go.touch()
    assert answers == [one]
    await until([two, new])


async def test_overlays_and_refused_edits_restart_nothing(world: World) -> None:
    before = await world.pids()
    overlay = world.runtime.overlays()[0].overlay_id
    for number in range(5):
        policies = [{"policy_id": f"p-{number}", "type": "deny", "actions": ["x.y"], "reason": "no"}]
        world.policies.write_text(json.dumps({"policies": policies}))
        await anyio.to_thread.run_sync(world.runtime.replace_overlay, overlay, world.policies)
        assert await world.pids() == before
        world.manifest["upstreams"]["one"]["env"] = {"N": str(number)}
        world.manifest["nonsense"] = True
        with pytest.raises(AtlasInvalidError):
            await world.edit(version=f"4.0.{number}")
        del world.manifest["nonsense"], world.manifest["upstreams"]["one"]["env"]
        assert await world.pids() == before
    await until(before)


async def test_files_edited_under_a_server_leave_as_many_processes_as_there_are_upstreams(world: World) -> None:
    before = await world.pids()
    looks = {world.folder: look_at(world.folder)}
    reloader = Reloader(world.runtime, {"com.example.edited": world.folder}, looks, interval_s=0.02)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reloader.run)
        for number in range(5):
            world.manifest["version"] = f"5.0.{number}"
            world.manifest["upstreams"]["two"]["args"] = ["-S", "./server.py", f"two-{number}"]
            world.write()
            with anyio.fail_after(30):
                while world.runtime.list_atlases()[0].version != f"5.0.{number}":
                    await anyio.sleep(0.01)
            after = await world.pids()
            assert after[0] == before[0]
            await until(after)
        tasks.cancel_scope.cancel()
