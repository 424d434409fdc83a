"""How long a host waits for our tools: from starting the server to the answer to ``tools/list``, against an import of the SDK.

Each round runs, one after the other, ``python -c "import mcp"`` and one start of the server for each protocol era. The ratio is
taken within a round, so that a machine whose speed drifts does not decide it. Wall time is what a host waits for; processor time
depends less on what else the machine does.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BAR = 0.8
ERAS = ("2025-11-25", "2026-07-28")
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
CLIENT = {"name": "benchmark", "version": "1"}


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of one start."""

    wall_s: float
    processor_s: float


def messages(era: str) -> list[dict[str, object]]:
    """What a host of this era sends until it has our tools; each with an ``id`` is answered before the next is sent."""
    if era == ERAS[1]:
        return [
            {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": META}},
        ]
    return [
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": era, "capabilities": {}, "clientInfo": CLIENT},
        },
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]


def processor_s(pid: int) -> float:
    """Processor time of a process so far (Linux); 0 elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare() -> Taken:
    """One import of the SDK, in a process of its own."""
    before = os.times()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mcp"], check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(time.perf_counter() - began, spent)


def started(atlas: str, era: str, data: Path) -> Taken:
    """One start of the server, until it has listed its tools."""
    command = [sys.executable, "-m", "cra_mcp", "serve", "--atlas", atlas, "--data-dir", str(data)]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answer: dict[str, dict[str, list[object]]] = {}
    for message in messages(era):
        process.stdin.write(json.dumps(message).encode() + b"\n")
        if "id" in message:
            answer = json.loads(process.stdout.readline())
    taken = Taken(time.perf_counter() - began, processor_s(process.pid))
    assert answer["result"]["tools"], answer
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return taken


@dataclass(frozen=True, slots=True)
class Ratios:
    """Of one era: a start against the import, over the rounds."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Ratios":
        """From the ratio of each round."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.smallest:.2f} to {self.largest:.2f})"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--atlas", default="customer-support")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        bare()  # what is read from disk the first time
        started(options.atlas, ERAS[0], data)
        rounds = [(bare(), [started(options.atlas, era, data) for era in ERAS]) for _ in range(options.rounds)]
    machine = f"{platform.platform()}, Python {platform.python_version()}"
    imports = Ratios.of([each.wall_s for each, _ in rounds])
    eras = {
        era: {
            "seconds": Ratios.of([starts[place].wall_s for _, starts in rounds]),
            "wall": Ratios.of([starts[place].wall_s / each.wall_s for each, starts in rounds]),
            "processor": Ratios.of([starts[place].processor_s / each.processor_s for each, starts in rounds]),
        }
        for place, era in enumerate(ERAS)
    }
    if options.json:
        found = {era: {name: asdict(each) for name, each in ratios.items()} for era, ratios in eras.items()}
        print(json.dumps({"machine": machine, "import_s": asdict(imports), "eras": found, "bar": BAR}, indent=2))
    else:
        print(machine)
        print(f"python -c 'import mcp': {imports} s")
        for era, ratios in eras.items():
            print(
                f"{era}: our tools in {ratios['seconds']} s: {ratios['wall']} times the import, "
                f"{ratios['processor']} times its processor time (bar: {BAR})"
            )
    return 1 if any(ratios["wall"].median > BAR for ratios in eras.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
