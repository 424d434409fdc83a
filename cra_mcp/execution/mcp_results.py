"""Results of tools as they came over the wire, kept away from the SDK.

It would refuse blocks of kinds it doesn't know, and look at every value of them on the event loop.

Rule: a result passes as it is; what is checked is the form that everything after this relies on.
Source: MCP specification, "Tool result"; specs/atlas.md, "Upstreams".
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, cast

from cra_mcp.actions.content import KINDS, is_block
from cra_mcp.execution.values import NotJsonError

_MARKS = ("content", "structuredContent", "isError")
_KEPT = "dev.cra/kept"


class Slot:
    """Where the result of one call is put when it arrives, and how often its stream had to be asked for again."""

    __slots__ = ("reconnects", "result")

    def __init__(self) -> None:
        self.result: Mapping[str, object] | None = None
        self.reconnects = 0


current: ContextVar[Slot | None] = ContextVar("cra_upstream_slot", default=None)
"""The slot of the call that is being made: requests over HTTP are sent in the context of their call."""


class _Kept(str):
    """Carries a result past the SDK, which takes it for a text; no JSON can be one."""

    __slots__ = ("result",)

    result: Mapping[str, object]


def is_tool_result(result: object) -> bool:
    """Whether a result of a request is one of a tool."""
    return isinstance(result, dict) and any(mark in result for mark in _MARKS)


def stand_in(result: Mapping[str, object], *, carried: bool) -> dict[str, Any]:
    """What the SDK gets in place of a result; with ``carried`` the result is in it."""
    stub: dict[str, Any] = {"content": []}
    if isinstance(kind := result.get("resultType"), str):
        stub["resultType"] = kind
    if carried:
        kept = _Kept()
        kept.result = result
        stub["_meta"] = {_KEPT: kept}
    return stub


def without_result(message: object, slot: Slot | None) -> object:
    """A message for the SDK: itself, or where it brings the result of a tool, another whose result is in ``slot``."""
    if slot is None or not isinstance(message, dict):
        return message
    fields = cast("dict[str, object]", message)
    result = fields.get("result")
    if not is_tool_result(result):
        return fields
    slot.result = cast("dict[str, object]", result)
    return {**fields, "result": stand_in(slot.result, carried=False)}


def taken(answer: Mapping[str, object], slot: Slot) -> Mapping[str, object]:
    """The result an answer of the SDK stands for.

    Raises:
        NotJsonError: it is no result of a tool.
    """
    meta = answer.get("_meta")
    kept = cast("Mapping[str, object]", meta).get(_KEPT) if isinstance(meta, Mapping) else None
    result = kept.result if isinstance(kept, _Kept) else slot.result
    if result is None:
        result = answer
    _check(result)
    return result


def _check(result: Mapping[str, object]) -> None:
    content = result.get("content")
    if content is not None and not (isinstance(content, list) and all(map(_is_block, cast("list[object]", content)))):
        raise NotJsonError("its content is no list of blocks")
    if not isinstance(result.get("isError"), bool | None):
        raise NotJsonError("its isError is no truth value")
    if not isinstance(result.get("_meta"), dict | None):
        raise NotJsonError("its _meta is no object")


def _is_block(block: object) -> bool:
    """Whether a block has the form its type needs; one of a type that is not known here may have any."""
    if not isinstance(block, dict):
        return False
    fields = cast("dict[str, object]", block)
    kind = fields.get("type")
    return isinstance(kind, str) and (kind not in KINDS or is_block(fields))
