"""Types of what an expression reads, from the JSON Schema that checks it.

Rule: a type is given only where the schema leaves no other; everything else is dynamic, and checked when it is evaluated.
Source: specs/policy.md, "Expressions"; JSON Schema 2020-12.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

Type = Literal[
    "string", "int", "number", "bool", "dyn", "map", "list_string", "list_int", "list_bool", "list_dyn", "has"
]

_MAX_REFERENCES = 8
_SCALARS: Mapping[object, Type] = {"string": "string", "integer": "int", "number": "number", "boolean": "bool"}
_LISTS: Mapping[Type, Type] = {"string": "list_string", "int": "list_int", "bool": "list_bool"}
_NOTHING: Mapping[str, object] = {}


class Typed(NamedTuple):
    """The type of a member, and how many steps of its path lead to what has it; the rest is up to the evaluation."""

    type: Type
    steps: int


class UnknownMemberError(ValueError):
    """A schema doesn't know a member.

    Attributes:
        steps: how many names of the path lead to the unknown one, itself included.
    """

    def __init__(self, name: str, steps: int) -> None:
        super().__init__(name)
        self.steps: int = steps


def type_at(schema: Mapping[str, object], path: Sequence[str]) -> Typed:
    """The type of the member at ``path`` of a value that ``schema`` checks.

    Raises:
        UnknownMemberError: the schema names the members of an object, and this one is not among them.
    """
    here: object = _resolved(schema, schema)
    for steps, name in enumerate(path):
        members = _members(here)
        if members is None and steps:
            return Typed(_type_of(here, schema), steps)
        if members is None or name not in members:
            if isinstance(here, dict) and _is_open(cast("Mapping[str, object]", here)):
                return Typed("dyn", steps + 1)
            raise UnknownMemberError(name, steps + 1)
        here = _resolved(members[name], schema)
    return Typed(_type_of(here, schema), len(path))


def _members(schema: object) -> Mapping[str, object] | None:
    """Members of an object by name; None for anything else."""
    if not isinstance(schema, dict):
        return None
    known = cast("Mapping[str, object]", schema)
    properties = known.get("properties")
    if known.get("type") != "object" or not isinstance(properties, dict):
        return None
    return cast("Mapping[str, object]", properties)


def _is_open(schema: Mapping[str, object]) -> bool:
    """Whether an object says of itself that it may have members it doesn't name."""
    return schema.get("additionalProperties", False) is not False or bool(schema.get("patternProperties"))


def _type_of(schema: object, root: Mapping[str, object]) -> Type:
    if not isinstance(schema, dict):
        return "dyn"
    known = cast("Mapping[str, object]", schema)
    kind = known.get("type")
    if isinstance(kind, str):
        if kind == "array":
            return _LISTS.get(_type_of(_resolved(known.get("items"), root), root), "list_dyn")
        return "map" if kind == "object" else _SCALARS.get(kind, "dyn")
    values = known.get("enum", [known["const"]] if "const" in known else None)
    if isinstance(values, list) and values and all(isinstance(value, str) for value in cast("list[object]", values)):
        return "string"
    return "dyn"


def _resolved(schema: object, root: Mapping[str, object]) -> object:
    """A schema behind local references; ``#/$defs/name`` is the form in use, anything else is dynamic."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return cast("object", schema)
        reference = cast("Mapping[str, object]", schema)["$ref"]
        if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
            return _NOTHING
        found: object = root.get("$defs")
        schema = (
            cast("Mapping[str, object]", found).get(reference.removeprefix("#/$defs/"))
            if isinstance(found, dict)
            else None
        )
    return _NOTHING
