"""What to give Python for ``cra-mcp``: for tests of how a process starts or dies, and for the many of what it does."""

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STARTS_S = 120


def fresh(*arguments: str | Path) -> list[str]:
    """The command as a person starts it, in a Python of its own that imports everything."""
    return ["-m", "cra_mcp", *map(str, arguments)]


def forked(*arguments: str | Path, script: Path | None = None) -> list[str]:
    """A process like that of ``fresh``, or of a script: its environment, folder and descriptors, but everything imported.

    It differs in what a starting Python does (``PYTHON...`` in the environment, what is imported when) and in its process id,
    which is not that of the process started. Tests of those things, and of sudden deaths, start ``fresh`` ones. Where processes
    are measured all are fresh: a fork isn't measured.
    """
    if sys.platform != "linux" or any(name.startswith("COVERAGE_PROCESS") for name in os.environ):
        return fresh(*arguments) if script is None else [str(script), *map(str, arguments)]
    return ["-I", "-S", str(HERE / "child.py"), str(_socket()), str(script or "cra_mcp"), *map(str, arguments)]


@cache
def _socket() -> Path:
    """Where the process listens that forks; it ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="cra-forks-"))  # short: a socket's path may have 107 bytes
    path = folder / "s"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CRA_", "OTEL_"))}
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "parent.py"), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**kept, "PYTHONPATH": str(ROOT)},
        )

    @atexit.register
    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)

    until = time.monotonic() + STARTS_S
    while not path.exists():
        assert process.poll() is None, (folder / "errors").read_text()
        assert time.monotonic() < until, "the process that forks does not start"
        time.sleep(0.01)
    return path
