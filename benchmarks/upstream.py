"""What a call of another MCP server costs through this one, against FastMCP's proxy to the same server.

    python benchmarks/upstream.py [--json]

One upstream (a low-level SDK server with a tool that does nothing) stands behind both over stdio: behind ``cra-mcp serve`` as an
action with an executor of type mcp (policies, schema, trace in files, receipts), and behind ``create_proxy``, which only passes
calls on. ``connected`` is FastMCP with a client that stays connected, the fastest form it has. ``direct`` is the upstream
itself. FastMCP lives in an environment of its own, which the tests use too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from stdio_calls import HERE, Difference, Figure, Peer, measure, report, started

IDLE_S = 0.02
_BARE = HERE / "servers" / "bare.py"
_ENVIRONMENTS = HERE.parent / "tests" / "clients" / "environments.py"


def fastmcp_python() -> Path:
    """The Python that has FastMCP: the tests' environment of it, made where it is missing."""
    made = subprocess.run(
        [sys.executable, str(_ENVIRONMENTS), "fastmcp"], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(made.stdout.strip())


def write_atlas(folder: Path) -> Path:
    """An atlas of one action, which the upstream carries out."""
    action = {
        "action_id": "bench.noop",
        "name": "No-op",
        "description": "Does nothing.",
        "parameters_schema": {"type": "object", "properties": {}, "additionalProperties": False},
        "executor": {"type": "mcp", "upstream": "bare", "tool": "bench_noop"},
    }
    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.bench",
        "version": "1.0.0",
        "name": "Benchmark",
        "description": "A no-op behind another server.",
        "upstreams": {"bare": {"command": sys.executable, "args": [str(_BARE)]}},
        "actions": [action],
        "policies": [{"policy_id": "allow", "type": "allow", "actions": ["bench.*"]}],
    }
    folder.mkdir()
    (folder / "atlas.json").write_text(json.dumps(manifest))
    return folder


def run(folder: Path, *, rounds: int, calls: int) -> tuple[list[Figure], list[Difference]]:
    bare = [sys.executable, str(_BARE)]
    proxy = [str(fastmcp_python()), str(HERE / "servers" / "fastmcp_proxy.py")]
    atlas = write_atlas(folder / "atlas")
    governed = [sys.executable, "-m", "cra_mcp", "serve", "--atlas", str(atlas), "--data-dir", str(folder / "data")]
    with ExitStack() as stack:
        peers = started(
            stack,
            [
                Peer("governed", governed, tool="bench_noop"),
                Peer("create_proxy", [*proxy, "create_proxy", *bare], tool="bench_noop"),
                Peer("connected", [*proxy, "connected", *bare], tool="bench_noop"),
                Peer("direct", bare, tool="bench_noop"),
            ],
            warm_up=50,
        )
        hot = measure(peers, "hot", rounds=rounds, calls=calls)
        cold = measure(peers, "cold", rounds=6, calls=10, idle_s=IDLE_S)
    differences = [measured.difference("governed", "create_proxy", bar_ratio=1.0) for measured in (hot, cold)]
    differences += [measured.difference("governed", "connected") for measured in (hot, cold)]
    return [*hot.figures(), *cold.figures()], differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=10, help="of each server in each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, differences = run(Path(folder), rounds=options.rounds, calls=options.calls)
    return report(figures, differences, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
