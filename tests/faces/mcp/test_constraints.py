"""What a tool's description says of policies that the arguments decide."""

import json

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.mcp.tools import describe

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.a",
    "version": "1.0.0",
    "name": "A",
    "description": "d",
    "actions": [
        {
            "action_id": "pay.out",
            "name": "Pay",
            "description": "Pays.",
            "parameters_schema": {"type": "object", "properties": {"amount": {"type": "number"}}},
        }
    ],
    "policies": [
        {"policy_id": "cap", "type": "deny", "when": "args.amount > 500", "reason": "Too much at once."},
        {"policy_id": "hush", "type": "deny", "when": "args.amount > 400", "disclose": False, "reason": "a trap"},
        {"policy_id": "ask", "type": "require_approval", "when": "args.amount > 100"},
        {"policy_id": "form", "type": "allow", "conditions": {"arguments": {"required": ["amount"]}}},
        {
            "policy_id": "slow",
            "type": "rate_limit",
            "when": "args.amount > 50",
            "parameters": {"max_calls": 1, "window_seconds": 60},
        },
        {
            "policy_id": "purse",
            "type": "budget",
            "parameters": {"max_cost": 900.5, "unit": "usd", "window_seconds": 3600, "cost": "args.amount"},
        },
    ],
}


def test_a_description_tells_what_will_be_refused_and_keeps_what_is_hidden() -> None:
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        (permission,) = runtime.permissions()
    assert describe(permission).splitlines() == [
        "Pays.",
        "At most 900.5 usd in any 3600 s (agent).",
        "Refused if args.amount > 500: Too much at once.",
        "Needs a person's approval if args.amount > 100.",
        "Allowed only by what its arguments are.",
        "Limited if args.amount > 50.",
    ]
