"""Many clients over Streamable HTTP: governed calls against the same calls of a bare SDK server, in the same run.

    python benchmarks/http_load.py [--short] [--json] [--era 2025-11-25|2026-07-28|both]

200 clients at once, each on a connection and in a session of its own, make 20,000 calls of a no-op for each server, in alternating
turns. Nothing is taken for granted: every call has to succeed, every receipt has to be an event of a trace, no event may be there
twice or without its call, and every chain has to verify. The bar is throughput of 0.85 times the bare server's.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from http_calls import HttpClient, Load
from mcp import write_atlas
from stdio_calls import HERE, ROOT

from cra_mcp.trace.event import verify

BAR_THROUGHPUT = 0.85
ERAS = ("2025-11-25", "2026-07-28")
UNBOUNDED = {"CRA_HTTP_REQUESTS_PER_SECOND": "1000000", "CRA_HTTP_BURST": "1000000", "CRA_HTTP_KEEP_ALIVE_S": "600"}


class Server:
    """A server process on a free port."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, **UNBOUNDED, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        self.port = int(json.loads(self.process.stdout.readline())["mcp"].rsplit(":", 1)[1].split("/")[0])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


async def loaded(
    governed: Server, bare: Server, *, modern: bool, clients: int, calls: int, turns: int
) -> tuple[Load, Load, list[float]]:
    """Both servers under load; the ratio of throughput of each pair of turns."""
    loads = (Load([], "bench_noop"), Load([], "bench_noop"))
    for load, server in zip(loads, (governed, bare), strict=True):
        load.clients = [HttpClient(server.port, modern) for _ in range(clients)]
        for client in load.clients:
            await client.open(governed=server is governed)
        for client in load.clients:
            await client.call(load.tool)  # the first call of a session resolves
    ratios: list[float] = []
    for turn in range(turns):
        order = loads if turn % 2 == 0 else loads[::-1]
        rates = {id(load): await load.turn(calls // turns) for load in order}
        ratios.append(rates[id(loads[0])] / rates[id(loads[1])])
    for load in loads:
        for client in load.clients:
            await client.close()
    return *loads, ratios


def checked(traces: Path, results: list[dict[str, Any]], clients: int) -> dict[str, object]:
    """Compare receipts with traces.

    Raises:
        AssertionError: a call has failed, or an event is lost, twice, or nobody's.
    """
    receipts: list[tuple[str, int, str]] = []
    for result in results:
        receipt = result["_meta"]["dev.cra/receipt"]
        assert receipt["status"] == "success", receipt
        receipts.append((receipt["session_id"], receipt["sequence"], receipt["event_hash"]))
    executed: list[tuple[str, int, str]] = []
    kinds: dict[str, int] = {}
    files = sorted(traces.glob("*.trace.jsonl"))
    for path in files:
        lines = path.read_bytes().splitlines()
        check = verify(lines)
        assert check.ok, (path, check)
        for event in map(json.loads, lines):
            kind = event["event_type"]
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == "action.executed":
                executed.append((event["session_id"], event["sequence"], event["event_hash"]))
    assert len(set(receipts)) == len(receipts), "a receipt was given twice"
    assert len(files) == clients, (len(files), clients)
    assert set(receipts) <= set(executed), "a call was answered whose event is not there"
    warm_up = clients
    assert len(executed) == len(receipts) + warm_up, "an event is there that belongs to no call, or twice"
    for kind in ("action.requested", "action.approved"):
        assert kinds[kind] == len(executed), kinds
    return {"chains": len(files), "events": sum(kinds.values())}


def figures(load: Load) -> dict[str, float]:
    ordered = sorted(load.latencies_s)
    return {
        "calls": len(ordered),
        "calls_per_s": round(len(ordered) / load.seconds, 1),
        "median_ms": round(1_000 * statistics.median(ordered), 2),
        "p99_ms": round(1_000 * ordered[int(0.99 * (len(ordered) - 1))], 2),
    }


def run(era: str, *, clients: int, calls: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atlas = write_atlas(folder / "atlas")
        serve = [sys.executable, "-m", "cra_mcp", "serve", "--transport", "streamable-http", "--port", "0", "--json"]
        governed = Server([*serve, "--atlas", str(atlas), "--data-dir", str(folder / "data")])
        bare = Server([sys.executable, str(HERE / "servers" / "bare.py"), "http"])
        try:
            modern = era == "2026-07-28"
            ours, theirs, ratios = asyncio.run(
                loaded(governed, bare, modern=modern, clients=clients, calls=calls, turns=turns)
            )
        finally:
            governed.stop()
            bare.stop()
        found = checked(folder / "data" / "traces", ours.results, clients)
    ours_figures, theirs_figures = figures(ours), figures(theirs)
    return {
        "era": era,
        "clients": clients,
        "governed": ours_figures,
        "bare": theirs_figures,
        "throughput_ratio": round(statistics.median(ratios), 3),
        "p99_ratio": round(ours_figures["p99_ms"] / theirs_figures["p99_ms"], 2),
        **found,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--era", choices=[*ERAS, "both"], default="both", help="which form of the protocol is spoken")
    parser.add_argument("--short", action="store_true", help="20 clients, 1,000 calls: a quick look, without a bar")
    options = parser.parse_args()
    size = (
        {"clients": 20, "calls": 1_000, "turns": 4} if options.short else {"clients": 200, "calls": 20_000, "turns": 10}
    )
    found = [run(era, **size) for era in (ERAS if options.era == "both" else [options.era])]
    missed = not options.short and any(entry["throughput_ratio"] < BAR_THROUGHPUT for entry in found)
    if options.json:
        print(
            json.dumps(
                {"machine": platform.platform(), "cores": os.cpu_count(), "bar": BAR_THROUGHPUT, "runs": found},
                indent=2,
            )
        )
        return int(missed)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for entry in found:
        chains = f"{entry['chains']} chains verify; of {entry['events']} events none is lost or twice"
        print(f"\n{entry['era']}: {entry['clients']} clients, {chains}")
        for name in ("governed", "bare"):
            one = entry[name]
            print(
                f"  {name:9} {one['calls_per_s']:8} calls/s  median {one['median_ms']:8} ms  p99 {one['p99_ms']:8} ms"
            )
        print(f"  throughput x{entry['throughput_ratio']} (bar {BAR_THROUGHPUT}), p99 x{entry['p99_ratio']}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
