"""Arguments as they count: without what a host adds by itself, and without nulls that stand for "left out".

Rule: whatever looks at a call sees the same arguments: its idempotency key, hash, record, policies, approval and executor. Only
what the action's schema would refuse or doesn't declare is taken out, and the record says what. Source: specs/carp.md, "Arguments".
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from cra_mcp.atlas.declared import declared_names
from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.gate.call import Call, LeftOut
from cra_mcp.schema_check import compile_schema

_MAX_DEPTH: Final = 16
_KEPT: Final = ("$defs", "definitions", "properties")
_Schema = Mapping[str, object]


def without_unmeant(call: Call, schema: _Schema) -> Call:
    """The call with the arguments that count. ``schema`` is that of its action's parameters."""
    parameters = call.parameters
    if not isinstance(parameters, dict):
        return call
    given = cast("dict[str, object]", parameters)
    added = call.host_arguments & given.keys()
    added -= declared_names(schema) if added else frozenset()
    kept = {name: value for name, value in given.items() if name not in added} if added else given
    kept, nulls = without_nulls(kept, schema)
    if not added and not nulls:
        return call
    left_out = (*((pointer(name), _BY_HOST) for name in sorted(added)), *((at, _NULL) for at in nulls))
    return replace(call, parameters=kept, left_out=left_out)


def without_nulls(parameters: Mapping[str, object], schema: _Schema) -> tuple[Mapping[str, object], list[str]]:
    """The arguments without nulls of optional properties that can't be null, and where those stood."""
    pointers = [pointer(*at) for at in _nulls(parameters, schema, schema, (), ())]
    if not pointers:
        return parameters, []
    return cast("dict[str, object]", _pruned(parameters, "", frozenset(pointers))), pointers


_BY_HOST: Final[LeftOut] = "added_by_host"
_NULL: Final[LeftOut] = "null"


def _nulls(
    value: Mapping[str, object], schema: _Schema, root: _Schema, at: tuple[str, ...], where: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """Below ``value``, as far as ``properties`` of the schema say what is there; ``where`` leads to their schema."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(at) > _MAX_DEPTH:
        return
    known = cast("dict[str, object]", properties)
    required = cast("list[str]", schema.get("required", ()))
    for name, each in value.items():
        part = known.get(name)
        if not isinstance(part, dict):
            continue
        inner = cast("dict[str, object]", part)
        if each is None:
            if name not in required and not _can_be_null(inner, root, (*where, "properties", name)):
                yield (*at, name)
        elif isinstance(each, dict):
            below = cast("dict[str, object]", each)
            yield from _nulls(below, inner, root, (*at, name), (*where, "properties", name))


def _can_be_null(schema: _Schema, root: _Schema, where: tuple[str, ...]) -> bool:
    kinds = schema.get("type")
    if isinstance(kinds, str):
        if kinds != "null":
            return False
    elif isinstance(kinds, list) and "null" not in kinds:
        return False
    probe: dict[str, Any] = {key: root[key] for key in _KEPT if key in root}
    return compile_schema({**probe, "$ref": f"#{_escaped(pointer(*where))}"}).is_valid(None)


def _escaped(at: str) -> str:
    return at.replace("%", "%25")


def _pruned(value: object, at: str, pointers: frozenset[str]) -> object:
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, object]", value)
    return {
        name: _pruned(each, at + pointer(name), pointers)
        for name, each in members.items()
        if at + pointer(name) not in pointers
    }
