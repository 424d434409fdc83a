import asyncio
import py_compile
import sys
import threading
import time

import anyio
import pytest

from cra_mcp.atlas.model import PythonExecutor
from cra_mcp.errors import ExecutionError
from cra_mcp.execution import workers
from cra_mcp.execution.backend import Result
from cra_mcp.execution.python_callable import PythonBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
async def backend():
    made = PythonBackend(max_threads=2)
    yield made
    await made.aclose()


async def run(kit, backend, callable_: str, parameters=None, **options) -> Result:
    return await kit.call(backend, kit.action(PythonExecutor(callable_)), kit.atlas(**options), parameters)


async def failed(kit, backend, callable_: str, parameters=None, **options) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await run(kit, backend, callable_, parameters, **options)
    assert "SECRET" not in f"{caught.value.message}{caught.value.hint}"
    return caught.value


@pytest.mark.parametrize("kind", ["def", "async def"])
class TestFunctions:
    async def test_parameters_arrive_as_keywords_and_the_value_comes_back(self, kit, backend, kind) -> None:
        kit.python(f"{kind} tool(name, *, count=1, **more): return {{'name': name, 'count': count, 'more': more}}")
        result = await run(kit, backend, "tool:tool", {"name": "x", "class": [1, None, 2.5]})
        assert result == Result(value={"name": "x", "count": 1, "more": {"class": [1, None, 2.5]}})

    async def test_it_runs_on_another_thread_than_the_server(self, kit, backend, kind) -> None:
        kit.python(f"import threading\n{kind} tool(): return threading.get_ident()")
        assert (await run(kit, backend, "tool:tool")).value != threading.get_ident()

    async def test_an_exception_shows_its_type_and_nothing_it_says(self, kit, backend, kind) -> None:
        kit.python(f"class OwnError(Exception): pass\n{kind} tool(): raise OwnError('SECRET')")
        error = await failed(kit, backend, "tool:tool")
        assert error.code == "execution_failed"
        assert error.message == "test.action failed: OwnError"

    @pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration"])
    async def test_no_exception_ends_a_worker(self, kit, backend, kind, name) -> None:
        kit.python(f"{kind} tool(fine=False):\n if not fine: raise {name}('SECRET')")
        for _ in range(3):
            assert (await failed(kit, backend, "tool:tool")).code == "execution_failed"
        assert await run(kit, backend, "tool:tool", {"fine": True}) == Result(value=None)

    async def test_an_action_error_is_told(self, kit, backend, kind) -> None:
        kit.python(f"from cra_mcp.errors import ActionError\n{kind} tool(): raise ActionError('no such ticket: 7')")
        assert await run(kit, backend, "tool:tool") == Result(value={"error": "no such ticket: 7"}, is_error=True)

    async def test_what_is_not_json_is_refused(self, kit, backend, kind) -> None:
        kit.python(f"{kind} tool(): return {{'x': object}}")
        assert (await failed(kit, backend, "tool:tool")).code == "invalid_result"

    @pytest.mark.parametrize(
        "case",
        [
            ("a, *, b=1", {"a": 1, "x~/y": 2}, [("/x~0~1y", "is no parameter of its function")]),
            ("a, b, *rest", {"b": 1}, [("/a", "is required by its function")]),
            ("a, /, b=1", {"a": 1}, [("/a", "is no parameter of its function")]),
            ("**rest", {"ctx": 1}, []),
            ("", {str(at): at for at in range(9)}, [(f"/{at}", "is no parameter of its function") for at in range(5)]),
        ],
    )
    async def test_what_it_does_not_take_is_refused_before_it_runs(self, kit, backend, kind, case) -> None:
        signature, given, faults = case
        kit.python(f"{kind} tool({signature}): raise SystemExit")
        error = await failed(kit, backend, "tool:tool", given)
        assert error.faults == tuple(faults)
        assert error.code == ("invalid_parameters" if faults else "execution_failed")
        assert all(at in error.message for at, _ in faults)

    async def test_parameters_that_do_not_fit_are_a_failure(self, kit, backend, kind) -> None:
        kit.python(f"{kind} tool(name): return name")
        error = await failed(kit, backend, "tool:tool", {"other": "SECRET"})
        assert error.message == (
            "test.action was not carried out: /other is no parameter of its function; /name is required by its function"
        )

    async def test_context_variables_of_the_caller_are_seen(self, kit, backend, kind) -> None:
        import decimal  # noqa: PLC0415 - its context is a context variable

        kit.python(f"import decimal\n{kind} tool(): return decimal.getcontext().prec")
        with decimal.localcontext() as context:
            context.prec = 5
            assert (await run(kit, backend, "tool:tool")).value == 5


async def test_a_module_is_imported_at_the_first_call_and_once(kit, backend) -> None:
    kit.python(
        "from pathlib import Path\n"
        "with Path(__file__).parent.parent.joinpath('imports').open('a') as file: file.write('x')\n"
        "def tool(): pass"
    )
    action = kit.action(PythonExecutor("tool:tool"))
    bound = backend.bind(action, kit.atlas())
    assert bound is not None
    assert not (kit.folder / "imports").exists()
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(run, kit, backend, "tool:tool")
    assert (kit.folder / "imports").read_text() == "x"


async def test_importing_happens_off_the_event_loop(kit, backend) -> None:
    kit.python("import threading\nIMPORTED_IN = threading.get_ident()\ndef tool(): return IMPORTED_IN")
    assert (await run(kit, backend, "tool:tool")).value != threading.get_ident()


async def test_neighbours_are_imported_relatively_and_packages_work(kit, backend) -> None:
    kit.python(
        "from .helper import value\nfrom .sub.deep import more\nfrom . import sub\ndef tool(): return [value, more, sub.here]"
    )
    kit.python("value = 1", "helper")
    kit.python("here = 3", "sub/__init__")
    kit.python("from ..helper import value\nmore = value + 1\ndef tool(): return more", "sub/deep")
    kit.python("def tool(): return __name__", "plain/inner")
    assert (await run(kit, backend, "tool:tool")).value == [1, 2, 3]
    assert (await run(kit, backend, "sub.deep:tool")).value == 2
    assert (await run(kit, backend, "plain.inner:tool")).value.endswith(".plain.inner")


async def test_two_atlases_do_not_share_a_module(kit, backend) -> None:
    kit.python("def tool(): return 'first'")
    assert (await run(kit, backend, "tool:tool")).value == "first"
    kit.python("def tool(): return 'second'")
    kit.digest = "f" * 64
    assert (await run(kit, backend, "tool:tool")).value == "second"
    assert "tool" not in sys.modules


async def test_the_import_path_is_used_where_the_folder_has_no_such_module_and_is_not_changed(kit, backend) -> None:
    kit.python("def dumps(obj): return 'mine'", "json")
    path, modules = list(sys.path), set(sys.modules)
    assert (await run(kit, backend, "json:dumps", {"obj": 1})).value == "mine"
    assert (await run(kit, backend, "textwrap:dedent", {"text": " a"})).value == "a"
    assert (await run(kit, backend, "json:dumps", {"obj": 1}, root=False)).value == "1"
    assert sys.path == path
    assert all(name.startswith("_cra_atlas_") for name in set(sys.modules) - modules)


async def test_no_byte_code_is_read_or_written(kit, backend) -> None:
    kit.python("def tool(): return 'planted'")
    source = kit.folder / "python" / "tool.py"
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    kit.python("from .helper import value\ndef tool(): return value")
    kit.python("value = 'source'", "helper")
    before = sorted(kit.folder.rglob("*"))
    assert (await run(kit, backend, "tool:tool")).value == "source"
    assert sorted(kit.folder.rglob("*")) == before


async def test_a_link_out_of_the_folder_is_not_followed(kit, backend, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "evil.py"
    outside.write_text("def tool(): return 'evil'")
    (kit.folder / "python").mkdir()
    (kit.folder / "python" / "tool.py").symlink_to(outside)
    assert (await failed(kit, backend, "tool:tool")).code == "execution_failed"


@pytest.mark.parametrize(
    "source",
    ["raise ValueError('SECRET')", "def broken(:", "import cra_no_such_module", "raise SystemExit('SECRET')", "x = 1"],
)
async def test_a_module_that_can_not_be_used_says_so_each_time(kit, backend, source) -> None:
    kit.python(source)
    for _ in range(2):
        assert (await failed(kit, backend, "tool:tool")).code == "execution_failed"


async def test_a_failed_import_is_tried_again(kit, backend) -> None:
    bound = backend.bind(kit.action(PythonExecutor("tool:tool")), kit.atlas())
    kit.python("raise ValueError")
    with pytest.raises(ExecutionError):
        await bound(invocation := kit.invocation())
    kit.python("def tool(): return 1")
    assert (await bound(invocation)).value == 1


async def test_an_object_with_an_async_call_is_awaited(kit, backend) -> None:
    kit.python("class Tool:\n async def __call__(self): return 'awaited'\ntool = Tool()")
    assert (await run(kit, backend, "tool:tool")).value == "awaited"


async def test_a_function_that_returns_a_coroutine_unawaited_is_refused(kit, backend) -> None:
    kit.python("async def inner(): pass\ndef tool(): return inner()")
    assert (await failed(kit, backend, "tool:tool")).code == "invalid_result"


async def test_async_functions_share_one_loop_that_is_not_the_servers(kit, backend) -> None:
    kit.python("import asyncio\nasync def tool(): return id(asyncio.get_running_loop())")
    first = (await run(kit, backend, "tool:tool")).value
    assert first == (await run(kit, backend, "tool:tool")).value
    assert first != id(asyncio.get_running_loop())


async def test_a_computing_coroutine_does_not_stall_the_server(kit, backend) -> None:
    kit.python("import time\nasync def tool():\n end = time.monotonic() + 0.5\n while time.monotonic() < end: pass")
    slowest = 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, kit, backend, "tool:tool")
        end = time.monotonic() + 0.5
        while (before := time.monotonic()) < end:
            await anyio.sleep(0.001)
            slowest = max(slowest, time.monotonic() - before)
    assert slowest < 0.3


async def test_cancelling_cancels_a_coroutine_and_waits_for_it(kit, backend) -> None:
    kit.python(
        "import asyncio\nfrom pathlib import Path\nF = Path(__file__).parent.parent\n"
        "async def tool():\n"
        " (F / 'started').write_text('x\\n')\n"
        " try:\n  await asyncio.sleep(60)\n"
        " finally:\n  await asyncio.sleep(0.05)\n  (F / 'ended').write_text('x\\n')\n"
    )
    async with kit.started(lambda: run(kit, backend, "tool:tool")) as scope:
        await kit.text_of("started")
        scope.cancel()
    assert (kit.folder / "ended").exists()


async def test_a_coroutine_that_will_not_end_is_left_behind_and_the_next_ones_run(kit, backend, monkeypatch) -> None:
    monkeypatch.setattr(workers, "CANCEL_GRACE_S", 0.1)
    kit.python(
        "import asyncio, threading\nfrom pathlib import Path\nF = Path(__file__).parent.parent\n"
        "async def stuck(n, done=threading.Event()):\n"
        " (F / f'started{n}').write_text('x\\n')\n"
        " while not (F / 'release').exists(): done.wait(0.01)\n"
        " (F / f'ended{n}').write_text('x\\n')\n"
        "async def fine(): return 'fine'\n"
    )
    for number in range(3):
        with anyio.fail_after(5):
            async with kit.started(lambda n=number: run(kit, backend, "tool:stuck", {"n": n})) as scope:
                await kit.text_of(f"started{number}")
                scope.cancel()
            if number < 2:
                assert (await run(kit, backend, "tool:fine")).value == "fine"
    assert (await failed(kit, backend, "tool:fine")).code == "busy"
    (kit.folder / "release").touch()
    for number in range(3):
        await kit.text_of(f"ended{number}")
    await kit.until(lambda: not any(loop.tasks for loop in backend._loops._left))
    assert (await run(kit, backend, "tool:fine")).value == "fine"


async def test_a_coroutine_that_cancels_itself_fails(kit, backend) -> None:
    kit.python("import asyncio\nasync def tool(): raise asyncio.CancelledError('SECRET')")
    with anyio.CancelScope() as scope:
        assert (await failed(kit, backend, "tool:tool")).code == "execution_failed"
    assert not scope.cancelled_caught


BLOCKED = (
    "import threading\nfrom pathlib import Path\nF = Path(__file__).parent.parent\nDONE = threading.Event()\n"
    "def stuck(n):\n (F / f'started{n}').write_text('x\\n')\n DONE.wait()\n"
    "def release(): DONE.set()\n"
    "def fine(): return 'fine'\n"
)


async def test_a_cancelled_caller_leaves_and_its_thread_stays_counted(kit, backend) -> None:
    kit.python(BLOCKED)
    assert (await run(kit, backend, "tool:fine")).value == "fine"
    for number in range(2):
        with anyio.fail_after(5):
            async with kit.started(lambda n=number: run(kit, backend, "tool:stuck", {"n": n})) as scope:
                await kit.text_of(f"started{number}")
                scope.cancel()
    assert (await failed(kit, backend, "tool:fine")).code == "busy"
    sys.modules[f"_cra_atlas_{kit.digest[:16]}.tool"].release()
    await kit.until(lambda: backend._threads._held == 0)
    assert (await run(kit, backend, "tool:fine")).value == "fine"


async def test_calls_beyond_the_threads_wait_their_turn(kit, backend) -> None:
    kit.python(BLOCKED)
    results = []

    async def fine() -> None:
        results.append((await run(kit, backend, "tool:fine")).value)

    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(run, kit, backend, "tool:stuck", {"n": number})
            await kit.text_of(f"started{number}")
        for _ in range(5):
            tasks.start_soon(fine)
        with anyio.move_on_after(0.05):
            await fine()
        assert results == []
        sys.modules[f"_cra_atlas_{kit.digest[:16]}.tool"].release()
    assert results == ["fine"] * 5


async def test_a_call_cancelled_before_its_turn_is_never_made(kit, backend) -> None:
    kit.python(BLOCKED + "def touch(): (F / 'touched').touch()\n")
    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(run, kit, backend, "tool:stuck", {"n": number})
            await kit.text_of(f"started{number}")
        backend.bind(kit.action(PythonExecutor("tool:touch")), kit.atlas())
        with anyio.move_on_after(0.05):
            await run(kit, backend, "tool:touch")
        sys.modules[f"_cra_atlas_{kit.digest[:16]}.tool"].release()
    assert (await run(kit, backend, "tool:fine")).value == "fine"
    assert not (kit.folder / "touched").exists()


async def test_the_loop_of_a_caller_may_be_gone_before_the_work_ends(kit) -> None:
    kit.python(BLOCKED)
    backend = PythonBackend(max_threads=2)

    async def leave() -> None:
        async with kit.started(lambda: run(kit, backend, "tool:stuck", {"n": 0})) as scope:
            await kit.text_of("started0")
            scope.cancel()

    thread = threading.Thread(target=lambda: anyio.run(leave))
    thread.start()
    await kit.until(lambda: not thread.is_alive())
    sys.modules[f"_cra_atlas_{kit.digest[:16]}.tool"].release()
    await kit.until(lambda: backend._threads._held == 0)
    assert (await run(kit, backend, "tool:fine")).value == "fine"
    await backend.aclose()


async def test_threads_end_when_the_back_end_is_closed(kit, backend) -> None:
    kit.python(
        "import threading\nasync def loop(): return threading.get_ident()\ndef thread(): return threading.get_ident()"
    )
    idents = {(await run(kit, backend, f"tool:{name}")).value for name in ("loop", "thread")}
    await backend.aclose()
    await backend.aclose()
    await kit.until(lambda: not idents & {thread.ident for thread in threading.enumerate()})
    assert (await run(kit, backend, "tool:thread")).value not in {None, threading.get_ident()}
