"""Real processes of the command line, and data folders for them made by the library."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from tests.faces.mcp.conftest import Place, environment, write_atlas
from tests.forks.command import forked, fresh

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60

COMMANDS = [
    "demo",
    "serve",
    "resolve",
    "execute",
    "atlas validate",
    "atlas show",
    "atlas from-openapi",
    "trace list",
    "trace show",
    "trace tail",
    "trace why",
    "trace stats",
    "trace report",
    "trace export",
    "trace verify",
    "trace recover",
    "trace key",
    "keys create",
    "keys list",
    "keys revoke",
    "trace prune",
    "freeze",
    "unfreeze",
    "replay",
    "trace diff",
    "pending",
    "approve",
    "deny",
    "conformance",
    "doctor",
    "docs",
    "policy test",
    "trace prove",
    "trace verify-proof",
    "trace search",
    "trace index",
    "policy explain",
    "policy export",
    "policy lint",
    "policy diff",
]
"""Every command, as it is typed. ``test_help`` holds the list against what the command line has."""

Done = subprocess.CompletedProcess[str]


def cra(*arguments: str | Path, env: dict[str, str] | None = None, **more: Any) -> Done:
    """Run the command line to its end; nothing is typed unless ``input`` or ``stdin`` says so."""
    if "input" not in more:
        more.setdefault("stdin", subprocess.DEVNULL)
    more.setdefault("stdout", subprocess.PIPE)
    more.setdefault("stderr", subprocess.PIPE)
    return subprocess.run(
        [sys.executable, *forked(*arguments)],
        text=True,
        env={**environment(), **(env or {})},
        check=False,
        timeout=PATIENCE_S,
        **more,
    )


@dataclass
class Started:
    """A command that is running; ``terminal`` is the person's side of it, if it was started in one."""

    process: subprocess.Popen[bytes]
    terminal: int | None = None

    def line(self, stream: Any) -> str:
        """The next line of a stream; fails if none comes."""
        return self.until(stream, "\n")

    def until(self, stream: Any, end: str) -> str:
        """What a stream gives up to ``end``, which need not end a line."""
        text = b""
        while not text.endswith(end.encode()):
            assert select.select([stream], [], [], PATIENCE_S)[0], f"the command is silent after {text!r}"
            byte = os.read(stream.fileno(), 1)
            assert byte, f"the command has ended after {text!r}"
            text += byte
        return text.decode()

    def type(self, text: str) -> None:
        assert self.terminal is not None
        os.write(self.terminal, text.encode())

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()


@contextmanager
def started(*arguments: str | Path, in_terminal: bool = False) -> Iterator[Started]:
    """Run the command line while something else is done; ``in_terminal`` makes stdin a terminal."""
    person, own = pty.openpty() if in_terminal else (None, None)
    process = subprocess.Popen(
        [sys.executable, *fresh(*arguments)],
        stdin=own if own is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(),
    )
    try:
        yield Started(process, person)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        for fd in (person, own):
            if fd is not None:
                os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


@pytest.fixture
def runtime_at() -> Iterator[Callable[..., CRARuntime]]:
    """Opens runtimes as a server would, in this process; all are closed at the end."""
    opened: list[CRARuntime] = []

    def make(place: Place, **settings: Any) -> CRARuntime:
        runtime = CRARuntime(RuntimeConfig(data_dir=place.data, **settings))
        opened.append(runtime)
        runtime.load_atlas(place.atlas)
        return runtime

    yield make
    for runtime in opened:
        runtime.close()


@pytest.fixture
def server(place: Place, runtime_at: Callable[..., CRARuntime]) -> CRARuntime:
    """A runtime at work in this process, on the data folder that commands read."""
    return runtime_at(place)
