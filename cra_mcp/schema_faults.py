"""Where a value breaks its schema, found in bounded work.

Rule: nothing here collects errors of nested schemas: their number multiplies with each level of a schema that applies itself in
several ways. It is only asked whether parts are valid, which is always quick, going down to what is not; when the work is used
up, the place reached so far is the answer. Work is counted, not timed: the same value always gets the same faults.
Source: JSON Schema 2020-12 (core, sections 8 to 11).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

from cra_mcp.json_bounds import parts

MAX_FAULTS = 5
_MAX_MESSAGE = 300
_MAX_WORK = 60_000
_PROBE_WORK = 20
_MAX_SHOWN = 100  # parts of a value that is shown in a message
_MAX_STEPS = 200
_BASE = "urn:cra:schema"
MASK = "the value"
"""Stands for a value that messages must not show."""

_REFERENCES = frozenset(("$ref", "$dynamicRef"))
_IDLE = frozenset(("then", "else", "minContains", "maxContains", "unevaluatedProperties", "unevaluatedItems", "$defs"))

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """One way in which a value breaks its schema. ``pointer`` is an RFC 6901 JSON pointer into the value."""

    pointer: str
    keyword: str
    message: str


Compile = Callable[[Schema], Any]
"""Makes a validator of a schema."""


def find_faults(schema: Schema, instance: object, compiler_for: Callable[[str, Schema], Compile]) -> list[SchemaFault]:
    """What is wrong with ``instance``, which ``schema`` does not accept: one to five faults.

    Args:
        schema: one the loader has accepted.
        instance: a JSON value.
        compiler_for: given a URI and the schema it names, what compiles schemas that refer to it.
    """
    search = _Search(schema, compiler_for)
    with contextlib.suppress(_SpentError):
        search.go(search.root, instance, "", 0)
    return search.faults or [SchemaFault(search.reached, "schema", f"{MASK} does not fit the schema")]


class _SpentError(Exception):
    """The work is used up, or there are faults enough."""


class _Search:
    """Goes down a schema and a value side by side."""

    def __init__(self, schema: Schema, compiler_for: Callable[[str, Schema], Compile]) -> None:
        self.root = cast("Schema", _absolute({key: part for key, part in schema.items() if key != "$id"}))
        self.faults: list[SchemaFault] = []
        self.reached = ""
        self._validator = compiler_for(_BASE, self.root)
        self._been: set[tuple[int, str]] = set()
        self._work = _MAX_WORK
        self._root_work = parts(self.root, _MAX_WORK)

    def go(self, schema: object, value: object, pointer: str, step: int) -> None:
        """Note the faults of a value that is known to have some."""
        if step > _MAX_STEPS:
            raise _SpentError
        if (id(schema), pointer) in self._been:
            return
        self._been.add((id(schema), pointer))
        self.reached = pointer
        if not isinstance(schema, Mapping):
            self._note(pointer, {"not": {}}, "falseSchema", value)
            return
        node = cast("Schema", schema)
        found = False
        for keyword in node:
            for inner, part, below in self._parts(node, keyword, value):
                if not self._is_valid(inner, part):
                    self.go(inner, part, pointer + below, step + 1)
                    found = True
            if keyword in _LEAVES or keyword not in _APPLYING:
                found = self._check(node, keyword, value, pointer) or found
        if not found:  # what is unevaluated depends on the whole schema
            late = next(
                (keyword for keyword in ("unevaluatedProperties", "unevaluatedItems") if keyword in node), "schema"
            )
            self._add(pointer, late, f'{MASK} does not fit "{late}"')

    # --- applied to the same value, or to its parts ------------------------------------------------------------------

    def _parts(self, node: Schema, keyword: str, value: object) -> Iterator[tuple[object, object, str]]:
        """What a keyword applies: ``(schema, part of the value, pointer from the value to the part)``."""
        applied = node[keyword]
        if keyword in _REFERENCES:
            yield self._target(cast("str", applied)), value, ""
        elif keyword == "allOf":
            yield from ((each, value, "") for each in cast("list[object]", applied))
        elif keyword == "if":
            branch = "then" if self._is_valid(applied, value) else "else"
            if branch in node:
                yield node[branch], value, ""
        elif isinstance(value, dict):
            yield from self._members(node, keyword, cast("dict[str, object]", value))
        elif isinstance(value, list) and keyword in {"items", "prefixItems"}:
            yield from _items(node, keyword, cast("list[object]", value))

    def _members(self, node: Schema, keyword: str, value: dict[str, object]) -> Iterator[tuple[object, object, str]]:
        applied = node[keyword]
        if keyword == "properties":
            named = cast("Schema", applied)
            yield from ((named[name], part, _step(name)) for name, part in value.items() if name in named)
        elif keyword == "dependentSchemas":
            yield from ((each, value, "") for name, each in cast("Schema", applied).items() if name in value)
        elif keyword == "patternProperties":
            for pattern, each in cast("Schema", applied).items():
                yield from (
                    (each, part, _step(name))
                    for name, part in value.items()
                    if self._is_valid({"pattern": pattern}, name)
                )
        elif keyword == "additionalProperties" and isinstance(applied, Mapping):
            yield from ((applied, part, _step(name)) for name, part in value.items() if self._is_additional(node, name))

    def _is_additional(self, node: Schema, name: str) -> bool:
        if name in node.get("properties", {}):
            return False
        return not any(self._is_valid({"pattern": each}, name) for each in node.get("patternProperties", {}))

    def _target(self, reference: str) -> object:
        """What a reference names; itself again where it is not a pointer."""
        fragment = unquote(reference.partition("#")[2])
        if fragment and not fragment.startswith("/"):
            return self._anchored(fragment)
        node: Any = self.root
        for token in fragment.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            node = node[int(key) if isinstance(node, list) else key]
        return node

    def _anchored(self, name: str) -> object:
        waiting: list[object] = [self.root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Mapping):
                inner = cast("Schema", node)
                if name in (inner.get("$anchor"), inner.get("$dynamicAnchor")):
                    return inner
                waiting.extend(inner.values())
            elif isinstance(node, list):
                waiting.extend(cast("list[object]", node))
        return True

    # --- keywords that say something themselves ----------------------------------------------------------------------

    def _check(self, node: Schema, keyword: str, value: object, pointer: str) -> bool:
        """Note what one keyword has against ``value``; whether it has anything."""
        probe = _probe(node, keyword)
        if probe is None or self._is_valid(probe, value):
            return False
        if keyword == "required":
            present = cast("dict[str, object]", value)
            lacking = [name for name in cast("list[str]", node[keyword]) if name not in present]
            self._note(pointer, {"required": lacking[:MAX_FAULTS]}, keyword, {})
        elif keyword == "propertyNames":
            names = cast("dict[str, object]", value)
            wrong = next(name for name in names if not self._is_valid(node[keyword], name))
            self._note(pointer, probe, keyword, {wrong: None})
        elif keyword in {"anyOf", "oneOf"}:
            fitting = keyword == "oneOf" and any(self._is_valid(each, value) for each in node[keyword])
            self._note(pointer, {keyword: [True, True] if fitting else [False]}, keyword, value)
        elif keyword == "additionalProperties":
            extra = {name: None for name in cast("dict[str, object]", value) if self._is_additional(node, name)}
            self._note(pointer, {"properties": {}, keyword: False}, keyword, extra)
        else:
            self._note(pointer, probe, keyword, value)
        return True

    def _note(self, pointer: str, probe: Schema, keyword: str, value: object) -> None:
        """Note what a schema without others in it says of ``value``, in the validator's words where they are short."""
        if parts(value, _MAX_SHOWN) >= _MAX_SHOWN:
            self._add(pointer, keyword, f'{MASK} does not fit "{keyword}"')
            return
        for error in self._validator(probe).iter_errors(value):
            shown = MASK + " is not allowed" if keyword == "falseSchema" else error.message
            self._add(pointer, keyword if keyword == "falseSchema" else error.kind.name, shown)

    def _add(self, pointer: str, keyword: str, message: str) -> None:
        text = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…"
        fault = SchemaFault(pointer, keyword, text)
        if fault not in self.faults:
            self.faults.append(fault)
        if len(self.faults) == MAX_FAULTS:
            raise _SpentError

    # --- asking ------------------------------------------------------------------------------------------------------

    def _is_valid(self, schema: object, value: object) -> bool:
        if isinstance(schema, bool):
            return schema
        wanted = cast("Schema", schema)
        size = parts(wanted, self._work) + parts(value, self._work)
        self._work -= _PROBE_WORK + size + (self._root_work if _refers(wanted) else 0)
        if self._work <= 0:
            raise _SpentError
        return self._validator(wanted).is_valid(value)


_APPLYING = frozenset(
    (
        *_REFERENCES,
        *_IDLE,
        "allOf",
        "if",
        "properties",
        "patternProperties",
        "additionalProperties",
        "dependentSchemas",
        "items",
        "prefixItems",
    )
)
_LEAVES = frozenset(("additionalProperties",))  # applies schemas, and refuses names where it is false


def _probe(node: Schema, keyword: str) -> Schema | None:
    """A schema that asks for one keyword alone, with those it can't be understood without."""
    value = node[keyword]
    if keyword == "contains":
        return {each: node[each] for each in ("contains", "minContains", "maxContains") if each in node}
    if keyword == "additionalProperties":
        if value is not False:
            return None
        named = dict.fromkeys(node.get("properties", {}), True)
        return {
            "properties": named,
            "patternProperties": dict.fromkeys(node.get("patternProperties", {}), True),
            keyword: False,
        }
    return {keyword: value}


def _items(node: Schema, keyword: str, value: Sequence[object]) -> Iterator[tuple[object, object, str]]:
    before = cast("list[object]", node.get("prefixItems", []))
    if keyword == "prefixItems":
        yield from ((each, part, _step(place)) for place, (each, part) in enumerate(zip(before, value, strict=False)))
    else:
        yield from ((node["items"], part, _step(place)) for place, part in enumerate(value) if place >= len(before))


def _step(part: str | int) -> str:
    return "/" + str(part).replace("~", "~0").replace("/", "~1")


def _absolute(schema: object) -> object:
    """A copy whose references can be followed from anywhere."""
    if isinstance(schema, Mapping):
        return {
            key: f"{_BASE}#{part.partition('#')[2]}"
            if key in _REFERENCES and isinstance(part, str)
            else part
            if key in {"const", "enum", "default", "examples"}
            else _absolute(part)
            for key, part in cast("Schema", schema).items()
        }
    if isinstance(schema, list):
        return [_absolute(part) for part in cast("list[object]", schema)]
    return schema


def _refers(schema: object) -> bool:
    """Whether anything in ``schema`` leads out of it."""
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if not _REFERENCES.isdisjoint(cast("Schema", node)):
                return True
            waiting.extend(cast("Schema", node).values())
        elif isinstance(node, list):
            waiting.extend(cast("list[object]", node))
    return False
