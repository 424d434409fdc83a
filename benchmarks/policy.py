"""How long one policy decision takes: 50 actions, 20 policies of all types, most of them with conditions; beside the peers.

    python benchmarks/policy.py [--json]

Hot: the same calls again and again. Cold: a few hundred kilobytes are touched between two calls, so that caches are
not warm. The floor is what the language charges for asking at all: a method that looks the action up in a dict and
returns a constant. Floor and decision alternate within one run, so that a busy machine slows both.

Peers: Cedar (cedarpy) and casbin answer the same questions on the same policies (``policy_peers.py``), in turns with this engine;
their answers must agree. Large: 10,000 actions and 1,000 policies, loaded and asked.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from policy_peers import casbin_enforcer, cedar, ours, without_windows

from cra_mcp.policy.compiler import policy_from_manifest
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet, compile_policies
from cra_mcp.policy.model import ActionFacts, Decision, Facts, RiskTier

BAR_US = 1.0
BAR_WHEN_US = 12.0
BAR_PEERS = 50.0
BAR_LARGE_LOAD_S = 1.0
BAR_LARGE_US = 2.0
NOW_US = 1_767_609_000_000_000  # Monday 2026-01-05 10:30 UTC
ROUNDS = 600
COLD_ROUNDS = 4_000
PEER_ROUNDS = 20

POLICIES: list[dict[str, object]] = [
    {"policy_id": "no-delete", "type": "deny", "actions": ["*.delete"]},
    {"policy_id": "no-purge", "type": "deny", "actions": ["*.purge"], "disclose": False},
    {"policy_id": "no-interns", "type": "deny", "actions": ["payment.*"], "conditions": {"agents": ["intern-*"]}},
    {"policy_id": "no-critical", "type": "deny", "conditions": {"risk_tiers": ["critical"]}},
    {"policy_id": "no-sandbox", "type": "deny", "actions": ["report.*"],
     "conditions": {"context_matches": {"environment": "sandbox*"}}},
    {"policy_id": "no-night", "type": "deny", "actions": ["payment.*", "account.*"],
     "conditions": {"time_window": {"start": "22:00", "end": "06:00", "timezone": "Europe/Berlin"}}},
    {"policy_id": "ask-high", "type": "require_approval", "conditions": {"risk_tiers": ["high"]}},
    {"policy_id": "ask-refund", "type": "require_approval", "actions": ["payment.refund*"]},
    {"policy_id": "ask-export", "type": "require_approval", "actions": ["*.export"],
     "conditions": {"context_matches": {"environment": "prod*"}}},
    {"policy_id": "ask-new", "type": "require_approval", "actions": ["account.*"],
     "conditions": {"agents": ["*-trial", "new-*"]}},
    {"policy_id": "ticket-rate", "type": "rate_limit", "actions": ["ticket.*"],
     "parameters": {"max_calls": 1_000, "window_seconds": 60}},
    {"policy_id": "payment-rate", "type": "rate_limit", "actions": ["payment.*"],
     "parameters": {"max_calls": 100, "window_seconds": 3_600, "scope": "tenant"}},
    {"policy_id": "search-rate", "type": "rate_limit", "actions": ["*.search"],
     "parameters": {"max_calls": 500, "window_seconds": 60, "scope": "session"}},
    {"policy_id": "allow-reads", "type": "allow", "actions": ["*.read", "*.list", "*.search"]},
    {"policy_id": "allow-tickets", "type": "allow", "actions": ["ticket.*"],
     "conditions": {"agents": ["support-*", "lead-*"]}},
    {"policy_id": "allow-payments", "type": "allow", "actions": ["payment.*"],
     "conditions": {"agents": ["support-*"], "context_matches": {"environment": "prod*"},
                    "time_window": {"start": "08:00", "end": "18:00", "timezone": "Europe/Berlin",
                                    "days": ["mon", "tue", "wed", "thu", "fri"]}}},
    {"policy_id": "allow-accounts", "type": "allow", "actions": ["account.*"],
     "conditions": {"context_matches": {"team": "ops"}}},
    {"policy_id": "allow-reports", "type": "allow", "actions": ["report.*"], "conditions": {"agents": ["*-analyst"]}},
    {"policy_id": "allow-mail", "type": "allow", "actions": ["message.*"], "conditions": {"capabilities": ["mail"]}},
    {"policy_id": "allow-low", "type": "allow", "conditions": {"risk_tiers": ["low"], "agents": ["support-7"]}},
]  # fmt: skip
NOUNS = ("ticket", "payment", "account", "report", "message")
VERBS = ("read", "list", "search", "create", "update", "refund", "export", "close", "delete", "purge")
RISKS = {"refund": RiskTier.HIGH, "export": RiskTier.MEDIUM, "purge": RiskTier.CRITICAL, "update": RiskTier.MEDIUM}
ACTIONS = [
    ActionFacts(f"{noun}.{verb}", RISKS.get(verb, RiskTier.LOW), frozenset({"mail"} if noun == "message" else ()))
    for noun in NOUNS
    for verb in VERBS
]
FACTS = Facts("support-7", "session-1", "default", RiskTier.LOW, {"environment": "production", "team": "support"})


class Floor:
    """The least an engine with this signature can do."""

    def __init__(self, action_ids: list[str]) -> None:
        self._known = {action_id: Decision("allow", "default", "default") for action_id in action_ids}

    def decide(
        self, action_id: str, facts: Facts, counters: Counters, now_us: int, *, approved: bool = False
    ) -> Decision | None:
        return self._known.get(action_id)


@dataclass(frozen=True)
class Figure:
    """Microseconds."""

    name: str
    median: float
    p99: float
    minimum: float
    maximum: float


def figure(name: str, samples_us: list[float]) -> Figure:
    ordered = sorted(samples_us)
    return Figure(name, statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[0], ordered[-1])


def ratio(floors: list[float], others: list[float]) -> float:
    """Median of the ratios of neighbours."""
    return round(statistics.median(other / floor for floor, other in zip(floors, others, strict=True)), 2)


def per_call(batch: Callable[[], int]) -> float:
    started = time.perf_counter_ns()
    calls = batch()
    return (time.perf_counter_ns() - started) / calls / 1_000


def charged(engine: PolicySet) -> Counters:
    """Counters as they are in the middle of a session: used, not spent."""
    counters = Counters()
    for second in range(40):
        for policy in engine.policies:
            if policy.limit is not None:
                counters.take((policy.limit,), FACTS, NOW_US - second * 1_000_000)
    return counters


def hot(engine: PolicySet, floor: Floor) -> tuple[Figure, Figure, float]:
    """Every action once makes a batch; a sample is the mean of a batch."""
    counters = charged(engine)
    ids = [action.action_id for action in ACTIONS]

    def decide() -> int:
        for action_id in ids:
            engine.decide(action_id, FACTS, counters, NOW_US)
        return len(ids)

    def ask_floor() -> int:
        for action_id in ids:
            floor.decide(action_id, FACTS, counters, NOW_US)
        return len(ids)

    for _ in range(50):
        decide(), ask_floor()
    pairs = [(per_call(ask_floor), per_call(decide)) for _ in range(ROUNDS)]
    floors, decides = [list(side) for side in zip(*pairs, strict=True)]
    return figure("floor, hot", floors), figure("decide, hot", decides), ratio(floors, decides)


def cold(engine: PolicySet, floor: Floor) -> tuple[Figure, Figure, float]:
    """One call a sample, after other work."""
    counters = charged(engine)
    ballast = [str(number) for number in range(20_000)]
    timer = time.perf_counter_ns
    samples: tuple[list[float], list[float]] = ([], [])
    for index in range(COLD_ROUNDS):
        action_id = ACTIONS[index * 7 % len(ACTIONS)].action_id
        for asked, kept in ((floor, samples[0]), (engine, samples[1])):
            sum(map(len, ballast))
            started = timer()
            asked.decide(action_id, FACTS, counters, NOW_US)
            kept.append((timer() - started) / 1_000)
    return figure("floor, cold", samples[0]), figure("decide, cold", samples[1]), ratio(*samples)


def whole(engine: PolicySet) -> list[Figure]:
    """What a resolution asks of the engine."""
    engine.preview(FACTS, NOW_US)
    engine.next_boundary(NOW_US)
    figures: list[Figure] = []
    for name, call in (
        ("outcome, hot", engine.outcome),
        ("preview of all actions, hot", engine.preview),
    ):

        def batch(call: Callable[[Facts, int], object] = call) -> int:
            for _ in range(50):
                call(FACTS, NOW_US)
            return 50

        figures.append(figure(name, [per_call(batch) for _ in range(ROUNDS)]))
    return figures


def compile_time() -> Figure:
    def once() -> int:
        policies = [policy_from_manifest(policy, order) for order, policy in enumerate(POLICIES)]
        compile_policies(policies, ACTIONS, "deny")
        return 1

    return figure("compile 50 actions x 20 policies", [per_call(once) for _ in range(20)])


def with_a_when() -> Figure:
    """The same policies, one of them with an expression over the arguments that every call must be asked about."""
    extra = {"policy_id": "no-large", "type": "deny", "when": "has(args.amount) && args.amount > 500"}
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}}
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate([extra, *POLICIES])]
    engine = compile_policies(policies, [replace(action, parameters=schema) for action in ACTIONS], "deny")
    counters, args = charged(engine), {"amount": 250.0}
    # What a policy that always denies decides is not asked about expressions: those actions would flatter the figure.
    ids = [
        action.action_id
        for action in ACTIONS
        if engine.decide(action.action_id, FACTS, counters, NOW_US, args={"amount": 501}).policy_id == "no-large"
    ]

    def decide() -> int:
        for action_id in ids:
            engine.decide(action_id, FACTS, counters, NOW_US, args=args)
        return len(ids)

    for _ in range(50):
        decide()
    return figure("decide with a when, hot", [per_call(decide) for _ in range(ROUNDS // 4)])


def peers() -> tuple[list[Figure], dict[str, float], int]:
    """Figures of all, how many times as long as ours each peer takes (median of turns), and answers that differ."""
    policies = without_windows([policy_from_manifest(policy, order) for order, policy in enumerate(POLICIES)])
    asks = {
        "ours": ours(policies, ACTIONS, FACTS, NOW_US),
        "cedarpy": cedar(policies, ACTIONS, FACTS),
        "casbin": casbin_enforcer(policies, ACTIONS, FACTS),
    }
    ids = [action.action_id for action in ACTIONS]
    answers = {name: [ask(action_id) for action_id in ids] for name, ask in asks.items()}
    differing = sum(len(set(each)) > 1 for each in zip(*answers.values(), strict=True))
    samples: dict[str, list[float]] = {name: [] for name in asks}
    names = list(asks)
    for turn in range(PEER_ROUNDS):
        for name in names[turn % 3 :] + names[: turn % 3]:
            ask, times = asks[name], 20 if name == "ours" else 1

            def batch(ask: Callable[[str], bool] = ask, times: int = times) -> int:
                for _ in range(times):
                    for action_id in ids:
                        ask(action_id)
                return times * len(ids)

            samples[name].append(per_call(batch))
    factors = {name: ratio(samples["ours"], samples[name]) for name in names[1:]}
    return [figure(f"allowed? {name}", its) for name, its in samples.items()], factors, differing


def large() -> tuple[float, Figure]:
    """Seconds to load 10,000 actions and 1,000 policies, and a decision there: the 20 policies 50 times, each for 200 actions."""
    actions = [
        replace(action, action_id=action.action_id.replace(".", f"{set_of}x{copy:02}."))
        for copy in range(50)
        for set_of in range(4)
        for action in ACTIONS
    ]
    manifests = [
        {
            **policy,
            "policy_id": f"{policy['policy_id']}-{copy}",
            "actions": [in_copy(glob, copy) for glob in globs_of(policy)],
        }
        for copy in range(50)
        for policy in POLICIES
    ]
    samples: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        policies = [policy_from_manifest(policy, order) for order, policy in enumerate(manifests)]
        engine = compile_policies(policies, actions, "deny")
        samples.append(time.perf_counter() - started)
    counters, ids = charged(engine), [action.action_id for action in actions[::97]]

    def decide() -> int:
        for action_id in ids:
            engine.decide(action_id, FACTS, counters, NOW_US)
        return len(ids)

    for _ in range(20):
        decide()
    return statistics.median(samples), figure(
        "decide, 10,000 x 1,000, hot", [per_call(decide) for _ in range(ROUNDS // 4)]
    )


def globs_of(policy: dict[str, object]) -> list[str]:
    globs = policy.get("actions", ["*"])
    assert isinstance(globs, list)
    return [str(glob) for glob in globs]


def in_copy(glob: str, copy: int) -> str:
    noun, _, verb = glob.partition(".")
    return f"{noun.removesuffix('*')}*x{copy:02}.{verb or '*'}"


def machine() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else [])
        if line.startswith("model name")
    ]
    processor = f"{len(names)} x {names[0]}" if names else platform.processor()
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}, {processor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    asked = parser.parse_args()
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate(POLICIES)]
    engine, floor = compile_policies(policies, ACTIONS, "deny"), Floor([action.action_id for action in ACTIONS])
    gc.disable()
    hot_floor, hot_decide, hot_ratio = hot(engine, floor)
    cold_floor, cold_decide, cold_ratio = cold(engine, floor)
    when, (peer_figures, factors, differing), (load_s, large_decide) = with_a_when(), peers(), large()
    figures = [
        hot_floor, hot_decide, cold_floor, cold_decide, *whole(engine), compile_time(), when, large_decide, *peer_figures,
    ]  # fmt: skip
    bars = {
        f"decide, hot: {hot_decide.median:.2f} us, at most {BAR_US}": hot_decide.median <= BAR_US,
        f"decide with a when, hot: {when.median:.2f} us, at most {BAR_WHEN_US}": when.median <= BAR_WHEN_US,
        f"load 10,000 actions x 1,000 policies: {load_s:.2f} s, at most {BAR_LARGE_LOAD_S}": load_s <= BAR_LARGE_LOAD_S,
        f"decide there: {large_decide.median:.2f} us, at most {BAR_LARGE_US}": large_decide.median <= BAR_LARGE_US,
        **{
            f"{name} takes {factor:.0f} times as long, at least {BAR_PEERS:.0f}": factor >= BAR_PEERS
            for name, factor in factors.items()
        },
        f"answers that differ from a peer's: {differing}, none": not differing,
    }
    met = all(bars.values())
    report = {
        "benchmark": "policy",
        "machine": machine(),
        "actions": len(ACTIONS),
        "policies": len(POLICIES),
        "microseconds": {
            f.name: {"median": round(f.median, 3), "p99": round(f.p99, 3), "min": round(f.minimum, 3),
                     "max": round(f.maximum, 3)}
            for f in figures
        },
        "ratio_hot": hot_ratio,
        "ratio_cold": cold_ratio,
        "ratio_peers": factors,
        "bars": bars,
        "met": met,
    }  # fmt: skip
    if asked.json:
        print(json.dumps(report, indent=2))
        return 0 if met else 1
    print(f"{len(ACTIONS)} actions x {len(POLICIES)} policies on {report['machine']}\n")
    print(f"{'microseconds':34}{'median':>10}{'p99':>10}{'min':>10}{'max':>10}")
    for f in figures:
        print(f"{f.name:34}{f.median:10.3f}{f.p99:10.3f}{f.minimum:10.3f}{f.maximum:10.3f}")
    print(f"\ndecide / floor: {report['ratio_hot']} hot, {report['ratio_cold']} cold")
    for bar, held in bars.items():
        print(f"{'met' if held else 'MISSED':8}{bar}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
