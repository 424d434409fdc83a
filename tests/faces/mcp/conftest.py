"""A real server process over stdio, and ways to talk to it."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters

from tests.forks.command import forked, fresh

ROOT = Path(__file__).resolve().parents[3]

TOOLS = """
import os
import threading
import time
from cra_mcp.errors import ActionError

def echo(**given):
    return {"echo": given}

def add(a, b):
    return {"sum": a + b}

def fail(**_):
    raise RuntimeError("password=hunter2")

def refuse(**_):
    raise ActionError("there is no such thing")

def slow(marks, seconds=30):
    with open(marks, "a") as file:
        file.write("began\\n")
    time.sleep(seconds)
    return "done"

def mark(marks, text):
    with open(marks, "a") as file:
        file.write(text + "\\n")
    return {"marked": text}

def large(size):
    return "x" * size

def steps(ctx):
    for number in (1, 2, 3):
        ctx.progress(number, 3, f"step {number}")
        time.sleep(0.1)  # work
    return "done"

async def wait(marks):
    import asyncio
    with open(marks, "a") as file:
        file.write("began\\n")
    try:
        await asyncio.sleep(60)
    finally:
        with open(marks, "a") as file:
            file.write("ended\\n")
"""


def action(action_id: str, function: str, **more: object) -> dict[str, object]:
    return {
        "action_id": action_id,
        "name": action_id.title(),
        "description": f"Does {action_id}.",
        "parameters_schema": {"type": "object"},
        "executor": {"type": "python", "callable": f"tools:{function}"},
        **more,
    }


PATH = {"type": "string"}
MANIFEST: dict[str, Any] = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.faces",
    "version": "1.0.0",
    "name": "Faces",
    "description": "For end-to-end tests.",
    "actions": [
        action("tool.echo", "echo", idempotent=True),
        action(
            "tool.add",
            "add",
            parameters_schema={
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}},
                "required": ["a", "b"],
                "additionalProperties": False,
                "anyOf": [{"required": ["a"]}],
                "$defs": {"n": {"type": "integer", "x-note": "ours"}},
            },
            returns_schema={"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]},
        ),
        action("tool.fail", "fail"),
        action("tool.refuse", "refuse"),
        action("tool.slow", "slow", timeout_seconds=60),
        action("tool.wait", "wait", timeout_seconds=60),
        action("tool.mark", "mark"),
        action("tool.steps", "steps", executor={"type": "python", "callable": "tools:steps", "context": "ctx"}),
        action("tool.large", "large"),
        action("tool.delete", "echo"),
        action("tool.secret", "echo"),
        action("tool.pay", "echo", risk_tier="high"),
        action("tool.a-name-that-is-much-too-long-for-any-host-to-take", "echo"),
    ],
    "policies": [
        {"policy_id": "no-delete", "type": "deny", "actions": ["*.delete"], "reason": "Deleting is for people"},
        {"policy_id": "hide", "type": "deny", "actions": ["tool.secret"], "reason": "x", "disclose": False},
        {"policy_id": "ask", "type": "require_approval", "actions": ["tool.pay"], "reason": "Money leaves the house"},
    ],
    "context_packs": [
        {"pack_id": "guide", "name": "Guide", "files": ["context/guide.md"], "keywords": ["guide"], "priority": 10},
        {"pack_id": "rules", "name": "Rules", "files": ["context/rules.md"], "priority": 20},
    ],
}


def write_atlas(folder: Path, manifest: dict[str, Any] = MANIFEST) -> Path:
    (folder / "python").mkdir(parents=True)
    (folder / "context").mkdir()
    (folder / "atlas.json").write_text(json.dumps(manifest))
    (folder / "python" / "tools.py").write_text(TOOLS)
    (folder / "context" / "guide.md").write_text("# Guide\n" + "guide " * 40)
    (folder / "context" / "rules.md").write_text("# Rules\nBe kind.\n")
    return folder


@dataclass
class Place:
    """Where one test's server keeps what it keeps."""

    folder: Path
    atlas: Path
    roles: str = "agent"
    """Of whoever starts the server; an auditor reads traces as they are stored."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def marked(self) -> list[str]:
        return self.marks.read_text().split() if self.marks.exists() else []

    def command(self, *more: str) -> list[str]:
        """What to give Python to serve this place."""
        return forked("serve", "--atlas", self.atlas, "--data-dir", self.data, *more)

    def fresh_command(self, *more: str) -> list[str]:
        """The same, for tests of how a server starts, stops and dies."""
        return fresh("serve", "--atlas", self.atlas, "--data-dir", self.data, *more)

    def parameters(self, *more: str) -> StdioServerParameters:
        return StdioServerParameters(command=sys.executable, args=self.command(*more), env=environment(self.roles))

    def traces(self) -> list[Path]:
        return sorted((self.data / "traces").glob("*.trace.jsonl"))

    def events(self) -> list[dict[str, Any]]:
        """What is recorded; of a trace that is being written, its whole lines."""
        return [json.loads(line) for path in self.traces() for line in path.read_bytes().split(b"\n")[:-1]]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *forked(*arguments, "--data-dir", self.data)],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )


def environment(roles: str = "agent") -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRA_")}
    return {**kept, "PYTHONPATH": str(ROOT), "CRA_ROLES": roles}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Wire:
    """JSON-RPC by hand: exactly the bytes a test wants on the pipe."""

    process: subprocess.Popen[bytes]
    number: int = 0
    other: list[dict[str, Any]] = field(default_factory=list)

    def send(self, raw: bytes) -> None:
        assert self.process.stdin is not None
        data = memoryview(raw + b"\n")
        while data:
            data = data[self.process.stdin.write(data) :]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        # Everything here is one line an answer, so a pipe that is silent for long will stay so.
        if not select.select([self.process.stdout], [], [], 60)[0]:
            raise AssertionError("the server does not answer")
        line = self.process.stdout.readline()
        assert line, "the server has gone"
        return json.loads(line)

    def request(self, method: str, params: object = None, *, modern: bool = False, **more: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": self.number, "method": method, **more}
        if params is not None or modern:
            message["params"] = params if params is not None else {}
        if modern:
            message["params"] = {
                **message["params"],
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            }
        self.send(json.dumps(message).encode())
        while True:
            answer = self.read()
            if answer.get("id") == message["id"]:
                return answer
            self.other.append(answer)

    def initialize(self, version: str = "2025-11-25", capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.request(
            "initialize",
            {
                "protocolVersion": version,
                "capabilities": capabilities or {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        )
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        return answer

    def call(self, name: str, arguments: object = None, **more: Any) -> dict[str, Any]:
        return self.request("tools/call", {"name": name, "arguments": arguments}, **more)

    def close(self) -> int:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def wire(place: Place) -> Iterator[Wire]:
    process = subprocess.Popen(
        [sys.executable, *place.command()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(place.roles),
        bufsize=0,
    )
    made = Wire(process)
    yield made
    made.close()
