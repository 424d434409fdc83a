"""A forked command and one that is started do the same, so that tests may use the quicker one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forks.command import forked, fresh

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys, time
print(sys.argv[1:], os.getcwd(), os.environ["CRA_X"], "CRA_Y" in os.environ, sys.stdin.readline().strip(), flush=True)
print("to the side", file=sys.stderr)
if sys.argv[1] == "exit":
    sys.exit(7)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print(os.getpid(), flush=True)
sys.stdin.read()
time.sleep(60)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux only")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["no-such-command"],
        ["atlas", "validate", "atlases/customer-support"],
        ["resolve", "--atlas", "nonsense", "--goal", "g"],
        ["trace", "show", "latest"],
    ],
)
def test_a_command_says_and_returns_the_same(command: list[str], tmp_path: Path) -> None:
    told = []
    for arguments in (forked, fresh):
        done = subprocess.run(
            [sys.executable, *arguments(*command)],
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CRA_DATA_DIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            check=False,
        )
        told.append((done.returncode, done.stdout, done.stderr))
    assert told[0] == told[1]


def test_arguments_folder_environment_and_descriptors_are_those_given(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, *forked("exit", "b c", script=script)]
    environment = {name: value for name, value in os.environ.items() if name != "CRA_Y"} | {"CRA_X": "ä"}
    done = subprocess.run(
        command, input="typed\n", capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.stdout == f"['exit', 'b c'] {tmp_path} ä False typed\n"
    assert (done.stderr, done.returncode) == ("to the side\n", 7)


def start(script: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, *forked("stay", script=script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "CRA_X": "x"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()
    return process, int(process.stdout.readline())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 9), (signal.SIGINT, -signal.SIGINT), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_signal_reaches_it_and_how_it_ends_is_passed_on(script: Path, number: int, code: int) -> None:
    process, _ = start(script)
    with process:
        process.send_signal(number)
        assert process.wait(60) == code


def test_it_does_not_outlive_the_process_that_was_started(script: Path) -> None:
    process, pid = start(script)
    with process:
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == "", "the end of its output is its own end"
    assert process.returncode == -signal.SIGKILL
    assert pid != process.pid
