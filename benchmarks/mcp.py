"""What governing a call adds: a no-op tool behind this server against the same no-op on the SDK's own low-level server, over stdio.

Both servers are processes of their own and are driven by the same raw JSON-RPC client (no SDK on the client's side, so that
its cost hides nothing), in turn in one run: hot (back to back) and cold (idle between calls). Ours decides, records intent
and outcome in a file store, and runs the no-op as a Python action off the event loop; the bare one answers in its handler.
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
from pathlib import Path
from typing import Any

BAR_MS = 0.25
ROUNDS = 8
HOT_CALLS = 150
COLD_CALLS = 12
IDLE_S = 0.02

BARE = """
import anyio
import mcp_types as t
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

TOOL = t.Tool(name="bench_noop", description="Does nothing.", input_schema={"type": "object"})

async def listing(ctx, params):
    return t.ListToolsResult(tools=[TOOL])

async def call(ctx, params):
    return t.CallToolResult(content=[t.TextContent(type="text", text="{}")])

server = Server("bare", on_list_tools=listing, on_call_tool=call)

async def main():
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

anyio.run(main)
"""
ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.bench",
    "version": "1.0.0",
    "name": "Bench",
    "description": "For the benchmark.",
    "actions": [
        {
            "action_id": "bench.noop",
            "name": "No-op",
            "description": "Does nothing.",
            "parameters_schema": {"type": "object"},
            "executor": {"type": "python", "callable": "noop:noop"},
        }
    ],
}


class Peer:
    """One server process and a connection to it, in the 2025-11-25 or the 2026-07-28 era."""

    def __init__(self, argv: list[str], *, modern: bool) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._number = 0
        self._meta: dict[str, Any] = {}
        if modern:
            self._meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            self.request("tools/list", {})
            return
        client = {"name": "bench", "version": "1"}
        self.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        if self._meta:
            params = {**params, "_meta": self._meta}
        self._write({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if answer.get("id") != self._number or "error" in answer:
            raise RuntimeError(f"unexpected answer: {answer}")
        return answer

    def call_ms(self) -> float:
        began = time.perf_counter_ns()
        answer = self.request("tools/call", {"name": "bench_noop", "arguments": {"n": 1}})
        taken = (time.perf_counter_ns() - began) / 1_000_000
        if answer["result"].get("isError"):
            raise RuntimeError(f"the call failed: {answer}")
        return taken

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


def measure(folder: Path, *, modern: bool) -> dict[str, dict[str, list[list[float]]]]:
    """Rounds of samples, by temperature and server."""
    (folder / "bare.py").write_text(BARE)
    (folder / "atlas" / "python").mkdir(parents=True, exist_ok=True)
    (folder / "atlas" / "atlas.json").write_text(json.dumps(ATLAS))
    (folder / "atlas" / "python" / "noop.py").write_text("def noop(**given):\n    return {}\n")
    governed = [sys.executable, "-m", "cra_mcp", "serve", "--atlas", str(folder / "atlas"), "--control-tools", "none"]
    peers = {
        "bare": Peer([sys.executable, str(folder / "bare.py")], modern=modern),
        "governed": Peer([*governed, "--data-dir", str(folder / "data")], modern=modern),
    }
    found: dict[str, dict[str, list[list[float]]]] = {heat: {name: [] for name in peers} for heat in ("hot", "cold")}
    for peer in peers.values():
        for _ in range(50):
            peer.call_ms()
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            found["hot"][name].append([peer.call_ms() for _ in range(HOT_CALLS)])
        cold: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(COLD_CALLS):
            for name, peer in peers.items():
                time.sleep(IDLE_S)
                cold[name].append(peer.call_ms())
        for name, samples in cold.items():
            found["cold"][name].append(samples)
    for peer in peers.values():
        peer.close()
    return found


def summary(samples: dict[str, list[list[float]]]) -> dict[str, object]:
    flat = {name: sorted(sample for one in rounds for sample in one) for name, rounds in samples.items()}
    medians = {name: statistics.median(values) for name, values in flat.items()}
    per_round = [
        statistics.median(ours) - statistics.median(bare)
        for ours, bare in zip(samples["governed"], samples["bare"], strict=True)
    ]
    return {
        "bare_ms": {"median": round(medians["bare"], 3), "p99": round(flat["bare"][int(len(flat["bare"]) * 0.99)], 3)},
        "governed_ms": {
            "median": round(medians["governed"], 3),
            "p99": round(flat["governed"][int(len(flat["governed"]) * 0.99)], 3),
        },
        "added_ms": round(statistics.median(per_round), 3),
        "added_ms_rounds": [round(min(per_round), 3), round(max(per_round), 3)],
        "ratio": round(medians["governed"] / medians["bare"], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    for era, modern in (("2025-11-25", False), ("2026-07-28", True)):
        with tempfile.TemporaryDirectory() as folder:
            results[era] = {heat: summary(samples) for heat, samples in measure(Path(folder), modern=modern).items()}
    added = [float(str(one["hot"]["added_ms"])) for one in results.values()]
    met = max(added) <= BAR_MS
    machine = f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    if arguments.json:
        print(
            json.dumps({"machine": machine, "results": results, "bar": {"hot_added_ms": BAR_MS, "met": met}}, indent=2)
        )
        return 0 if met else 1
    print(machine)
    for era, heats in results.items():
        for heat, result in heats.items():
            print(f"{era} {heat:<5} {json.dumps(result)}")
    print(f"added by governing, hot, median: {max(added)} ms at most; bar <= {BAR_MS} ms: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
