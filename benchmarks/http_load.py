"""Many clients over Streamable HTTP: governed calls against the same calls of a bare SDK server, in the same run.

    python benchmarks/http_load.py [--short] [--json] [--era 2025-11-25|2026-07-28|both] [--bare-http h11|httptools]

200 clients at once, each on a connection and in a session of its own, make 20,000 calls of a no-op for each server, in pairs of
turns whose order alternates; a ratio is the median over the pairs, with its quartiles. Nothing is taken for granted: every call
has to succeed, every receipt has to be an event of a trace, no event may be there twice or without its call, and every chain has
to verify. The bar is throughput of 0.85 times the bare server's.

Both servers are one process with one event loop, and so is the client, which needs a core of its own: its processor time is
reported beside the servers', and it is no part of the ratio of theirs. The bare server is what ``Server.streamable_http_app()``
and uvicorn give; ``--bare-http httptools`` gives it the parser that uvicorn prefers where it is installed.
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
import time
from dataclasses import dataclass
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

    def cpu_s(self) -> float:
        """Processor time so far; 0 where the system does not say."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did in one turn."""

    calls_per_s: float
    p99_ms: float
    cpu_us: float
    """Of the server, for a call."""
    client_cpu_us: float


async def one_turn(load: Load, server: Server, calls: int) -> Turn:
    before = len(load.latencies_s)
    cpu_s, own_s = server.cpu_s(), time.process_time()
    rate = await load.turn(calls)
    cpu_s, own_s = server.cpu_s() - cpu_s, time.process_time() - own_s
    return Turn(rate, p99_ms(load.latencies_s[before:]), 1e6 * cpu_s / calls, 1e6 * own_s / calls)


async def loaded(
    servers: tuple[Server, Server], *, modern: bool, clients: int, calls: int, turns: int
) -> tuple[tuple[Load, Load], list[tuple[Turn, Turn]]]:
    """Both servers under load, the governed one first: what each was asked, and each pair of turns."""
    loads = (Load([], "bench_noop"), Load([], "bench_noop"))
    for which, (load, server) in enumerate(zip(loads, servers, strict=True)):
        load.clients = [HttpClient(server.port, modern) for _ in range(clients)]
        for client in load.clients:
            await client.open(governed=which == 0)
        for client in load.clients:
            await client.call(load.tool)  # the first call of a session resolves
    pairs: list[tuple[Turn, Turn]] = []
    for number in range(turns):
        turn: dict[int, Turn] = {}
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            turn[which] = await one_turn(loads[which], servers[which], calls // turns)
        pairs.append((turn[0], turn[1]))
    for load in loads:
        for client in load.clients:
            await client.close()
    return loads, pairs


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


def p99_ms(latencies_s: list[float]) -> float:
    ordered = sorted(latencies_s)
    return 1_000 * ordered[int(0.99 * (len(ordered) - 1))]


def figures(load: Load, turns: list[Turn]) -> dict[str, float]:
    return {
        "calls": len(load.latencies_s),
        "calls_per_s": round(len(load.latencies_s) / load.seconds, 1),
        "median_ms": round(1_000 * statistics.median(load.latencies_s), 2),
        "p99_ms": round(p99_ms(load.latencies_s), 2),
        "cpu_us": round(statistics.median(turn.cpu_us for turn in turns)),
        "client_cpu_us": round(statistics.median(turn.client_cpu_us for turn in turns)),
    }


def ratio(pairs: list[tuple[Turn, Turn]], name: str) -> dict[str, float]:
    """Governed to bare, pair by pair: the median and the quartiles."""
    each = [getattr(governed, name) / (getattr(bare, name) or float("nan")) for governed, bare in pairs]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return {"median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)}


def run(era: str, *, clients: int, calls: int, turns: int, bare_http: str = "h11") -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atlas = write_atlas(folder / "atlas")
        serve = [sys.executable, "-m", "cra_mcp", "serve", "--transport", "streamable-http", "--port", "0", "--json"]
        governed = Server([*serve, "--atlas", str(atlas), "--data-dir", str(folder / "data")])
        bare = Server([sys.executable, str(HERE / "servers" / "bare.py"), "http", bare_http])
        try:
            modern = era == "2026-07-28"
            loads, pairs = asyncio.run(
                loaded((governed, bare), modern=modern, clients=clients, calls=calls, turns=turns)
            )
        finally:
            governed.stop()
            bare.stop()
        found = checked(folder / "data" / "traces", loads[0].results, clients)
    return {
        "era": era,
        "clients": clients,
        "bare_http": bare_http,
        "governed": figures(loads[0], [pair[0] for pair in pairs]),
        "bare": figures(loads[1], [pair[1] for pair in pairs]),
        "throughput_ratio": ratio(pairs, "calls_per_s"),
        "p99_ratio": ratio(pairs, "p99_ms"),
        "cpu_ratio": ratio(pairs, "cpu_us"),
        **found,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--era", choices=[*ERAS, "both"], default="both", help="which form of the protocol is spoken")
    parser.add_argument(
        "--bare-http", choices=["h11", "httptools"], default="h11", help="the bare server's HTTP parser"
    )
    parser.add_argument("--short", action="store_true", help="20 clients, 1,000 calls: a quick look, without a bar")
    options = parser.parse_args()
    size = (
        {"clients": 20, "calls": 1_000, "turns": 4} if options.short else {"clients": 200, "calls": 20_000, "turns": 20}
    )
    eras = ERAS if options.era == "both" else [options.era]
    found = [run(era, **size, bare_http=options.bare_http) for era in eras]
    missed = not options.short and any(entry["throughput_ratio"]["median"] < BAR_THROUGHPUT for entry in found)
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
                f"  processor: server {one['cpu_us']} us, client {one['client_cpu_us']} us a call"
            )
        for name, bar in (("throughput", f" (bar {BAR_THROUGHPUT})"), ("p99", ""), ("cpu", "")):
            one = entry[f"{name}_ratio"]
            print(f"  {name:10} x{one['median']}, quartiles {one['q1']} to {one['q3']}{bar}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
