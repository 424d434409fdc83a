"""Runs conformance vectors of the kinds ``resolution`` and ``golden`` against a runtime.

Rule: nothing is decided here. Clock and ids are the vector's, so that a whole trace is a fact; what an action returns is data of
the vector too (a Python callable that echoes what it is given).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from cra_mcp.compose import CRARuntime
from cra_mcp.errors import RequestError
from cra_mcp.settings import RuntimeConfig

Step = Mapping[str, Any]


def run(vector: Mapping[str, object]) -> object:
    """What the runtime makes of ``vector["input"]``, to be compared with ``vector["expect"]``."""
    given = cast("Mapping[str, Any]", vector["input"])
    expected = cast("Mapping[str, Any]", vector["expect"])
    config = RuntimeConfig(store="memory", clock_ns=_clock(given.get("clock", {})), new_id=_ids(), ttl_seconds=300)
    with CRARuntime(config) as runtime:
        for manifest in given["atlases"]:
            runtime.load_atlas_from_json(json.dumps(manifest))
        session = runtime.create_session(**given["session"])
        steps = [_step(runtime, session.session_id, step) for step in given["steps"]]
        actual: dict[str, object] = {"steps": steps}
        if "events" in expected:
            actual["events"] = [event.event_type for event in runtime.get_trace(session.session_id)]
        if "trace" in expected:
            actual["trace"] = [line.decode() for line in runtime.read_trace(session.session_id)]
        return actual


def _step(runtime: CRARuntime, session_id: str, step: Step) -> dict[str, object]:
    if "resolve" in step:
        return _resolve(runtime, session_id, cast("Step", step["resolve"]))
    if "approve" in step:
        (asked,) = runtime.pending_approvals()
        return {"approved": runtime.settle_approval(asked.approval_id, granted=True, by="person").action_id}
    return _execute(runtime, session_id, cast("Step", step["execute"]))


def _resolve(runtime: CRARuntime, session_id: str, query: Step) -> dict[str, object]:
    try:
        message = runtime.resolve(session_id, **query).to_dict()
    except RequestError as error:
        return {"error": error.code}
    decision = cast("Mapping[str, object]", message["decision"])
    blocks = cast("Sequence[Mapping[str, object]]", message["context_blocks"])
    allowed = cast("Sequence[Mapping[str, object]]", message["allowed_actions"])
    return {
        "decision": decision["type"],
        "allowed": [entry["action_id"] for entry in allowed],
        "needs_approval": [entry["action_id"] for entry in allowed if entry["requires_confirmation"]],
        "denied": message["denied_actions"],
        "context": [block["block_id"] for block in blocks],
        "constraints": [entry["constraint_id"] for entry in cast("Sequence[Step]", message["constraints"])],
        "ttl_seconds": message["ttl_seconds"],
    }


def _execute(runtime: CRARuntime, session_id: str, call: Step) -> dict[str, object]:
    outcome = runtime.execute_blocking(session_id, call["action_id"], call.get("parameters"))
    actual: dict[str, object] = {"status": outcome.status}
    if outcome.fault is not None:
        actual["code"] = outcome.fault.code
        for key in ("policy_id", "retry_after_seconds"):
            if key in outcome.fault.details:
                actual[key] = outcome.fault.details[key]
    else:
        actual["result"] = outcome.value
    return actual


def _clock(clock: Mapping[str, Any]) -> Callable[[], int]:
    """A clock that moves by ``step_us`` at each reading."""
    now = int(datetime.fromisoformat(clock.get("start", "2026-01-05T12:00:00Z")).timestamp() * 1_000_000)
    step = int(clock.get("step_us", 0))

    def read() -> int:
        nonlocal now
        now += step
        return now * 1_000

    return read


def _ids() -> Callable[[], str]:
    """Ids with the form of UUIDv7 that count up from 1."""
    number = 0

    def make() -> str:
        nonlocal number
        number += 1
        return f"01900000-0000-7000-8000-{number:012x}"

    return make
