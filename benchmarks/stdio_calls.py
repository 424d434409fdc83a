"""Shared by the benchmarks that call servers over stdio: a raw client, measuring in turns, and printing.

The client is bytes on a pipe, so that its own cost is the same small one for every server. All servers of a run are up at
the same time and take turns, so that a busy machine slows all of them.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Self, cast

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Peer:
    """A server process and the pipe to it."""

    def __init__(self, name: str, command: Sequence[str], *, tool: str, modern: bool = False) -> None:
        self.name = name
        self.tool = tool
        self._modern = modern
        self._number = 0
        self._rest = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), "FASTMCP_CHECK_FOR_UPDATES": "off"},
            bufsize=0,
        )

    def __enter__(self) -> Self:
        if not self._modern:
            client = {"name": "benchmark", "version": "1"}
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
            self.request("initialize", params)
            self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.request("tools/list", {})
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def request(self, method: str, params: Mapping[str, object]) -> dict[str, object]:
        """Send a request and wait for its answer."""
        self._number += 1
        if self._modern:
            params = {**params, "_meta": ENVELOPE}
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        answer = json.loads(self._line())
        if answer.get("id") != self._number or "error" in answer:
            raise SystemExit(f"{self.name} answered {method} with {answer}")
        return answer["result"]

    def check(self) -> None:
        """One call whose answer is looked at."""
        result = self.request("tools/call", {"name": self.tool, "arguments": {}})
        if result.get("isError") or "ok" not in str(result["content"]):
            raise SystemExit(f"{self.name} did not carry the call out: {result}")

    def call_us(self) -> float:
        """One call; microseconds from the first byte out to the last byte in."""
        self._number += 1
        params: dict[str, object] = {"name": self.tool, "arguments": {}}
        if self._modern:
            params["_meta"] = ENVELOPE
        line = json.dumps({"jsonrpc": "2.0", "id": self._number, "method": "tools/call", "params": params}) + "\n"
        data = line.encode()
        start = time.perf_counter_ns()
        os.write(self._in, data)
        answer = self._line()
        elapsed = time.perf_counter_ns() - start
        if b'"isError":true' in answer or b'"error"' in answer:
            raise SystemExit(f"{self.name} answered {answer[:500]!r}")
        return elapsed / 1_000

    def cpu_s(self) -> float | None:
        """Processor time of the server process so far; None where the system does not say."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def _in(self) -> int:
        return cast("IO[bytes]", self._process.stdin).fileno()

    def _send(self, message: Mapping[str, object]) -> None:
        os.write(self._in, json.dumps(message).encode() + b"\n")

    def _line(self) -> bytes:
        out = cast("IO[bytes]", self._process.stdout).fileno()
        while b"\n" not in self._rest:
            chunk = os.read(out, 65_536)
            if not chunk:
                raise SystemExit(f"{self.name} has gone")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line


@dataclass(frozen=True)
class Figure:
    """One server under one load, microseconds. ``low_us`` and ``high_us`` bound the middle half of the rounds' medians."""

    name: str
    load: str
    p50_us: float
    p99_us: float
    low_us: float
    high_us: float
    cpu_us: float | None


@dataclass(frozen=True)
class Difference:
    """A server against its reference: medians of the same rounds, subtracted and divided round by round.

    ``added_low_us`` and ``added_high_us`` bound the middle half of the rounds.
    """

    name: str
    reference: str
    load: str
    added_us: float
    added_low_us: float
    added_high_us: float
    ratio: float
    bar: str | None = None
    met: bool | None = None


@dataclass
class Measured:
    """The samples of one load, by server and round."""

    load: str
    rounds: dict[str, list[list[float]]]
    cpu_us: dict[str, float | None] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        found: list[Figure] = []
        for name, rounds in self.rounds.items():
            samples = sorted(sample for one in rounds for sample in one)
            low, _, high = statistics.quantiles((statistics.median(one) for one in rounds), n=4)
            found.append(
                Figure(
                    name,
                    self.load,
                    statistics.median(samples),
                    samples[int(len(samples) * 0.99)],
                    low,
                    high,
                    self.cpu_us.get(name),
                )
            )
        return found

    def difference(
        self, name: str, reference: str, *, bar_added_us: float | None = None, bar_ratio: float | None = None
    ) -> Difference:
        pairs = [
            (statistics.median(mine), statistics.median(theirs))
            for mine, theirs in zip(self.rounds[name], self.rounds[reference], strict=True)
        ]
        low, middle, high = statistics.quantiles((mine - theirs for mine, theirs in pairs), n=4)
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        bar, met = None, None
        if bar_added_us is not None:
            bar, met = f"added <= {bar_added_us:g} us", middle <= bar_added_us
        if bar_ratio is not None:
            bar, met = f"ratio <= {bar_ratio:g}", ratio <= bar_ratio
        return Difference(name, reference, self.load, middle, low, high, ratio, bar, met)


def measure(peers: Sequence[Peer], load: str, *, rounds: int, calls: int, idle_s: float = 0.0) -> Measured:
    """Rounds in which every server has its turn of ``calls``; the first server of a round changes from round to round."""
    taken: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    before = {peer.name: peer.cpu_s() for peer in peers}
    for number in range(rounds):
        start = number % len(peers)
        order = (*peers[start:], *peers[:start])
        if idle_s:
            samples: dict[str, list[float]] = {peer.name: [] for peer in peers}
            for _ in range(calls):
                for peer in order:
                    time.sleep(idle_s)
                    samples[peer.name].append(peer.call_us())
            for name, one in samples.items():
                taken[name].append(one)
            continue
        for peer in order:
            for _ in range(3):
                peer.call_us()  # warm-up of a turn
            taken[peer.name].append([peer.call_us() for _ in range(calls)])
    made = rounds * (calls if idle_s else calls + 3)
    cpu: dict[str, float | None] = {}
    for peer in peers:
        first, last = before[peer.name], peer.cpu_s()
        cpu[peer.name] = None if first is None or last is None else (last - first) * 1e6 / made
    return Measured(load, taken, cpu)


def started(stack: ExitStack, peers: Sequence[Peer], *, warm_up: int) -> list[Peer]:
    """Servers that have answered; they are ended with ``stack``."""
    for peer in peers:
        stack.enter_context(peer)
    for peer in peers:
        peer.check()
        for _ in range(warm_up):
            peer.call_us()
    return list(peers)


def machine() -> str:
    """What this runs on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = found[0] if found else model
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores{load}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def report(figures: Sequence[Figure], differences: Sequence[Difference], *, as_json: bool) -> int:
    """Print what was measured; 1 if a bar was missed."""
    if as_json:
        found = {
            "machine": machine(),
            "figures": [asdict(figure) for figure in figures],
            "differences": [asdict(difference) for difference in differences],
        }
        print(json.dumps(found, indent=2))
    else:
        print(machine())
        print(f"{'microseconds a call':44}{'p50':>9}{'p99':>9}{'half of medians':>20}{'server CPU':>12}")
        for figure in figures:
            spread = f"{figure.low_us:.0f} - {figure.high_us:.0f}"
            cpu = "-" if figure.cpu_us is None else f"{figure.cpu_us:.0f}"
            print(f"{figure.name + ', ' + figure.load:44}{figure.p50_us:9.0f}{figure.p99_us:9.0f}{spread:>20}{cpu:>12}")
        print(f"\n{'difference, round by round':60}{'added':>9}{'half of rounds':>18}{'ratio':>7}  bar")
        for one in differences:
            spread = f"{one.added_low_us:.0f} - {one.added_high_us:.0f}"
            title = f"{one.name} against {one.reference}, {one.load}"
            bar = "-" if one.bar is None else f"{one.bar}: {'met' if one.met else 'MISSED'}"
            print(f"{title:60}{one.added_us:9.0f}{spread:>18}{one.ratio:7.2f}  {bar}")
    sys.stdout.flush()
    return 0 if all(one.met is not False for one in differences) else 1
