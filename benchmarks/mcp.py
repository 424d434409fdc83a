"""What governing a call adds: a no-op over stdio through the gate, against the same no-op on a bare low-level SDK server.

    python benchmarks/mcp.py [--json] [--era 2025-11-25|2026-07-28|both]

The governed server is ``cra-mcp serve`` as a host starts it: trace in files, policies, schema, receipts; the no-op is a Python
function of an atlas, once as ``async def`` and once as ``def``. ``bare`` answers from its handler, over the SDK's stdio transport;
``bare, our pipe`` is the same server over ours, and has no bar: the rest of the difference to it is what governance costs.
Hot: calls back to back. Cold: 20 ms of silence before each.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from stdio_calls import HERE, Difference, Figure, Peer, measure, report, started

BAR_ADDED_US = 250.0
ERAS = ("2025-11-25", "2026-07-28")
IDLE_S = 0.02

TOOLS = """
async def noop():
    return "ok"

def noop_in_thread():
    return "ok"
"""


def write_atlas(folder: Path) -> Path:
    """An atlas of the no-op in both forms, one allow policy and one that never matches."""

    def action(action_id: str, function: str) -> dict[str, object]:
        return {
            "action_id": action_id,
            "name": "No-op",
            "description": "Does nothing.",
            "parameters_schema": {"type": "object", "properties": {}, "additionalProperties": False},
            "executor": {"type": "python", "callable": f"noop:{function}"},
        }

    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.bench",
        "version": "1.0.0",
        "name": "Benchmark",
        "description": "A no-op.",
        "actions": [action("bench.noop", "noop"), action("bench.noop_in_thread", "noop_in_thread")],
        "policies": [
            {"policy_id": "allow", "type": "allow", "actions": ["bench.*"]},
            {"policy_id": "never", "type": "deny", "actions": ["*.delete"], "reason": "Not here"},
        ],
    }
    (folder / "python").mkdir(parents=True)
    (folder / "atlas.json").write_text(json.dumps(manifest))
    (folder / "python" / "noop.py").write_text(TOOLS)
    return folder


def run(folder: Path, era: str, *, rounds: int, calls: int) -> tuple[list[Figure], list[Difference]]:
    modern = era == "2026-07-28"
    python = sys.executable
    atlas = write_atlas(folder / "atlas")
    governed = [python, "-m", "cra_mcp", "serve", "--atlas", str(atlas), "--data-dir"]
    bare = [python, str(HERE / "servers" / "bare.py")]
    with ExitStack() as stack:
        peers = started(
            stack,
            [
                Peer("governed", [*governed, str(folder / "a")], tool="bench_noop", modern=modern),
                Peer("governed, def", [*governed, str(folder / "b")], tool="bench_noop_in_thread", modern=modern),
                Peer("bare", [*bare, "sdk"], tool="bench_noop", modern=modern),
                Peer("bare, our pipe", [*bare, "own"], tool="bench_noop", modern=modern),
            ],
            warm_up=200,
        )
        hot = measure(peers, f"hot, {era}", rounds=rounds, calls=calls)
        cold = measure(peers, f"cold, {era}", rounds=8, calls=10, idle_s=IDLE_S)
    differences: list[Difference] = []
    for measured in (hot, cold):
        bar = BAR_ADDED_US if measured is hot else None
        differences.extend(
            measured.difference(name, "bare", bar_added_us=bar) for name in ("governed", "governed, def")
        )
        differences.append(measured.difference("governed", "bare, our pipe"))
    return [*hot.figures(), *cold.figures()], differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--era", choices=[*ERAS, "both"], default="both", help="which form of the protocol is spoken")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=25, help="of each server in each round")
    options = parser.parse_args()
    figures: list[Figure] = []
    differences: list[Difference] = []
    for era in ERAS if options.era == "both" else [options.era]:
        with tempfile.TemporaryDirectory() as folder:
            measured, compared = run(Path(folder), era, rounds=options.rounds, calls=options.calls)
        figures += measured
        differences += compared
    return report(figures, differences, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
