"""What was sent: its hash, what is recorded of it, and what is wrong with its form.

Rule: total. Whatever arrives has a hash and leaves an ``action.requested`` event. Source: specs/carp.md, "Execution";
specs/trace.md, "Recording".
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import cast

from cra_mcp.canonical import MAX_INTEGER, canonical_bytes, lossy, sha256_hex
from cra_mcp.errors import CanonicalError
from cra_mcp.gate.attempt import Attempt
from cra_mcp.gate.binding import Binding
from cra_mcp.gate.call import Call, Fault, shown_id
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.redact import Redactor

_MAX_LOOKED_AT = 10_000
_MAX_POINTER = 200
_SURROGATE = re.compile("[\ud800-\udfff]")


def receive(
    call: Call, redactor: Redactor | None, config: RuntimeConfig, *, found: bool = True
) -> tuple[Attempt, Fault | None]:
    """Take a call in; ``redactor`` hides what its action's schema marks as sensitive.

    Not ``found``: the call is one of an unknown action, or must look so. No schema says what in it is secret, so that where
    secrets are hidden its parameters are kept by hash alone, for both alike.
    """
    parameters, data, fault = _normalise(call.parameters, config.max_parameters_bytes)
    attempt = Attempt(call=call, span=config.new_id(), parameters=parameters, parameters_hash=sha256_hex(data))
    payload: dict[str, object] = {
        "action_id": shown_id(call.action_id),
        "parameters": None,
        "parameters_hash": attempt.parameters_hash,
        "resolution_id": call.resolution.resolution_id,
    }
    mode = "hash" if not found and config.recording == "redacted" else config.recording
    if mode in {"none", "hash"}:
        payload["recording"] = mode
    elif len(data) > config.max_recorded_bytes:
        payload["recording"] = "hash"
        payload["parameters_bytes"] = len(data)
    else:
        kept = parameters if fault is None else lossy(call.parameters)
        if mode == "redacted" and redactor is not None:
            kept = redactor.apply(kept)
        payload["parameters"] = attempt.recorded = kept
        payload["recording"] = mode
    if call.principal is not None and call.principal != call.session.principal:
        payload["principal"] = call.principal.of_request()
    if call.left_out:
        payload["left_out"] = [{"pointer": at, "reason": reason} for at, reason in call.left_out]
    if call.otel is not None:
        payload["otel"] = dict(call.otel)
    attempt.note("action.requested", payload)
    return attempt, fault


def check_form(parameters: object, max_bytes: int) -> Fault | None:
    """What is wrong with the form of parameters, whatever the action; None if nothing."""
    return _normalise(parameters, max_bytes)[2]


def check_parameters(binding: Binding, parameters: Mapping[str, object]) -> Fault | None:
    """What is wrong with parameters whose form is good; None if the action's schema takes them."""
    faults = binding.faults(parameters)
    if not faults:
        return None
    return Fault(
        "invalid_parameters",
        "invalid parameters: " + "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults),
        hint="correct them and call again",
        details={
            "faults": [{"pointer": fault.pointer, "message": fault.message} for fault in faults],
            "recorded": [{"pointer": fault.pointer, "keyword": fault.keyword} for fault in faults],
        },
    )


def _normalise(parameters: object, max_bytes: int) -> tuple[Mapping[str, object], bytes, Fault | None]:
    """``(parameters, canonical bytes, what is wrong with their form)``; None counts as no parameters."""
    if parameters is None:
        parameters = {}
    try:
        data = canonical_bytes(parameters)
    except CanonicalError as error:
        return {}, canonical_bytes(lossy(parameters)), _unwritable(parameters) or _bad_form(error.message)
    if not isinstance(parameters, dict):
        return {}, data, _bad_form("the parameters must be a JSON object")
    if len(data) > max_bytes:
        return {}, data, _bad_form(f"the parameters have {len(data)} bytes, the limit is {max_bytes}")
    return cast("dict[str, object]", parameters), data, None


def _bad_form(message: str, pointer: str = "") -> Fault:
    place = f"{pointer}: " if pointer else ""
    return Fault(
        "invalid_parameters",
        f"invalid parameters: {place}{message}",
        hint="send a JSON object that fits the action's parameters_schema",
        details={"recorded": [{"pointer": pointer, "keyword": "form"}]},
    )


def _unwritable(parameters: object) -> Fault | None:
    """The first value that has no exact form in JSON, and where it stands; None if it isn't among the first thousands."""
    waiting: list[tuple[str, object]] = [("", parameters)]
    for _ in range(_MAX_LOOKED_AT):
        if not waiting:
            break
        pointer, value = waiting.pop()
        if (why := _no_form(value)) is not None:
            return _bad_form(why, pointer[:_MAX_POINTER] or "/")
        members: list[tuple[str, object]] = []
        if isinstance(value, dict):
            members = [(str(key), each) for key, each in cast("dict[object, object]", value).items()]
        elif isinstance(value, list):
            members = [(str(index), each) for index, each in enumerate(cast("list[object]", value))]
        waiting += [
            (f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", each) for name, each in reversed(members)
        ]
    return None


def _no_form(value: object) -> str | None:
    """Why a value by itself has no exact form."""
    if isinstance(value, str):
        return "half a surrogate pair is no text" if _SURROGATE.search(value) else None
    if isinstance(value, dict):
        names = cast("dict[object, object]", value)
        bad = any(isinstance(name, str) and _SURROGATE.search(name) for name in names)
        return "half a surrogate pair is no text, in names either" if bad else None
    if isinstance(value, float):
        return None if isfinite(value) else "only finite numbers are JSON"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return f"an integer beyond {MAX_INTEGER} is not the same to every reader: send it as a text"
    return None
