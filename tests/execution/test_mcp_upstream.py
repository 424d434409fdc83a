"""Upstreams over standard input and output: supervision, and everything a bad one can do."""

import json
import os
import signal
import subprocess
import sys
import time

import anyio
import pytest

from cra_mcp.atlas.model import McpExecutor, Upstream
from cra_mcp.errors import ExecutionError
from cra_mcp.execution import mcp_stdio
from cra_mcp.execution.backend import Result
from cra_mcp.execution.mcp_upstream import McpBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
async def backend():
    async with McpBackend(connect_timeout_s=10) as entered:
        yield entered


async def use(kit, backend, upstream, tool="echo", *, parameters=None, on_progress=None, **action) -> Result:
    bound = kit.action(McpExecutor(upstream.name, tool), **action)
    return await kit.call(backend, bound, kit.atlas(upstream), parameters or {}, on_progress)


async def refused(kit, backend, upstream: Upstream, *arguments, **options) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await use(kit, backend, upstream, *arguments, **options)
    assert "\n" not in caught.value.message
    return caught.value


def text(result: Result) -> str:
    assert result.content is not None
    return str(result.content[0]["text"])


def pids(kit) -> list[int]:
    path = kit.folder / "pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


# --- life --------------------------------------------------------------------------------------------------------------


async def test_it_is_started_by_the_first_call_and_kept(kit, backend) -> None:
    upstream = kit.server("good")
    assert pids(kit) == []
    first = text(await use(kit, backend, upstream, "pid"))
    assert text(await use(kit, backend, upstream, "pid")) == first
    assert pids(kit) == [int(first)]


async def test_calls_at_once_start_it_once(kit, backend) -> None:
    upstream = kit.server("good")
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(use, kit, backend, upstream, "echo")
    assert len(pids(kit)) == 1


async def test_it_ends_with_the_back_end(kit) -> None:
    async with McpBackend() as backend:
        pid = int(text(await use(kit, backend, kit.server("good"), "pid")))
        assert kit.alive(pid)
    await kit.until(lambda: not kit.alive(pid))


async def test_one_that_will_not_end_is_killed_with_its_children(kit) -> None:
    async with McpBackend() as backend:
        await use(kit, backend, kit.server("stubborn"), "pid")
        assert len(pids(kit)) == 2
        before = time.monotonic()
    assert time.monotonic() - before < 5
    await kit.until(lambda: not any(kit.alive(pid) for pid in pids(kit)))


async def test_before_it_is_entered_and_after_it_is_left_calls_are_refused(kit) -> None:
    backend = McpBackend()
    error = await refused(kit, backend, kit.server("good"))
    assert error.code == "upstream_unavailable"
    assert error.hint
    async with backend:
        await use(kit, backend, kit.server("good"))
    assert (await refused(kit, backend, kit.server("good"))).code == "upstream_unavailable"
    async with backend:
        await use(kit, backend, kit.server("good"))


async def test_an_upstream_nobody_declared_is_refused_when_bound(kit, backend) -> None:
    with pytest.raises(ExecutionError) as caught:
        backend.bind(kit.action(McpExecutor("absent", "echo")), kit.atlas())
    assert caught.value.code == "no_executor"


async def test_two_upstreams_of_one_atlas_are_two_processes(kit, backend) -> None:
    one, two = kit.server("good", name="one"), kit.server("good", name="two")
    assert text(await use(kit, backend, one, "pid")) != text(await use(kit, backend, two, "pid"))


# --- death and return --------------------------------------------------------------------------------------------------


async def test_after_a_kill_the_next_call_works(kit, backend) -> None:
    upstream = kit.server("good")
    for _ in range(3):
        pid = int(text(await use(kit, backend, upstream, "pid")))
        os.kill(pid, signal.SIGKILL)
        await kit.until(lambda pid=pid: kit.reaped(pid))
    assert len(set(pids(kit))) == 3


async def test_a_call_that_arrived_in_no_live_process_is_made_again_even_if_it_is_not_idempotent(kit, backend) -> None:
    upstream = kit.server("die-after")
    first = text(await use(kit, backend, upstream))
    await kit.until(lambda: kit.reaped(int(first)))
    assert text(await use(kit, backend, upstream)) != first


async def test_an_idempotent_call_is_made_again_once(kit, backend) -> None:
    upstream = kit.server("die", "1")
    assert text(await use(kit, backend, upstream, idempotent=True)) == "alive"
    assert len((kit.folder / "calls").read_text().splitlines()) == 2


async def test_an_idempotent_call_is_not_made_a_third_time(kit, backend) -> None:
    error = await refused(kit, backend, kit.server("die", "9"), idempotent=True)
    assert error.code == "upstream_lost"
    assert len((kit.folder / "calls").read_text().splitlines()) == 2


async def test_any_other_call_is_not_made_again_and_its_outcome_is_unknown(kit, backend) -> None:
    upstream = kit.server("die", "1")
    error = await refused(kit, backend, upstream)
    assert error.code == "upstream_lost"
    assert "unknown" in error.message
    assert len((kit.folder / "calls").read_text().splitlines()) == 1
    assert text(await use(kit, backend, upstream)) == "alive"


async def test_one_that_keeps_dying_is_tried_less_and_less(kit, backend) -> None:
    upstream = kit.server("crash-at-start")
    errors = [await refused(kit, backend, upstream) for _ in range(6)]
    assert {error.code for error in errors} == {"upstream_unavailable"}
    assert len(pids(kit)) == 2
    assert "tried again" in (errors[-1].hint or "")
    with anyio.fail_after(5):
        while len(pids(kit)) == 2:
            await refused(kit, backend, upstream)
            await anyio.sleep(0.05)


# --- starting ----------------------------------------------------------------------------------------------------------


async def test_one_that_does_not_answer_the_handshake_is_given_up_and_killed(kit) -> None:
    async with McpBackend(connect_timeout_s=0.5) as backend:
        error = await refused(kit, backend, kit.server("hang-at-start"))
        assert error.code == "upstream_unavailable"
        assert "0.5 s" in error.message
        await kit.until(lambda: not kit.alive(pids(kit)[0]))


async def test_a_caller_that_leaves_while_it_starts_leaves_it_starting(kit, backend) -> None:
    upstream = kit.server("good")
    with anyio.move_on_after(0):
        await use(kit, backend, upstream)
    assert text(await use(kit, backend, upstream, "pid")) == str(pids(kit)[0])


async def test_one_that_refuses_the_handshake_is_unavailable(kit, backend) -> None:
    error = await refused(kit, backend, kit.server("refuse-at-start"))
    assert error.code == "upstream_unavailable"
    assert "go away" in error.message


async def test_one_that_floods_in_place_of_the_handshake_is_ended(kit) -> None:
    async with McpBackend(connect_timeout_s=2) as backend:
        error = await refused(kit, backend, kit.server("flood-at-start"))
    assert error.code == "upstream_unavailable"
    await kit.until(lambda: not kit.alive(pids(kit)[0]))


async def test_one_that_speaks_only_the_newest_protocol_is_used_and_remembered(kit, backend) -> None:
    upstream = kit.server("modern")
    assert text(await use(kit, backend, upstream, parameters={"text": "new"})) == "new"
    started = pids(kit)
    os.kill(started[-1], signal.SIGKILL)
    await kit.until(lambda: kit.reaped(started[-1]))
    assert text(await use(kit, backend, upstream, parameters={"text": "again"})) == "again"
    assert len(pids(kit)) == len(started) + 1


async def test_one_that_wants_a_person_asked_is_refused(kit, backend) -> None:
    error = await refused(kit, backend, kit.server("modern"), parameters={"text": "ask"})
    assert error.code == "execution_failed"
    assert "person" in error.message


async def test_no_client_capability_is_declared(kit, backend) -> None:
    await use(kit, backend, kit.server("good"))
    assert json.loads(await kit.text_of("initialize")) == {}


async def test_a_missing_program_or_variable_is_said_without_values(kit, backend) -> None:
    absent = await refused(kit, backend, Upstream("up", command="no-such-program-anywhere"))
    assert absent.code == "upstream_unavailable"
    assert "no-such-program-anywhere" in absent.message
    unset = await refused(kit, backend, kit.server("good", name="other", env={"SETTING": "${CRA_TEST_UNSET}"}))
    assert unset.code == "missing_setting"
    assert "CRA_TEST_UNSET" in unset.message


async def test_references_are_filled_in_and_the_environment_is_a_list(kit) -> None:
    work = kit.folder / "work"
    work.mkdir()
    environ = {**os.environ, "SECRET": "s3cret", "SETTING_SOURCE": "value", "WORK": str(work)}
    upstream = kit.server("good", env={"SETTING": "${SETTING_SOURCE}", "MODE": "${UNSET:-quiet}"}, cwd="${WORK}")
    async with McpBackend(environ=environ) as backend:
        seen = (await use(kit, backend, upstream, "environment")).value
        assert seen["SETTING"] == "value"
        assert seen["MODE"] == "quiet"
        assert "SECRET" not in seen
        assert "SETTING_SOURCE" not in seen
        assert text(await use(kit, backend, upstream, "where")) == str(work)


# --- results -----------------------------------------------------------------------------------------------------------


async def test_blocks_arrive_as_they_were_sent(kit, backend) -> None:
    sent = {
        "content": [
            {
                "type": "text",
                "text": "ü\u2028",
                "annotations": {"audience": ["user"], "priority": 0.5},
                "_meta": {"a": 1},
            },
            {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png", "x-later": {"kept": True}},
            {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "file:///x%20y", "name": "x", "mimeType": "text/plain", "size": 3},
            {"type": "resource", "resource": {"uri": "test://r", "text": "inside", "_meta": {"b": [1, None]}}},
            {"type": "resource", "resource": {"uri": "test://b", "blob": "AAEC", "mimeType": "application/x-y"}},
        ],
        "structuredContent": {"n": 12345678901234, "f": 1.5, "deep": [{"a": None}]},
    }
    (kit.folder / "blocks.json").write_text(json.dumps(sent))
    result = await use(kit, backend, kit.server("good"), "blocks")
    assert list(result.content or ()) == sent["content"]
    assert result.value == sent["structuredContent"]
    assert not result.is_error


async def test_no_list_of_tools_is_asked_for(kit, backend) -> None:
    await use(kit, backend, kit.server("good"))
    await use(kit, backend, kit.server("good"), "environment")
    assert not (kit.folder / "listed").exists()


async def test_progress_is_passed_on_and_none_comes_after_the_end(kit, backend) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    await use(kit, backend, kit.server("good"), "progress", on_progress=on_progress)
    assert seen == [(1.0, 3.0, "step 1"), (2.0, 3.0, "step 2"), (3.0, 3.0, "step 3")][: len(seen)]
    assert seen
    before = len(seen)
    await use(kit, backend, kit.server("good"))
    assert len(seen) == before


async def test_a_progress_callback_that_fails_does_not_fail_the_call(kit, backend) -> None:
    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        raise ValueError

    assert text(await use(kit, backend, kit.server("good"), "progress", on_progress=on_progress)) == "done"


async def test_an_error_of_the_protocol_is_one_bounded_line_said_to_be_the_upstreams(kit, backend) -> None:
    error = await refused(kit, backend, kit.server("good"), "error")
    assert error.code == "execution_failed"
    assert error.message.startswith("the upstream answered with error -32602: no such [31m tool")
    assert len(error.message) < 600
    assert error.message.isprintable()


async def test_cancelling_tells_the_upstream_which_call_it_was(kit, backend) -> None:
    async with kit.started(lambda: use(kit, backend, kit.server("good"), "hang")) as scope:
        await kit.text_of("started")
        scope.cancel()
    assert "requestId" in json.loads(await kit.text_of("cancelled"))
    assert text(await use(kit, backend, kit.server("good"), parameters={"text": "next"})) == "next"


async def test_a_call_that_hangs_holds_up_no_other(kit, backend) -> None:
    async with kit.started(lambda: use(kit, backend, kit.server("good"), "hang")):
        await kit.text_of("started")
        with anyio.fail_after(5):
            assert text(await use(kit, backend, kit.server("good"), parameters={"text": "x"})) == "x"


# --- bad ones ----------------------------------------------------------------------------------------------------------


async def test_lines_that_are_no_messages_are_passed_over(kit, backend) -> None:
    upstream = kit.server("garbage")
    for number in range(3):
        assert text(await use(kit, backend, upstream, parameters={"text": str(number)})) == str(number)
    assert len(pids(kit)) == 1


async def test_a_large_result_arrives(kit, backend) -> None:
    assert len(text(await use(kit, backend, kit.server("huge", "5000000")))) == 5_000_000


async def test_a_message_without_end_is_cut_off(kit, backend) -> None:
    error = await refused(kit, backend, kit.server("endless-line"))
    assert error.code == "output_too_large"
    await kit.until(lambda: not kit.alive(pids(kit)[0]))


_FIRST = '{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"a":['
_LAST = '{"result":{"content":[],"structuredContent":{"a":['
_HOSTILE = {
    "long": (_FIRST + '"', "x" * 1_000, 20_000, '"]}}}', "output_too_large"),
    "long, its id last": (_LAST + '"', "x" * 1_000, 20_000, '"]}},"id":ID,"jsonrpc":"2.0"}', "output_too_large"),
    "long, and no JSON": (_FIRST + '"', "x" * 1_000, 20_000, "", "output_too_large"),
    "values": (_FIRST, "[],", 4_000_000, "[]]}}}", "output_too_large"),
    "members": (_FIRST + "{", '"":"",', 1_000_000, '"":""}]}}}', "output_too_large"),
    "values, id last": (_LAST, "[],", 1_000_000, '[]]}},"jsonrpc":"2.0","id":ID}', "output_too_large"),
    "deep": (_FIRST, "[", 5_000, "]" * 5_000 + "]}}}", "output_too_large"),
    "deep and cut off": (_FIRST, "[", 5_000_000, "", "output_too_large"),
    "digits": (_FIRST, "1", 1_000_000, "]}}}", "invalid_result"),
    "no JSON": (_FIRST, "x", 1_000_000, "]}}}", "invalid_result"),
    "blocks": (
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[',
        '{"type":1},',
        30_000,
        '{"type":1}]}}',
        "invalid_result",
    ),
}


@pytest.mark.parametrize("kind", _HOSTILE)
async def test_an_answer_over_a_bound_fails_its_own_call_and_no_other(kit, backend, kind) -> None:
    before, part, times, after, code = _HOSTILE[kind]
    upstream = kit.server("good")
    arguments = {"before": before, "part": part, "times": times, "after": after}
    done = []

    async def neighbour() -> None:
        done.append(text(await use(kit, backend, upstream, "wait")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(neighbour)
        await kit.text_of("waiting")
        with anyio.fail_after(30):
            assert (await refused(kit, backend, upstream, "hostile", parameters=arguments)).code == code
    assert done == ["done all the same"]
    assert text(await use(kit, backend, upstream, parameters={"text": "next"})) == "next"
    assert len(pids(kit)) == 1


async def test_what_was_answered_before_the_end_stays_answered(kit, backend) -> None:
    upstream = kit.server("good")
    answers = []

    async def neighbour() -> None:
        answers.append(text(await use(kit, backend, upstream, "wait")))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(neighbour)
        await kit.until(
            lambda: (kit.folder / "waiting").exists() and len((kit.folder / "waiting").read_text().split()) == 20
        )
        gone = {"before": "", "part": "x", "times": 0, "after": "", "die": True}
        assert (await refused(kit, backend, upstream, "hostile", parameters=gone)).code == "upstream_lost"
    assert answers == ["done all the same"] * 20


async def test_a_large_message_that_answers_nothing_is_passed_over(kit, backend) -> None:
    before = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"'
    upstream = kit.server("good")
    arguments = {
        "before": before,
        "part": "x",
        "times": 3_000_000,
        "after": '"}}\n{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}',
    }
    assert (await use(kit, backend, upstream, "hostile", parameters=arguments)).content == ()


async def test_the_event_loop_stays_free_while_a_large_answer_is_read(kit, backend) -> None:
    upstream = kit.server("good")
    before, part, times, after, code = _HOSTILE["values"]
    arguments = {"before": before, "part": part, "times": times, "after": after}
    await use(kit, backend, upstream)
    slowest, done = 0.0, anyio.Event()

    async def call() -> None:
        assert (await refused(kit, backend, upstream, "hostile", parameters=arguments)).code == code
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        while not done.is_set():
            began = time.thread_time()
            await anyio.sleep(0.001)
            slowest = max(slowest, time.thread_time() - began)
    assert slowest < 0.5  # reading it all takes seconds


async def test_integers_arrive_as_they_are_whatever_their_size(kit, backend) -> None:
    numbers = [2**53, 2**64, -(2**63) - 1, 10**400, 0.5, 1e300]
    result = json.dumps({"content": [], "structuredContent": {"numbers": numbers}})
    assert (await use(kit, backend, kit.server("malformed", result))).value == {"numbers": numbers}


async def test_blocks_of_unknown_types_and_the_meta_of_a_result_pass(kit, backend) -> None:
    blocks = [{"type": "unheard-of", "x": [1]}, {"type": "text", "text": "a", "_meta": {"b": 1}}]
    result = await use(
        kit, backend, kit.server("malformed", json.dumps({"content": blocks, "_meta": {"example.com/a": 1}}))
    )
    assert list(result.content or ()) == blocks
    assert result.meta == {"example.com/a": 1}


async def test_structured_content_beside_empty_content_is_both(kit, backend) -> None:
    result = await use(kit, backend, kit.server("malformed", '{"content":[],"structuredContent":{"a":null}}'))
    assert (result.content, result.value) == ((), {"a": None})


async def test_notifications_without_end_take_up_a_small_part_of_the_processor_and_end_nothing(kit, backend) -> None:
    slowest = 0.0
    upstream = kit.server("flood")
    async with kit.started(lambda: use(kit, backend, upstream)):
        await kit.until(lambda: pids(kit))
        await anyio.sleep(1)
        began, spent = time.monotonic(), time.process_time()
        while time.monotonic() < began + 3:
            before = time.monotonic()
            await anyio.sleep(0.001)
            slowest = max(slowest, time.monotonic() - before)
        spent = time.process_time() - spent
        assert kit.alive(pids(kit)[0])
    assert slowest < 1
    assert spent < 2.4


@pytest.mark.parametrize("mode", ["flood-requests", "flood-garbage"])
async def test_a_flood_ends_the_upstream_and_the_event_loop_stays_free(kit, backend, mode) -> None:
    slowest = 0.0
    done = anyio.Event()
    errors = []

    async def call() -> None:
        errors.append(await refused(kit, backend, kit.server(mode)))
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await kit.until(lambda: pids(kit))
        while not done.is_set():
            before = time.monotonic()
            await anyio.sleep(0.001)
            slowest = max(slowest, time.monotonic() - before)
    assert errors[0].code == "upstream_lost"
    assert slowest < 1
    await kit.until(lambda: not kit.alive(pids(kit)[0]))


@pytest.mark.parametrize(
    "result",
    [
        '{"content":"text"}',
        '{"content":[{"type":"text"}]}',
        '{"content":[{"type":7}]}',
        '{"content":["a"]}',
        '{"content":[],"isError":1}',
        '{"content":[],"_meta":[]}',
        "{}",
    ],
)
async def test_a_result_that_is_none_of_mcp_is_refused(kit, backend, result) -> None:
    upstream = kit.server("malformed", result)
    assert (await refused(kit, backend, upstream)).code == "invalid_result"
    assert (await refused(kit, backend, upstream)).code == "invalid_result"
    assert len(pids(kit)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"x":NaN}}}',
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"x":1e999}}}',
        '{"jsonrpc":"2.0","id":ID,"result":"text"}',
        '{"jsonrpc":"2.0","id":ID}',
        '{"id":ID,"result":{"content":[]}}',
    ],
)
async def test_an_answer_that_is_nearly_one_ends_its_call_and_nothing_else(kit, backend, answer) -> None:
    upstream = kit.server("raw", answer)
    with anyio.fail_after(5):
        assert (await refused(kit, backend, upstream)).code == "invalid_result"
        assert (await refused(kit, backend, upstream)).code == "invalid_result"
    assert len(pids(kit)) == 1


async def test_half_a_surrogate_pair_is_replaced_in_texts_structured_content_and_errors(kit, backend) -> None:
    result = '{"content":[{"type":"text","text":"a\\ud800","x\\udfff":1}],"structuredContent":{"k\\ud800":["\\udc00"]}}'
    found = await use(kit, backend, kit.server("raw", f'{{"jsonrpc":"2.0","id":ID,"result":{result}}}'))
    assert found.content == ({"type": "text", "text": "a\ufffd", "x\ufffd": 1},)
    assert found.value == {"k\ufffd": ["\ufffd"]}
    error = '{"jsonrpc":"2.0","id":ID,"error":{"code":1,"message":"no \\ud800!","data":{"\\ud800":1}}}'
    said = await refused(kit, backend, kit.server("raw", error, name="other"))
    assert (said.code, said.message.endswith("no \ufffd!")) == ("execution_failed", True)


@pytest.mark.parametrize("answer", ["{", "[ID]", '"ID"', '{"result":{}}', "[" * 100_000, '{"id":' * 20_000])
async def test_what_is_no_answer_leaves_the_call_waiting(kit, backend, answer) -> None:
    assert text(await use(kit, backend, kit.server("raw-first", answer))) == "the answer"
    assert len(pids(kit)) == 1


async def test_one_that_reads_no_more_is_replaced_before_it_costs_much(kit, backend) -> None:
    upstream = kit.server("deaf")
    assert text(await use(kit, backend, upstream)) == "once"
    await kit.text_of("deaf")
    megabyte = {"text": "x" * 1_000_000}
    for _ in range(mcp_stdio.MAX_UNWRITTEN_BYTES // 1_000_000 + 2):
        if len(pids(kit)) > 1:
            break
        with anyio.move_on_after(0.05):
            await use(kit, backend, upstream, parameters=megabyte)
    await kit.until(lambda: len(pids(kit)) > 1)
    await kit.until(lambda: not kit.alive(pids(kit)[0]))


async def test_leaving_a_call_of_one_that_reads_no_more_takes_no_time(kit, backend) -> None:
    upstream = kit.server("deaf")
    await use(kit, backend, upstream)
    await kit.text_of("deaf")
    before = time.monotonic()
    with anyio.move_on_after(0.1):
        await use(kit, backend, upstream, parameters={"text": "x" * 1_000_000})
    assert time.monotonic() - before < 2


async def test_what_it_writes_to_standard_error_goes_to_the_debug_log_alone(kit) -> None:
    script = (
        "import anyio, sys\n"
        "from pathlib import Path\n"
        "from cra_mcp.atlas.model import *\n"
        "from cra_mcp.execution.backend import Invocation\n"
        "from cra_mcp.execution.mcp_upstream import McpBackend\n"
        "from cra_mcp.policy.engine import compile_policies\n"
        "up = Upstream('up', command='sh', args=('-c', 'echo noise >&2; exec \"$0\" \"$@\"', *sys.argv[1:]))\n"
        "action = Action('a.b', 'a', '', {'type': 'object'}, executor=McpExecutor('up', 'echo'))\n"
        "policies = compile_policies([], [], 'allow')\n"
        "atlas = Atlas('a.b', '1.0.0', 'a', 'a', 'd' * 64, (action,), (), policies, upstreams={'up': up})\n"
        "async def main():\n"
        "    async with McpBackend(debug_log=Path('debug.log')) as backend:\n"
        "        await backend.bind(action, atlas)(Invocation('a.b', 's', 'e', {}))\n"
        "anyio.run(main)\n"
    )
    server = kit.server("good")
    done = await anyio.run_process(
        [sys.executable, "-c", script, server.command, *server.args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=kit.folder,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert (kit.folder / "debug.log").read_text() == "noise\n"
