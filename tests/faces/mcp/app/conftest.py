"""A browser, and servers with a trace to show."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.faces.mcp.app import made
from tests.faces.mcp.conftest import Place, Wire, environment

CLIENTS = Path(__file__).resolve().parents[3] / "clients"


def client_module(name: str) -> ModuleType:
    """A module of tests/clients, which is no package."""
    spec = importlib.util.spec_from_file_location(f"cra_clients_{name}", CLIENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with the module: while it is open, nothing else can run an event loop in this thread."""
    chromium = client_module("browser").chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium.program,
            env={**os.environ, **chromium.environment},
            args=["--no-sandbox", "--disable-gpu"],
        )
        yield opened
        opened.close()


@pytest.fixture
def node() -> Path:
    return client_module("install").node()


Serve = Callable[[list[bytes]], Wire]


@pytest.fixture
def serve(place: Place) -> Iterator[Serve]:
    """A server that has a trace in its folder. The bytes are written as they are, a tail without line feed included."""
    processes: list[Wire] = []

    def start(lines: list[bytes], tail: bytes = b"") -> Wire:
        folder = place.data / "traces"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{made.SESSION}.trace.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in lines) + tail)
        path.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, *place.command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            bufsize=0,
        )
        wire = Wire(process)
        processes.append(wire)
        wire.initialize()
        return wire

    yield start
    for wire in processes:
        wire.close()
