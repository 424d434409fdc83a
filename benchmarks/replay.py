"""What deciding again costs: traces of a real runtime are read, and each call is decided as it was, and by other policies.

    python benchmarks/replay.py [--calls 20000] [--json]

Reading, putting together and deciding are all in the figure; the traces are in files, and were written just before. The floor is
reading the same files and parsing every line as JSON. Figures are processor time of one core: best and median of the rounds.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from cra_mcp.atlas.archive import FOLDER, AtlasArchive
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.compose import CRARuntime, open_store
from cra_mcp.replay.again import replay
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.replay.recorded import RecordedSession
from cra_mcp.replay.whatif import Tally, what_if
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.store import TraceStore

BAR_WHAT_IF = 20_000.0
ROUNDS = 5
PER_SESSION = 500
ACTIONS = [f"{noun}.{verb}" for noun in ("ticket", "refund", "customer", "repo", "file") for verb in ("read", "write")]
ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.bench",
    "version": "1.0.0",
    "name": "Bench",
    "description": "Ten actions, ten policies.",
    "actions": [
        {"action_id": name, "name": name, "description": "d", "parameters_schema": {"type": "object"}}
        for name in ACTIONS
    ],
    "policies": [
        {"policy_id": "no-files", "type": "deny", "actions": ["file.write"]},
        {
            "policy_id": "slow",
            "type": "rate_limit",
            "actions": ["repo.*"],
            "parameters": {"max_calls": 1_000_000, "window_seconds": 60},
        },
        *({"policy_id": f"p{n}", "type": "deny", "conditions": {"agents": [f"bad-{n}"]}} for n in range(8)),
    ],
}
REVISED = {
    **ATLAS,
    "policies": [*ATLAS["policies"], {"policy_id": "no-refunds", "type": "deny", "actions": ["refund.*"]}],
}


async def make(config: RuntimeConfig, calls: int) -> None:
    async with CRARuntime(config) as runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        for number in range(calls // PER_SESSION):
            session = runtime.create_session(f"agent-{number % 7}", "benchmark").session_id
            for call in range(PER_SESSION):
                await runtime.execute(
                    session, ACTIONS[call % len(ACTIONS)], {"id": call, "note": "customer called again"}
                )
            runtime.end_session(session)


def measure(work: Callable[[], object], calls: int) -> dict[str, float]:
    rates = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        rates.append(calls / (time.process_time() - started))
    return {"median_per_s": round(statistics.median(rates)), "best_per_s": round(max(rates))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="how many calls to record (default 20000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = RuntimeConfig(data_dir=Path(folder), checkpoint_every=0)
        asyncio.run(make(config, options.calls))
        figures = run(open_store(config), AtlasArchive(config.trace_path / FOLDER), options.calls)
    met = figures["what if"]["median_per_s"] >= BAR_WHAT_IF
    if options.json:
        print(json.dumps({"figures": figures, "bar_what_if_per_s": BAR_WHAT_IF, "met": met}, indent=2))
    else:
        for name, figure in figures.items():
            print(f"{name:<22}{figure['median_per_s']:>12,.0f} calls/s median{figure['best_per_s']:>12,.0f} best")
        print(f"bar: what if >= {BAR_WHAT_IF:,.0f} calls/s: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def run(store: TraceStore, archive: AtlasArchive, calls: int) -> dict[str, dict[str, float]]:
    names = sorted(info.session_id for info in store.sessions())
    revised = load_atlas_text(json.dumps(REVISED))

    def read(name: str) -> RecordedSession:
        return read_session(store.read(name))

    def floor() -> None:
        for name in names:
            for line in store.read(name):
                orjson.loads(line)

    def other_policies() -> None:
        tally = Tally()
        library = Library(archive, lambda catalogue: catalogue.with_replaced(revised.atlas_id, revised))
        changed = sum(1 for _ in what_if(((0, lambda name=name: read(name)) for name in names), library, tally))
        assert (tally.calls, changed) == (calls, calls * 2 // len(ACTIONS))

    def again() -> None:
        library = Library(archive)
        for name in names:
            found = replay(read(name), library)
            assert found.ok, found.divergences[:1]

    return {
        "floor: parse JSON": measure(floor, calls),
        "what if": measure(other_policies, calls),
        "replay": measure(again, calls),
    }


if __name__ == "__main__":
    sys.exit(main())
