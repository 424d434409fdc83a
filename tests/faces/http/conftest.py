"""A real server process over HTTP, and ways to talk to it."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faces.mcp.conftest import Place, environment, write_atlas
from tests.forks.command import forked

STARTS_S = 60


@dataclass
class HttpServer:
    """A server process, and where it answers."""

    place: Place
    process: subprocess.Popen[bytes]
    addresses: dict[str, Any]

    @property
    def url(self) -> str:
        return self.addresses["mcp"]

    @property
    def sse(self) -> str:
        return self.addresses["sse"]

    @property
    def port(self) -> int:
        return self.addresses["port"]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """The exit code, and how many seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(20), time.monotonic() - began


@dataclass
class Servers:
    """Starts servers, and ends them with the test."""

    place: Place
    fresh: bool = False
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *more: str, program: list[str] | None = None) -> HttpServer:
        place = self.place
        arguments = ("--transport", "streamable-http", "--port", "0", "--json", *more)
        command = program or (place.fresh_command if self.fresh else place.command)(*arguments)
        errors = (place.folder / "stderr").open("ab")
        with errors:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(place.roles),
                bufsize=0,
            )
        self.started.append(process)
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], STARTS_S)[0]
        line = process.stdout.readline() if ready else b""
        assert line, f"the server did not start: {(place.folder / 'stderr').read_text()}"
        return HttpServer(place, process, json.loads(line))

    def start_with_tokens(self, **limits: float) -> HttpServer:
        """A server that wants tokens (tokens.py)."""
        script = Path(__file__).with_name("tokens.py")
        return self.start(program=forked(self.place.atlas, self.place.data, json.dumps(limits), script=script))

    def errors(self) -> str:
        """What the servers have logged."""
        return (self.place.folder / "stderr").read_text()

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


@pytest.fixture
def servers(place: Place) -> Iterator[Servers]:
    made = Servers(place)
    with contextlib.closing(made):
        yield made


@pytest.fixture
def server(servers: Servers) -> HttpServer:
    return servers.start()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """One server for the tests of a module that don't mind what others have done with it: starting one takes longer than most."""
    folder = tmp_path_factory.mktemp("shared")
    with contextlib.closing(Servers(Place(folder, write_atlas(folder / "atlas"), "agent,auditor"))) as made:
        yield made.start()
