"""What finding events costs: a folder of traces is made and indexed, and questions are put to the index.

    python benchmarks/trace_search.py [--events 1000000] [--json] [--folder DIR] [--keep]

The traces are those of calls of many agents over a year, with rare and common agents, actions, policies, decisions and words. Each
question is asked several times; the slowest counts. --keep leaves the folder for another run, which then only asks.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cra_mcp.trace.event import Draft, format_timestamp, link
from cra_mcp.trace.index import TraceIndex
from cra_mcp.trace.index_source import FileSource
from cra_mcp.trace.search import Query, list_sessions, search
from cra_mcp.trace.store import new_identifier

BAR_MS = 100.0
ROUNDS = 7
PER_SESSION = 500
YEAR_NS = 365 * 86_400 * 1_000_000_000
NOW_NS = 1_767_225_600_000_000_000
ACTIONS = [
    f"{noun}.{verb}"
    for noun in ("ticket", "refund", "customer", "repo", "file")
    for verb in ("read", "update", "delete")
]
WORDS = ["invoice", "angry", "again", "urgent", "printer", "refund", "password", "école", "meeting", "broken"]
QUERIES = {
    "latest of all": Query(),
    "one agent": Query(agent="agent-7"),
    "agents that begin so": Query(agent="agent-1*"),
    "one action": Query(action="refund.delete"),
    "actions that begin so": Query(action="refund.*"),
    "a common decision": Query(decision="allow"),
    "denied, one action": Query(action="file.read", decision="deny"),
    "denied by a rare policy": Query(policy="no-exports"),
    "a common word": Query(text="customer"),
    "a rare word": Query(text="platypus"),
    "two words, one agent, denied": Query(text="angry printer", agent="agent-3", decision="deny"),
    "what never goes together": Query(action="ticket.read", decision="deny", text="platypus"),
    "one day": Query(since="2025-06-01", until="2025-06-02"),
    "one day, one action, denied": Query(since="2025-06-01", until="2025-06-02", action="file.delete", decision="deny"),
    "a common word long ago": Query(until="2025-02-01", text="customer"),
}


def make(folder: Path, events: int) -> None:
    chance = random.Random(1)  # noqa: S311 - the same traces every time
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(events // PER_SESSION):
        session, trace, span = new_identifier(), new_identifier(), new_identifier()
        now_ns = NOW_NS - int(YEAR_NS * (1 - number * PER_SESSION / events))
        head, lines = None, []
        agent = f"agent-{min(int(chance.expovariate(0.1)), 200)}"
        for draft in drafts(chance, agent, span):
            now_ns += 1_000_000_000
            head, line = link(
                head,
                draft,
                session_id=session,
                trace_id=trace,
                event_id=new_identifier(),
                timestamp=format_timestamp(now_ns),
            )
            lines.append(line)
        (folder / f"{session}.trace.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def drafts(chance: random.Random, agent: str, span: str) -> list[Draft]:
    made = [
        Draft(
            "session.started",
            {"agent_id": agent, "goal": "Handle tickets", "atlases": [], "policy_digest": "0" * 64},
            span,
        )
    ]
    while len(made) < PER_SESSION - 1:
        action = chance.choice(ACTIONS)
        words = " ".join(chance.choices(WORDS, k=5)) + (" platypus" if chance.random() < 0.0001 else "")
        denied = action.endswith("delete") and chance.random() < 0.4
        policy = "no-exports" if denied and chance.random() < 0.001 else f"policy-{action}"
        parameters = {"id": chance.randrange(10**6), "note": f"customer called: {words}"}
        made += [
            Draft(
                "action.requested", {"action_id": action, "parameters": parameters, "parameters_hash": "a" * 64}, span
            ),
            Draft(
                "policy.evaluated",
                {
                    "action_id": action,
                    "policy_id": policy,
                    "result": "deny" if denied else "allow",
                    "determining": [policy],
                },
                span,
            ),
            Draft("action.denied", {"action_id": action, "policy_id": policy, "reason": "Deleting is for people"}, span)
            if denied
            else Draft(
                "action.executed",
                {
                    "action_id": action,
                    "execution_id": new_identifier(),
                    "duration_ms": chance.random() * 50,
                    "result_hash": "b" * 64,
                },
                span,
            ),
        ]
    return [*made[: PER_SESSION - 1], Draft("session.ended", {"reason": "completed", "duration_ms": 1.5}, span)]


def timed_ms(call) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to make the traces (default: a temporary folder)"
    )
    parser.add_argument("--keep", action="store_true", help="use what --folder holds already, and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder if options.keep and options.folder else Path(options.folder or temporary) / "traces"
        if not folder.is_dir() or not any(folder.glob("*.jsonl")):
            print(f"making {options.events:,} events", file=sys.stderr)
            make(folder, options.events)
        figures = measure(folder)
    print(json.dumps(figures, indent=2) if options.json else report(figures))
    return 0 if figures["met"] else 1


def measure(folder: Path) -> dict:
    index = TraceIndex(FileSource(folder))
    figures: dict = {"index_s": timed_ms(index.update) / 1_000, "unchanged_ms": timed_ms(index.update), "queries": {}}
    with index.reading() as connection:
        (figures["events"],) = connection.execute("SELECT COUNT(*) FROM events").fetchone()
        figures["index_bytes"] = (folder / "index.sqlite3").stat().st_size
        figures["trace_bytes"] = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        times = [timed_ms(lambda: list_sessions(connection, limit=50)) for _ in range(ROUNDS)]
        figures["queries"]["list of sessions"] = {"p50_ms": statistics.median(times), "max_ms": max(times), "found": 50}
        for name, query in QUERIES.items():
            found = len(search(connection, query))
            times = [timed_ms(lambda query=query: search(connection, query)) for _ in range(ROUNDS)]
            figures["queries"][name] = {"p50_ms": statistics.median(times), "max_ms": max(times), "found": found}
    index.close()
    figures["bar_ms"] = BAR_MS
    figures["met"] = max(query["max_ms"] for query in figures["queries"].values()) < BAR_MS
    return figures


def report(figures: dict) -> str:
    lines = [
        f"{figures['events']:,} events, {figures['trace_bytes'] / 1e6:,.0f} MB; indexed in {figures['index_s']:.1f} s "
        f"({figures['events'] / max(figures['index_s'], 0.001):,.0f}/s) into {figures['index_bytes'] / 1e6:,.0f} MB; "
        f"looking for changes {figures['unchanged_ms']:.1f} ms",
        f"{'':32}{'p50 ms':>9}{'max ms':>9}{'found':>7}",
    ]
    lines += [
        f"{name:32}{each['p50_ms']:9.1f}{each['max_ms']:9.1f}{each['found']:7}"
        for name, each in figures["queries"].items()
    ]
    return "\n".join([*lines, f"bar: < {figures['bar_ms']:g} ms: {'met' if figures['met'] else 'MISSED'}"])


if __name__ == "__main__":
    sys.exit(main())
