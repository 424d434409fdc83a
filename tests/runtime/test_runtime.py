"""The library as a program uses it."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

import cra_mcp
from cra_mcp import CRAError, CRARuntime, RuntimeConfig
from cra_mcp.errors import AtlasConflictError, RequestError, SettingsError, TraceUnavailableError, UnknownTraceError
from cra_mcp.settings import from_environment, new_uuid7
from tests.gate.conftest import ATLAS, World, forever, make_world

OPERATOR = json.dumps(
    {
        "atlas_version": "1.0",
        "atlas_id": "com.example.library",
        "version": "1.0.0",
        "name": "Library",
        "description": "d",
        "actions": [
            {
                "action_id": "json.dumps",
                "name": "Dump",
                "description": "d",
                "parameters_schema": {"type": "object"},
                "executor": {"type": "python", "callable": "json:dumps"},
            }
        ],
    }
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_importing_it_imports_no_protocol_and_no_models() -> None:
    code = (
        "import sys; from cra_mcp import CRARuntime, RuntimeConfig, CRAError; import cra_mcp.runtime; "
        "bad = [m for m in ('mcp', 'mcp_types', 'httpx2', 'httpx', 'starlette', 'pydantic', 'jsonschema', 'structlog', "
        "'jsonschema_rs') if m in sys.modules]; print(bad)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = cra_mcp.NoSuchName


def test_a_program_without_an_event_loop_does_all_of_it(tmp_path: Path) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as runtime:
        info = runtime.load_atlas_from_json(OPERATOR)
        assert runtime.list_atlases() == [info]
        assert info.to_dict()["actions"] == 1
        session = runtime.create_session("agent", "goal")
        assert runtime.get_session(session.session_id) is session
        assert runtime.get_session("nobody") is None
        outcome = runtime.execute_blocking(session.session_id, "json.dumps", {"obj": [1]})
        assert (outcome.status, outcome.value) == ("success", "[1]")
        assert outcome.to_dict()["result"] == "[1]"
        denied = runtime.execute_blocking(session.session_id, "no.such", {})
        assert denied.to_dict()["error"]["code"] == "unknown_action"
        assert denied.value is None
        runtime.end_session(session.session_id)
        runtime.end_session(session.session_id)
        with pytest.raises(RequestError) as caught:
            runtime.resolve(session.session_id)
        assert caught.value.code == "session_ended"
        assert runtime.verify_chain(session.session_id).ok
        assert runtime.list_traces()[0].session_id == session.session_id
        assert runtime.recover_trace(session.session_id).set_aside_bytes == 0
        types = [event.event_type for event in runtime.get_trace(session.session_id)]
        assert (types[0], types[-1]) == ("session.started", "session.ended")
    runtime.close()


def test_blocking_calls_from_several_threads_share_one_chain(tmp_path: Path) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as runtime:
        runtime.load_atlas_from_json(OPERATOR)
        session = runtime.create_session("agent", "goal").session_id
        runtime.resolve(session)
        statuses: list[str] = []

        def work() -> None:
            statuses.extend(runtime.execute_blocking(session, "json.dumps", {"obj": n}).status for n in range(5))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == ["success"] * 30
        check = runtime.verify_chain(session)
        assert (check.ok, check.events) == (True, 3 + 30 * 4)


def test_leaving_the_runtime_ends_its_sessions(tmp_path: Path) -> None:
    config = RuntimeConfig(data_dir=tmp_path)
    with CRARuntime(config) as runtime:
        session = runtime.create_session("agent", "goal").session_id
    last = CRARuntime(config).get_trace(session)[-1]
    assert (last.event_type, last.payload["reason"]) == ("session.ended", "completed")


def test_atlases_are_loaded_and_unloaded_in_sessions_under_way() -> None:
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        session = runtime.create_session("agent", "goal").session_id
        runtime.load_atlas_from_json(OPERATOR)
        assert len(runtime.resolve(session).allowed_actions) == 1
        with pytest.raises(AtlasConflictError):
            runtime.load_atlas_from_json(OPERATOR)
        assert runtime.atlas("com.example.library").version == "1.0.0"
        runtime.unload_atlas("com.example.library")
        assert runtime.resolve(session).decision_type == "deny"
        for missing in (runtime.unload_atlas, runtime.atlas):
            with pytest.raises(RequestError) as caught:
                missing("com.example.library")
            assert caught.value.code == "unknown_atlas"
        kinds = [event.event_type for event in runtime.get_trace(session)]
        assert kinds.count("atlas.loaded") == kinds.count("atlas.unloaded") == 1


def test_a_child_session_names_its_parent_and_shares_its_trace_id() -> None:
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        parent = runtime.create_session("agent", "goal")
        child = runtime.create_session("agent", "part", parent_session_id=parent.session_id, context={"env": "test"})
        assert child.trace_id == parent.trace_id
        started = runtime.get_trace(child.session_id)[0].payload
        assert (started["parent_session_id"], started["context"]) == (parent.session_id, {"env": "test"})


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"agent_id": ""}, "invalid_request"),
        ({"agent_id": "x" * 257}, "invalid_request"),
        ({"goal": "x" * 10_001}, "invalid_request"),
        ({"risk_tier": "huge"}, "invalid_request"),
        ({"parent_session_id": "nobody"}, "unknown_session"),
    ],
)
def test_a_session_that_can_not_be_is_refused(arguments: dict, code: str) -> None:
    with CRARuntime(RuntimeConfig(store="memory")) as runtime, pytest.raises(RequestError) as caught:
        runtime.create_session(**arguments)
    assert caught.value.code == code


def test_a_session_whose_chain_can_not_begin_does_not_exist() -> None:
    world = make_world()
    world.store.fail_from = 0
    with pytest.raises(TraceUnavailableError):
        world.runtime.create_session("agent", "goal")
    assert world.runtime._sessions.active() == []


def test_traces_that_are_not_there_say_so() -> None:
    with CRARuntime(RuntimeConfig(store="memory")) as runtime, pytest.raises(UnknownTraceError):
        runtime.read_trace(new_uuid7())


# --- CARP messages: the order of checks ---


def message(world: World, **changes: object) -> dict:
    made = {
        "carp_version": "1.0",
        "request_id": new_uuid7(),
        "timestamp": "2027-01-15T08:00:00.000000Z",
        "operation": "resolve",
        "requester": {"agent_id": "agent", "session_id": world.session},
        "task": {"goal": "a goal"},
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"carp_version": "2.0"}, "unsupported_version"),
        ({"carp_version": None}, "invalid_request"),
        ({"extra": 1}, "invalid_request"),
        ({"task": {"goal": ""}}, "invalid_request"),
        ({"timestamp": "2027-02-30T08:00:00.000000Z"}, "invalid_request"),
        ({"timestamp": "2027-01-15T09:00:00.000000Z"}, "clock_skew"),
        ({"operation": "validate"}, "invalid_request"),
        ({"operation": "execute"}, "invalid_request"),
    ],
)
async def test_a_message_is_checked_in_order(changes: dict, code: str) -> None:
    world = make_world()
    with pytest.raises(RequestError) as caught:
        world.runtime.resolve(world.session, message(world, **changes))
    assert caught.value.code == code


test_a_message_is_checked_in_order = pytest.mark.anyio(test_a_message_is_checked_in_order)


def test_who_asks_must_be_who_the_session_belongs_to_and_ids_count_once() -> None:
    world = make_world()
    good = message(world, task={"goal": "g", "risk_tier": "critical", "context_hints": ["h"]}, context={"env": "prod"})
    resolution = world.runtime.resolve(world.session, good)
    assert resolution.request_id == good["request_id"]
    assert resolution.facts.task_risk == "critical"
    with pytest.raises(RequestError) as caught:
        world.runtime.resolve(world.session, good)
    assert caught.value.code == "duplicate_request"
    stranger = message(world, requester={"agent_id": "mallory", "session_id": world.session})
    with pytest.raises(RequestError) as caught:
        world.runtime.resolve(world.session, stranger)
    assert caught.value.code == "invalid_request"
    for unknown in ("nobody",):
        with pytest.raises(RequestError) as caught:
            world.runtime.resolve(unknown, message(world))
        assert caught.value.code == "unknown_session"
    world.runtime.end_session(world.session)
    with pytest.raises(RequestError) as caught:
        world.runtime.resolve(world.session, message(world))
    assert caught.value.code == "session_ended"


def test_a_request_can_add_facts_but_never_change_those_of_its_session() -> None:
    world = make_world()
    session = world.runtime.create_session("agent", "g", context={"env": "prod"}, risk_tier="high").session_id
    asked = message(world, requester={"agent_id": "agent", "session_id": session}, context={"env": "test", "team": "a"})
    facts = world.runtime.resolve(session, asked).facts
    assert (facts.context, facts.task_risk) == ({"env": "prod", "team": "a"}, "high")


@pytest.mark.anyio
async def test_an_execute_message_names_a_resolution_that_must_hold() -> None:
    world = make_world()
    async with world.runtime:
        resolution = world.runtime.resolve(world.session)

        def wish(**more: object) -> dict:
            execution = {"resolution_id": resolution.resolution_id, "action_id": "do.plain", "parameters": {}, **more}
            return message(world, operation="execute", execution=execution)

        outcome = await world.runtime.execute_message(world.session, wish())
        assert (outcome.status, outcome.resolution_id) == ("success", resolution.resolution_id)
        for changed, code in (
            (wish(resolution_id=new_uuid7()), "unknown_resolution"),
            (message(world, operation="execute"), "invalid_request"),
            (message(world), "invalid_request"),
        ):
            with pytest.raises(RequestError) as caught:
                await world.runtime.execute_message(world.session, changed)
            assert caught.value.code == code
        world.clock.advance(299)
        late = wish()
        late["timestamp"] = "2027-01-15T08:05:00.000000Z"
        world.clock.advance(2)
        with pytest.raises(RequestError) as caught:
            await world.runtime.execute_message(world.session, late)
        assert caught.value.code == "resolution_expired"
        assert (await world.runtime.execute(world.session, "do.plain", {})).status == "success"


# --- idempotency and the end of sessions ---


@pytest.mark.anyio
async def test_an_idempotency_key_carries_one_call_out() -> None:
    world = make_world()
    async with world.runtime:
        run = world.runtime.execute
        first = await run(world.session, "do.plain", {"n": 1}, idempotency_key="k")
        again = await run(world.session, "do.plain", {"n": 1}, idempotency_key="k")
        assert again is first
        assert len(world.backend.done) == 1
        assert world.since(0)[-1] == "x.cra.action.replayed"
        with pytest.raises(RequestError) as caught:
            await run(world.session, "do.plain", {"n": 2}, idempotency_key="k")
        assert caught.value.code == "invalid_request"
        asked = await run(world.session, "do.pay", {}, idempotency_key="p")
        assert asked.approval is not None
        world.runtime.settle_approval(asked.approval.approval_id, granted=True, by="ann")
        assert (await run(world.session, "do.pay", {}, idempotency_key="p")).status == "success"


@pytest.mark.anyio
async def test_a_key_under_way_is_refused_and_a_cancelled_one_is_free_again() -> None:
    world = make_world()
    world.backend.behaviour["do.plain"] = forever
    async with world.runtime:
        assert world.session
        async with anyio.create_task_group() as group:
            call = world.runtime.execute
            group.start_soon(lambda: call(world.session, "do.plain", {}, idempotency_key="k"))
            while not world.backend.done:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(RequestError) as caught:
                await call(world.session, "do.plain", {}, idempotency_key="k")
            assert caught.value.code == "duplicate_request"
            group.cancel_scope.cancel()
        world.backend.behaviour.clear()
        assert (await call(world.session, "do.plain", {}, idempotency_key="k")).status == "success"


@pytest.mark.anyio
async def test_a_session_ends_after_the_last_call_under_way() -> None:
    world = make_world()
    world.backend.behaviour["do.plain"] = forever
    async with world.runtime:
        session = world.session
        async with anyio.create_task_group() as group:
            group.start_soon(world.runtime.execute, session, "do.plain", {})
            while not world.backend.done:
                await anyio.lowlevel.checkpoint()
            world.runtime.end_session(session)
            with pytest.raises(RequestError) as caught:
                await world.runtime.execute(session, "do.plain", {})
            assert caught.value.code == "session_ended"
            assert world.since(0)[-1] == "action.approved"
            group.cancel_scope.cancel()
        assert world.since(0)[-2:] == ["action.failed", "session.ended"]


# --- settings ---


def test_settings_come_from_the_environment_and_are_checked() -> None:
    config = from_environment({"CRA_AGENT_ID": "me", "CRA_TTL_SECONDS": "60", "CRA_DATA_DIR": "/x", "CRA_STORE": ""})
    assert (config.agent_id, config.ttl_seconds, config.data_path, config.trace_path) == (
        "me",
        60,
        Path("/x"),
        Path("/x/traces"),
    )
    assert RuntimeConfig(trace_dir=Path("/t")).trace_path == Path("/t")
    assert "cra-mcp" in str(RuntimeConfig().data_path)
    assert [bool(from_environment({"CRA_ALLOW_SELF_APPROVAL": text}).allow_self_approval) for text in "10"] == [
        True,
        False,
    ]
    assert RuntimeConfig().allow_self_approval is False
    for wrong in (
        {"CRA_TTL_SECONDS": "soon"},
        {"CRA_STORE": "tape"},
        {"CRA_FLUSH_INTERVAL_S": "0"},
        {"CRA_ALLOW_SELF_APPROVAL": "yes"},
    ):
        with pytest.raises(SettingsError) as caught:
            from_environment(wrong)
        assert next(iter(wrong)).removeprefix("CRA_").lower() in str(caught.value).lower()


def test_an_error_has_a_code_and_a_hint() -> None:
    error = CRAError("m", code="c", hint="h")
    assert (error.code, error.message, error.hint) == ("c", "m", "h")
    assert CRAError("m").code == "cra_error"


def test_the_atlas_of_these_tests_is_what_it_says() -> None:
    assert len(ATLAS["actions"]) == 13
