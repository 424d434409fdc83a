"""A browser, and servers with a trace to show."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.clients import browser as clients_browser
from tests.clients import install
from tests.faces.mcp.app import made
from tests.faces.mcp.conftest import Place, Wire, environment, write_atlas


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with the module: while it is open, nothing else can run an event loop in this thread."""
    chromium = clients_browser.chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium.program,
            env={**os.environ, **chromium.environment},
            args=["--no-sandbox", "--disable-gpu"],
        )
        yield opened
        opened.close()


@pytest.fixture
def npm() -> Path:
    """The folder of installed npm packages."""
    install.ready()
    return install.MODULES


@pytest.fixture
def node() -> Path:
    return install.node()


Serve = Callable[..., Wire]
"""``serve(lines, tail=b"")``: the server, with these lines as the trace of ``made.SESSION``."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Wire]]:
    """One real server for a module: it reads a trace anew each time it is asked for."""
    folder = tmp_path_factory.mktemp("server")
    yield from _served(Place(folder, write_atlas(folder / "atlas"), "agent,auditor"))


@pytest.fixture
def agents_server(tmp_path: Path) -> Iterator[tuple[Place, Wire]]:
    """One whose caller reads the view of an agent."""
    yield from _served(Place(tmp_path, write_atlas(tmp_path / "atlas")))


def _served(place: Place) -> Iterator[tuple[Place, Wire]]:
    process = subprocess.Popen(
        [sys.executable, *place.command()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(place.roles),
        bufsize=0,
    )
    wire = Wire(process)
    wire.initialize()
    yield place, wire
    wire.close()


@pytest.fixture
def serve(server: tuple[Place, Wire]) -> Serve:
    return partial(_put, *server)


@pytest.fixture
def serve_agent(agents_server: tuple[Place, Wire]) -> Serve:
    return partial(_put, *agents_server)


def _put(place: Place, wire: Wire, lines: list[bytes], tail: bytes = b"") -> Wire:
    folder = place.data / "traces"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{made.SESSION}.trace.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + tail)
    path.chmod(0o600)
    return wire
