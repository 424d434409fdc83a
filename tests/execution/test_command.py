import os
import stat
import sys
from pathlib import Path

import anyio
import pytest

from cra_mcp.atlas.model import CommandExecutor
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import Result
from cra_mcp.execution.command import MAX_OUTPUT_BYTES, CommandBackend

pytestmark = pytest.mark.anyio

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}}


async def run(kit, *argv: str, parameters=None, environ=None, root=True, **fields) -> Result:
    backend = CommandBackend(environ=environ)
    action = kit.action(CommandExecutor(argv, **fields), TEXT)
    return await kit.call(backend, action, kit.atlas(root=root), parameters)


async def python(kit, source: str, *more: str, **options) -> Result:
    return await run(kit, sys.executable, "-S", "-c", source.replace("{", "{{").replace("}", "}}"), *more, **options)


async def refused(kit, *argv: str, **options) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await run(kit, *argv, **options)
    assert str(kit.folder) not in f"{caught.value.message}{caught.value.hint}"
    return caught.value


async def test_the_outcome_holds_exit_code_and_both_streams(kit) -> None:
    source = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = await python(kit, source)
    assert result == Result(
        value={"exit_code": 3, "stdout": "out\n", "stderr": "err\n", "truncated": False}, is_error=True
    )
    assert await python(kit, "print('fine')") == Result(
        value={"exit_code": 0, "stdout": "fine\n", "stderr": "", "truncated": False}
    )


async def test_a_signal_shows_as_a_negative_exit_code(kit) -> None:
    result = await python(kit, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert result.is_error
    assert result.value["exit_code"] == -15


async def test_no_shell_reads_the_arguments(kit) -> None:
    text = "$(touch pwned) `touch pwned`; touch pwned | x > pwned\n'\"\\ *"
    result = await run(
        kit, sys.executable, "-S", "-c", "import sys; print(ascii(sys.argv[1:]))", "{text}", parameters={"text": text}
    )
    assert result.value["stdout"] == ascii([text]) + "\n"
    assert not (kit.folder / "pwned").exists()


async def test_a_command_reads_nothing_from_our_standard_input(kit) -> None:
    assert (await python(kit, "import sys; print(repr(sys.stdin.read()))")).value["stdout"] == "''\n"


async def test_the_environment_is_what_is_listed_and_named(kit) -> None:
    environ = {**os.environ, "API_KEY": "s3cret", "WANTED": "yes"}
    source = "import os; print(os.environ.get('API_KEY'), os.environ.get('WANTED'), os.environ.get('PATH') is not None)"
    assert (await python(kit, source, environ=environ)).value["stdout"] == "None None True\n"
    named = await python(kit, source, environ=environ, env=("WANTED", "ABSENT"))
    assert named.value["stdout"] == "None yes True\n"


async def test_it_starts_in_the_folder_of_the_atlas_or_in_its_own(kit) -> None:
    other = kit.folder / "other"
    other.mkdir()
    where = "import os; print(os.getcwd())"
    assert (await python(kit, where)).value["stdout"].strip() == str(kit.folder)
    assert (await python(kit, where, cwd="other")).value["stdout"].strip() == str(other)
    assert (await python(kit, where, cwd=str(other))).value["stdout"].strip() == str(other)
    environ = {**os.environ, "WORK": str(other)}
    assert (await python(kit, where, cwd="${WORK}", environ=environ)).value["stdout"].strip() == str(other)
    assert (await python(kit, where, cwd=str(other), root=False)).value["stdout"].strip() == str(other)


async def test_a_missing_folder_variable_or_program_is_said_without_paths(kit) -> None:
    assert (await refused(kit, "true", cwd="absent")).code == "execution_failed"
    assert (await refused(kit, "true", cwd="${CRA_TEST_ABSENT}")).code == "missing_setting"
    absent = await refused(kit, str(kit.folder / "no-such-program"))
    assert absent.code == "execution_failed"
    assert "no-such-program" in absent.message
    assert (await refused(kit, "no-such-program-anywhere")).code == "execution_failed"


async def test_a_program_is_found_on_the_path_of_the_environment_or_in_the_atlas(kit) -> None:
    for folder in ("bin", "tools"):
        tool = kit.folder / folder / "greet"
        tool.parent.mkdir()
        tool.write_text(f"#!/bin/sh\necho from {folder}\n")
        tool.chmod(0o755)
    environ = {"PATH": f"{kit.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    assert (await run(kit, "greet", environ=environ)).value["stdout"] == "from bin\n"
    assert (await run(kit, "tools/greet", environ=environ)).value["stdout"] == "from tools\n"


async def test_a_program_that_can_not_be_started_says_so(kit) -> None:
    broken = kit.folder / "broken"
    broken.write_bytes(b"\x7fELF is not enough")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    error = await refused(kit, "./broken")
    assert error.code == "execution_failed"
    assert "OSError" in error.message
    huge = await refused(kit, "true", "{text}", parameters={"text": "x" * 3_000_000})
    assert huge.code == "execution_failed"


async def test_output_beyond_the_cap_is_cut_and_said_to_be(kit) -> None:
    source = "import sys\nsys.stdout.write('o' * 3_000_000)\nsys.stderr.write('e' * 10)\nsys.exit(0)"
    result = await python(kit, source, max_output_bytes=1000)
    assert result.value == {"exit_code": 0, "stdout": "o" * 1000, "stderr": "e" * 10, "truncated": True}
    exact = await python(kit, "print('o' * 999)", max_output_bytes=1000)
    assert exact.value["truncated"] is False


async def test_both_streams_are_read_at_once(kit) -> None:
    source = "import sys\nfor _ in range(40):\n sys.stderr.write('e' * 65536)\n sys.stdout.write('o' * 65536)"
    result = await python(kit, source, max_output_bytes=100)
    assert result.value["exit_code"] == 0


async def test_a_command_that_writes_without_end_is_killed(kit) -> None:
    source = "import os\nopen('pid', 'w').write(f'{os.getpid()}\\n')\nwhile True: os.write(1, b'x' * 1_000_000)"
    with pytest.raises(ExecutionError) as caught:
        await python(kit, source)
    assert caught.value.code == "output_too_large"
    assert str(MAX_OUTPUT_BYTES) in caught.value.message
    pid = int(await kit.text_of("pid"))
    await kit.until(lambda: not kit.alive(pid))


async def test_output_that_is_not_text_is_shown_with_replacements(kit) -> None:
    result = await python(kit, r"import os; os.write(1, b'a\xff\xfeb\n')")
    assert result.value["stdout"] == "a\ufffd\ufffdb\n"


TREE = """
import os, subprocess, sys, time
depth = int(sys.argv[1])
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
if depth:
    subprocess.Popen([sys.executable, "-S", __file__, str(depth - 1)])
while True:
    time.sleep(60)
"""


def tree_pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_cancelling_kills_the_command_and_its_grandchildren(kit) -> None:
    (kit.folder / "tree.py").write_text(TREE)
    call = run(kit, sys.executable, "-S", str(kit.folder / "tree.py"), "2")
    async with kit.started(lambda: call) as scope:
        await kit.until(lambda: len(tree_pids(kit.folder)) == 3)
        scope.cancel()
    await kit.until(lambda: not any(kit.alive(pid) for pid in tree_pids(kit.folder)))


async def test_a_timeout_kills_a_command_that_ignores_requests_to_end(kit) -> None:
    source = (
        "import os, signal\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "open('pid', 'w').write(f'{os.getpid()}\\n')\n"
        "while True: signal.pause()"
    )
    with anyio.move_on_after(10) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: python(kit, source))
            pid = int(await kit.text_of("pid"))
            scope.deadline = anyio.current_time()
    assert scope.cancelled_caught
    await kit.until(lambda: not kit.alive(pid))


async def test_a_background_child_does_not_outlive_its_command_nor_delay_it(kit) -> None:
    source = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)"
    )
    with anyio.fail_after(10):
        result = await python(kit, source)
    assert result.value["exit_code"] == 0
    pid = int(result.value["stdout"])
    await kit.until(lambda: not kit.alive(pid))


async def test_closing_the_back_end_kills_what_runs(kit) -> None:
    backend = CommandBackend()
    (kit.folder / "tree.py").write_text(TREE)
    action = kit.action(CommandExecutor((sys.executable, "-S", str(kit.folder / "tree.py"), "1")))
    results = []

    async def call() -> None:
        results.append(await kit.call(backend, action))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await kit.until(lambda: len(tree_pids(kit.folder)) == 2)
        with anyio.fail_after(30):
            while not results:  # a process that is only being started is not known to it yet
                await backend.aclose()
                await anyio.sleep(0.05)
    assert results[0].value["exit_code"] == -9
    await kit.until(lambda: not any(kit.alive(pid) for pid in tree_pids(kit.folder)))


async def test_a_template_that_can_not_be_used_is_said_when_it_is_bound(kit) -> None:
    for argv in (("echo", "{text"), ("{text}",)):
        with pytest.raises(ExecutionError) as caught:
            CommandBackend().bind(kit.action(CommandExecutor(argv), TEXT), kit.atlas())
        assert caught.value.code == "no_executor"
