"""What those who measure and those who watch are told."""

import json
from collections.abc import AsyncIterator

import anyio
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.runtime.observing import Observation
from cra_mcp.runtime.watching import Change

pytestmark = pytest.mark.anyio


def action(name: str, function: str) -> dict[str, object]:
    return {
        "action_id": f"do.{name}",
        "name": name,
        "description": name,
        "parameters_schema": {"type": "object"},
        "executor": {"type": "python", "callable": function},
    }


ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.observing",
    "version": "1.0.0",
    "name": "Observing",
    "description": "For the tests.",
    "actions": [
        action("dedent", "textwrap:dedent"),
        action("sleep", "asyncio:sleep"),
        action("denied", "textwrap:dedent"),
    ],
    "policies": [{"policy_id": "no", "type": "deny", "actions": ["do.denied"], "reason": "never"}],
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def runtime() -> AsyncIterator[CRARuntime]:
    async with CRARuntime(RuntimeConfig(store="memory")) as made:
        made.load_atlas_from_json(json.dumps(ATLAS))
        yield made


async def test_an_observer_is_told_of_every_call_until_it_has_enough(runtime: CRARuntime) -> None:
    seen: list[Observation] = []
    session = runtime.create_session("agent", "").session_id
    enough = runtime.observe(seen.append)
    await runtime.execute(session, "do.dedent", {"text": " a"})
    await runtime.execute(session, "do.denied", {})
    await runtime.execute(session, "do.dedent", {"text": " a"}, idempotency_key="k")
    await runtime.execute(session, "do.dedent", {"text": " a"}, idempotency_key="k")
    enough()
    await runtime.execute(session, "do.dedent", {"text": " a"})
    assert [(each.status, each.code) for each in seen] == [
        ("success", ""),
        ("denied", "denied"),
        ("success", ""),
        ("success", ""),
    ]
    assert all(0 < each.duration_s < 60 for each in seen)


async def test_a_call_that_is_given_up_is_told_of(runtime: CRARuntime) -> None:
    seen: list[Observation] = []
    session = runtime.create_session("agent", "").session_id
    runtime.observe(seen.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.execute, session, "do.sleep", {"delay": 60})
        with anyio.fail_after(20):
            while runtime.get_trace(session)[-1].event_type != "action.approved":
                await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert [(each.status, each.code) for each in seen] == [("cancelled", "cancelled")]


async def test_one_who_fails_fails_nothing_else(runtime: CRARuntime) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    seen: list[object] = []
    session = runtime.create_session("agent", "").session_id
    runtime.observe(fail)
    runtime.observe(seen.append)
    runtime.watch(fail)
    runtime.watch(seen.append)
    assert (await runtime.execute(session, "do.dedent", {"text": " a"})).status == "success"
    assert [type(each) for each in seen] == [Observation, Change]


async def test_a_watcher_is_told_what_changes_until_it_has_enough(runtime: CRARuntime) -> None:
    seen: list[Change] = []
    enough = runtime.watch(seen.append)
    session = runtime.create_session("agent", "").session_id
    await runtime.execute(session, "do.dedent", {"text": " a"})
    runtime.record(session, "x.test", {})
    assert seen == [Change("trace", session)] * 3
    runtime.unload_atlas("com.example.observing")
    assert seen[3:] == [Change("trace", session), Change("catalogue")]
    enough()
    runtime.end_session(session)
    assert len(seen) == 5
