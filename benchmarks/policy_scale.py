"""What a decision costs with an expression, with thousands of actions, and in other engines.

    python benchmarks/policy_scale.py [--json]

Expression: the 50 actions x 20 policies of ``policy.py`` and one more policy with a ``when`` that every call must be asked about.
Scale: 10,000 actions x 1,000 policies. Peers: 20 policies that Cedar (``cedarpy``, parsed handles) and casbin can express too, on
the same requests in the same minute, in turns; every answer is compared. Times are those of the processor. A peer that isn't
installed (``pip install cedarpy casbin``) is left out, and said to be.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product

from policy import ACTIONS, FACTS, NOW_US, POLICIES, machine

from cra_mcp.policy.compiler import policy_from_manifest
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet, compile_policies
from cra_mcp.policy.model import ActionFacts, Facts, RiskTier

WHEN_US, SCALE_US, LOAD_S, TIMES_FASTER = 12.0, 2.0, 1.0, 50.0
PARAMETERS = {"type": "object", "properties": {"amount": {"type": "number"}}}
CAP = {"policy_id": "cap", "type": "deny", "when": "args.amount > 500 && agent.id != 'root'"}


def per_call(batch: Callable[[], int]) -> float:
    started = time.process_time_ns()  # of the processor: nothing here waits, and a busy machine says less
    calls = batch()
    return (time.process_time_ns() - started) / calls / 1_000


def hot(decide: Callable[[str], object], ids: Sequence[str], rounds: int) -> float:
    """Microseconds a call: median of batches."""

    def batch() -> int:
        for action_id in ids:
            decide(action_id)
        return len(ids)

    batch()
    return statistics.median(per_call(batch) for _ in range(rounds))


def with_when() -> float:
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate([*POLICIES, CAP])]
    actions = [
        ActionFacts(action.action_id, action.risk_tier, action.capabilities, parameters=PARAMETERS)
        for action in ACTIONS
    ]
    engine, counters, args = compile_policies(policies, actions, "deny"), Counters(), {"amount": 20.5}
    open_to_it = [
        action.action_id
        for action in actions
        if engine.decide(action.action_id, FACTS, counters, NOW_US, args={"amount": 501}).policy_id == "cap"
    ]
    return hot(lambda action_id: engine.decide(action_id, FACTS, counters, NOW_US, args=args), open_to_it, 300)


def at_scale() -> tuple[float, float]:
    actions = [
        ActionFacts(f"team{team}.service{service}.verb{verb}", list(RiskTier)[verb % 4])
        for team, service, verb in product(range(100), range(10), range(10))
    ]
    written: list[dict[str, object]] = []
    for number in range(1_000):
        kind = ("deny", "require_approval", "rate_limit", "allow")[number // 100 % 4]
        policy: dict[str, object] = {
            "policy_id": f"p{number}",
            "type": kind,
            "actions": [f"team{number % 100}.*" if number % 3 else f"team{number % 100}.service{number % 10}.*"],
        }
        if number % 2:
            policy["conditions"] = {"agents": [f"bot-{number % 7}*"]}
        if kind == "rate_limit":
            policy["parameters"] = {"max_calls": 100_000, "window_seconds": 60}
        written.append(policy)
    written[0]["actions"], written[1]["actions"] = ["*.verb9"], ["*"]
    started = time.process_time()
    policies = [policy_from_manifest(policy, order) for order, policy in enumerate(written)]
    engine = compile_policies(policies, actions, "deny")
    load_s = time.process_time() - started
    counters, facts = Counters(), Facts("bot-9", "s")
    ids = [action.action_id for action in actions]
    return load_s, hot(lambda action_id: engine.decide(action_id, facts, counters, NOW_US), ids, 5)


# --- peers ---------------------------------------------------------------------------------------------------------------

NOUNS = ("ticket", "payment", "account", "report", "message")
RULES = [
    (("allow", "deny")[number % 4 == 3], ("", "bot-", "lead-", "human")[number % 3], f"{NOUNS[number % 5]}.{verb}", env)
    for number, (verb, env) in enumerate(product(("", "r", "de", "up", "ex"), ("", "prod", "dev", "test")))
]
"""Effect, and what agent, action and environment begin with."""
REQUESTS = [
    (f"{who}{number}", f"{noun}.{verb}", env)
    for number, (who, noun, verb, env) in enumerate(
        product(
            ("bot-", "lead-", "human", "x"), NOUNS, ("read", "delete", "update", "export"), ("prod-eu", "dev", "live")
        )
    )
]

Ask = Callable[[tuple[str, str, str]], bool]


def ours() -> Ask:
    policies = [
        policy_from_manifest(
            {
                "policy_id": f"p{number}",
                "type": effect,
                "actions": [f"{action}*"],
                "conditions": {"agents": [f"{agent}*"], "context_matches": {"env": f"{env}*"}},
            },
            number,
        )
        for number, (effect, agent, action, env) in enumerate(RULES)
    ]
    engine: PolicySet = compile_policies(
        policies, [ActionFacts(each) for each in sorted({r[1] for r in REQUESTS})], "deny"
    )
    counters = Counters()
    facts = {each: Facts(each[0], "s", context={"env": each[2]}) for each in REQUESTS}
    return lambda each: engine.decide(each[1], facts[each], counters, NOW_US).effect == "allow"


def cedar() -> Ask:
    import cedarpy  # noqa: PLC0415

    text = "\n".join(
        f"{'permit' if effect == 'allow' else 'forbid'}(principal, action, resource) when {{ "
        f'context.agent like "{agent}*" && context.act like "{action}*" && context.env like "{env}*" }};'
        for effect, agent, action, env in RULES
    )
    policies, entities = cedarpy.PolicySet.from_str(text), cedarpy.Entities.from_json_str("[]")

    def ask(each: tuple[str, str, str]) -> bool:
        context = {"agent": each[0], "act": each[1], "env": each[2]}
        request = {"principal": 'U::"a"', "action": 'Action::"call"', "resource": 'R::"r"', "context": context}
        return bool(cedarpy.is_authorized(request, policies, entities).allowed)

    return ask


def casbin() -> Ask:
    import casbin  # noqa: PLC0415

    model = casbin.Model()
    for section, key, value in (
        ("r", "r", "sub, act, env"),
        ("p", "p", "sub, act, env, eft"),
        ("e", "e", "some(where (p.eft == allow)) && !some(where (p.eft == deny))"),
        ("m", "m", "keyMatch(r.sub, p.sub) && keyMatch(r.act, p.act) && keyMatch(r.env, p.env)"),
    ):
        model.add_def(section, key, value)
    enforcer = casbin.Enforcer(model)
    for effect, agent, action, env in RULES:
        enforcer.add_policy(f"{agent}*", f"{action}*", f"{env}*", effect)
    return lambda each: bool(enforcer.enforce(*each))


def against(mine: Ask, other: Ask) -> dict[str, object]:
    differing = sum(mine(each) != other(each) for each in REQUESTS)
    ratios: list[float] = []
    theirs: list[float] = []

    def batch(ask: Ask) -> Callable[[], int]:
        def run() -> int:
            for each in REQUESTS:
                ask(each)
            return len(REQUESTS)

        return run

    for _ in range(7):
        own = per_call(batch(mine))
        theirs.append(per_call(batch(other)))
        ratios.append(theirs[-1] / own)
    return {
        "us": round(statistics.median(theirs), 2),
        "times_slower": round(statistics.median(ratios), 1),
        "disagreements": f"{differing} of {len(REQUESTS)}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    asked = parser.parse_args()
    gc.disable()
    when_us = with_when()
    load_s, scale_us = at_scale()
    mine = ours()
    peers = {
        name: against(mine, make()) if importlib.util.find_spec(name) is not None else None
        for name, make in (("cedarpy", cedar), ("casbin", casbin))
    }
    met = {
        f"with a when <= {WHEN_US:g} us": when_us <= WHEN_US,
        f"10,000 x 1,000 load < {LOAD_S:g} s": load_s < LOAD_S,
        f"10,000 x 1,000 decide <= {SCALE_US:g} us": scale_us <= SCALE_US,
        **{
            f"{name} >= {TIMES_FASTER:g} x slower, no disagreement": found["times_slower"] >= TIMES_FASTER
            and str(found["disagreements"]).startswith("0 ")
            for name, found in peers.items()
            if found is not None
        },
    }
    report = {
        "benchmark": "policy_scale",
        "machine": machine(),
        "with_when_us": round(when_us, 2),
        "scale": {"load_s": round(load_s, 3), "decide_us": round(scale_us, 2)},
        "peers": {name: found or "not installed" for name, found in peers.items()},
        "bars": met,
    }
    print(json.dumps(report, indent=2) if asked.json else _text(report))
    return 0 if all(met.values()) else 1


def _text(report: dict[str, object]) -> str:
    bars = report["bars"]
    assert isinstance(bars, dict)
    lines = [f"{name}: {value}" for name, value in report.items() if name not in {"benchmark", "bars"}]
    return "\n".join([*lines, *(f"{'met   ' if met else 'MISSED'} {bar}" for bar, met in bars.items())])


if __name__ == "__main__":
    sys.exit(main())
