"""The real server over Streamable HTTP in a process of its own, and what observes it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.forks.command import forked

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = """
from cra_mcp import ActionError
def echo(text): return text
def fail(): raise ActionError("no")
"""
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
MANIFEST = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.observed",
    "version": "1.0.0",
    "name": "Observed",
    "description": "For the tests.",
    "actions": [
        {
            "action_id": f"do.{name}",
            "name": name,
            "description": name,
            "parameters_schema": TEXT if name == "echo" else {"type": "object"},
            "executor": {"type": "python", "callable": f"functions:{function}"},
        }
        for name, function in (
            ("echo", "echo"),
            ("fail", "fail"),
            ("denied", "fail"),
            ("hidden", "fail"),
            ("asked", "fail"),
        )
    ],
    "policies": [
        {"policy_id": "no", "type": "deny", "actions": ["do.denied"], "reason": "never"},
        {"policy_id": "hide", "type": "deny", "actions": ["do.hidden"], "reason": "never", "disclose": False},
        {"policy_id": "ask", "type": "require_approval", "actions": ["do.asked"], "reason": "money"},
    ],
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    folder = tmp_path / "atlas"
    (folder / "python").mkdir(parents=True)
    (folder / "python" / "functions.py").write_text(FUNCTIONS)
    (folder / "atlas.json").write_text(json.dumps(MANIFEST))
    return folder


@dataclass
class Served:
    """A running server. ``stderr`` is all it wrote there, ``lines`` what it logged, once it has ended."""

    port: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    stderr: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def served(atlas: Path, *more: str, program: tuple[str, ...] = ()) -> AsyncIterator[Served]:
    """The server, until the context is left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CRA_", "OTEL_"))}
    where = ("--atlas", str(atlas), "--data-dir", str(atlas.parent / "data"))
    arguments = ("serve", "--transport", "streamable-http", "--port", "0", "--json", *where, *more)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *((*program, *arguments) if program else forked(*arguments))),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, (await errors).decode()
        server = Served(json.loads(line)["port"])
        yield server
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            raise
    server.stderr = (await errors).decode()
    server.lines = [json.loads(text) for text in server.stderr.splitlines() if text.startswith("{")]
