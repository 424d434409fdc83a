"""Calls whose arguments hold half a surrogate pair, which strict readers of JSON refuse as a whole.

Rule: such a call goes to the gate, which refuses it naming the place, and records it. Source: specs/carp.md, "Execution".
"""

import json
import re
from typing import Final

import mcp_types as t

_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_CALL: Final = "tools/call"


def call_with_half_pairs(line: bytes) -> t.JSONRPCRequest | None:
    """The call that a text is, if nothing but half a surrogate pair in it keeps it from being read."""
    mended = _ESCAPE.sub(lambda found: b"\\ufffd" if found["half"] else found[0], line)
    if mended == line:
        return None
    try:
        plain = t.jsonrpc_message_adapter.validate_json(mended, by_name=False)
        if not isinstance(plain, t.JSONRPCRequest) or plain.method != _CALL:
            return None
        call = t.JSONRPCRequest.model_validate(json.loads(line), by_name=False)
    except (ValueError, RecursionError):
        return None
    # An id or a token is written back as it came, which half a surrogate pair can't be.
    return call if _besides_arguments(call) == _besides_arguments(plain) else None


def _besides_arguments(call: t.JSONRPCRequest) -> tuple[object, ...]:
    return call.id, {name: value for name, value in (call.params or {}).items() if name != "arguments"}
