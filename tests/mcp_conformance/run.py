"""Runs the official MCP conformance suite against the real server, and holds the server's traces against what was sent to it.

``python tests/mcp_conformance/run.py [2025-11-25 | 2026-07-28 | 0.1.16]``; without an argument all three. Ends with 0 only if every
scored check passes and every call is in a trace that verifies. Installs Node and the suite first, where they are missing.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NEWEST = "@modelcontextprotocol/conformance"
SUITES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "2025-11-25": (NEWEST, ("--requirements", "2025-11-25")),
    "2026-07-28": (NEWEST, ("--requirements", "2026-07-28")),
    "0.1.16": ("conformance-0.1", ("--suite", "all")),
}
UNSCORED = ("tasks-", "server-sse-polling")
"""Scenarios that the suite runs and does not score: an optional extension, and resuming a stream, which is recommended. This server
has neither; what the suite says of them is told, and fails nothing."""

LEAVES = ("action.requested", "x.cra.call.resumed", "error.occurred")
"""A call leaves exactly one of these: it is taken in, it brings answers to one that waits, or the protocol layer refuses it."""

_SUITE_S = 120
_START_S = 60
_STOP_S = 20


@dataclass
class Report:
    """What one suite found.

    Attributes:
        passed: scored checks that passed.
        failed: ``scenario: check: why`` of each that did not; warnings count as failures.
        skipped: checks that do not apply to what the server declares.
        unscored: checks that failed and are not scored.
        sent: calls of actions seen on the wire: of tools, prompts, and resources that are actions.
        contradictory: those of them that the transport refused, because headers and body contradict each other.
        events: in the traces, by type.
        traces: traces that verify.
        broken: traces that do not.
        output: of the suite, where it ended otherwise than it should.
    """

    suite: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    sent: int = 0
    contradictory: int = 0
    events: Counter[str] = field(default_factory=Counter)
    traces: int = 0
    broken: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def recorded(self) -> int:
        """Calls in the traces."""
        return sum(self.events[kind] for kind in LEAVES)

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        accounted = 0 < self.sent == self.recorded + self.contradictory
        return self.passed > 0 and accounted and not (self.failed or self.broken or self.output)

    def __str__(self) -> str:
        lines = [
            f"{self.suite}: {self.passed} checks passed, {len(self.failed)} failed, {len(self.skipped)} skipped, "
            f"{len(self.unscored)} failed that are not scored; "
            f"{self.sent} calls sent: {self.recorded} recorded, {self.contradictory} refused by the transport; "
            f"{self.traces} traces verify, {len(self.broken)} do not"
        ]
        lines += [f"  failed: {each}" for each in self.failed]
        lines += [f"  skipped: {each}" for each in self.skipped]
        lines += [f"  not scored: {each}" for each in self.unscored]
        lines += [f"  broken: {each}" for each in self.broken]
        return "\n".join(lines) + (f"\n{self.output}" if self.output else "")


async def run(suite: str) -> Report:
    """Run one suite against a server of its own."""
    clients = _load("cra_test_clients", ROOT / "tests" / "clients" / "install.py")
    relay_module = _load("cra_conformance_relay", HERE / "relay.py")
    await asyncio.to_thread(clients.ready)
    package, arguments = SUITES[suite]
    report = Report(suite)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with _server(folder) as port, relay_module.Relay(port) as relay:
            program = [str(clients.node()), str(clients.package_file(package, "dist/index.js")), "server"]
            url = f"http://localhost:{relay.port}/mcp"
            code, output = await _finish(
                [*program, "--url", url, *arguments, "-o", str(folder / "results")], _SUITE_S, cwd=folder
            )
            report.sent = sum(_is_call(message) for message in relay.messages)
            report.contradictory = sum(_is_call(message) for message in relay.contradictory)
        if code != 0:
            report.output = f"the suite ended with {code}:\n{output[-4_000:]}"
        _read_results(folder / "results", report)
        await _verify_traces(folder / "data", report)
        _count_events(folder / "data", report)
    return report


def _is_call(message: Mapping[str, Any]) -> bool:
    """Whether a message calls an action, known or unknown; the control tools of the server are not actions."""
    if message.get("method") == "resources/read":
        return str(message["params"].get("uri")).startswith("test://")
    named = str(message.get("params", {}).get("name"))
    return message.get("method") in {"tools/call", "prompts/get"} and not named.startswith("cra_")


def _read_results(folder: Path, report: Report) -> None:
    for path in sorted(folder.glob("*/checks.json")):
        scenario = path.parent.name.removeprefix("server-")[: -len("-2026-01-01T00-00-00-000Z")]
        for check in json.loads(path.read_text()):
            told = f"{scenario}: {check['id']}: {check.get('errorMessage') or check.get('description')}"
            if check["status"] == "SUCCESS":
                report.passed += 1
            elif check["status"] == "SKIPPED":
                report.skipped.append(told)
            elif check["status"] != "INFO":
                (report.unscored if scenario.startswith(UNSCORED) else report.failed).append(told)


async def _verify_traces(data: Path, report: Report) -> None:
    code, output = await _finish([*_cra(), "trace", "verify", "--all", "--json", "--data-dir", str(data)], _START_S)
    if code not in {0, 1}:
        report.output += f"\ntraces could not be verified ({code}):\n{output}"
        return
    for found in json.loads(output)["traces"]:
        if found["ok"]:
            report.traces += 1
        else:
            report.broken.append(f"{found['trace']}: {found['code']}: {found['message']}")


def _count_events(data: Path, report: Report) -> None:
    for path in data.rglob("*.trace.jsonl"):
        for line in path.read_text().splitlines():
            report.events[json.loads(line)["event_type"]] += 1


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[int]:
    """The real server with the atlas next to this file, in a process of its own; its port."""
    shutil.copytree(HERE / "atlas", folder / "atlas")
    process = await asyncio.create_subprocess_exec(
        *_cra(),
        *("serve", "--transport", "streamable-http", "--port", "0", "--json"),
        *("--atlas", str(folder / "atlas"), "--data-dir", str(folder / "data")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
        env=_environment(),
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        yield json.loads(line)["port"]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise


async def _finish(argv: list[str], timeout_s: float, cwd: Path | None = None) -> tuple[int, str]:
    """The exit code and standard output of a program."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, cwd=cwd, env=_environment()
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output.decode()


def _cra() -> list[str]:
    return [sys.executable, "-m", "cra_mcp"]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(arguments: list[str]) -> int:
    """Run the named suites; 0 if all is as it should be, 1 if not, 2 for a name that isn't one."""
    unknown = [name for name in arguments if name not in SUITES]
    if unknown:
        print(f"error: no suite is called {unknown[0]}\nhint: {', '.join(SUITES)}", file=sys.stderr)  # noqa: T201
        return 2
    reports = [asyncio.run(run(suite)) for suite in arguments or SUITES]
    for report in reports:
        print(report)  # noqa: T201
    return 0 if all(report.ok for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
