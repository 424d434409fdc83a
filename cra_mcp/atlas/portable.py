"""Schemas as every host can take them.

Rule: what is published is never stricter than what is accepted: the schema itself is checked when the call arrives. One schema that
a host can't take may hide every tool of a server, so only keywords that hosts agree about are published. Draft-07 and 2020-12 read
the result alike. Source: specs/mcp.md, "Published schemas".
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from cra_mcp.atlas.ecma import to_ecma
from cra_mcp.atlas.exactness import INHERITED, SAFE_FORMATS, Exactness
from cra_mcp.atlas.joining import ANNOTATIONS, joined
from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.atlas.references import resolve
from cra_mcp.canonical import MAX_INTEGER

MAX_INLINED_BYTES: Final = 16_384
"""References are written out up to this size; hosts that don't follow references see all of such a schema."""

MAX_PUBLISHED_BYTES: Final = 65_536
"""Size of one published schema. A larger one is abridged, or, of results, left out."""

PROPERTY_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""Names of parameters that all model vendors take."""

Role = Literal["parameters", "returns"]

_Json = Mapping[str, object]

_COMBINATORS = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_AS_IT_IS = ANNOTATIONS | {
    *("type", "const", "enum", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "uniqueItems"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("contentEncoding", "contentMediaType"),
}
_NOTED = {"pattern": "Must match: {}", "format": "Format: {}.", "multipleOf": "A multiple of {}."}
_LEFT_OUT = (
    *("dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"),
    *("minContains", "maxContains"),
)
_MAX_DEPTH = 24
_MAX_NODES = 4_000
_MAX_OUTLINED_TEXT = 200


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that hosts are told otherwise, or not at all.

    Attributes:
        pointer: RFC 6901, into the schema.
        what: for people.
        is_same: it means the same to them.
    """

    pointer: str
    what: str
    is_same: bool = False


@dataclass(frozen=True, slots=True)
class Portable:
    """A schema for hosts. ``schema`` is None where there is none to publish."""

    schema: Mapping[str, Any] | None
    changes: tuple[Change, ...] = ()


class _TooLargeError(Exception):
    """This form of the schema has no end, or none within bounds."""


def portable(schema: Mapping[str, object], role: Role) -> Portable:
    """What hosts get for a schema that the loader has accepted: the first form of it that is small enough.

    References written out; references to ``$defs``; for parameters an outline of the properties, or only that it is an object.
    """
    for inline, limit in ((True, MAX_INLINED_BYTES), (False, MAX_PUBLISHED_BYTES)):
        writer = _Writer(schema, role, inline=inline, limit=limit)
        try:
            body = writer.root()
        except _TooLargeError:
            continue
        if _size(body) <= limit:
            return Portable(body, tuple(writer.changes.values()))
    if role == "returns":
        return Portable(None, (Change("", "is too large for hosts: it is not published"),))
    return _outlined(schema)


def reshaped(schema: Mapping[str, object]) -> dict[str, Any]:
    """A schema to be listed as it is written: only boolean schemas of properties, which hide all tools, in another form."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return dict(schema)
    known = cast("dict[str, object]", properties)
    return {**schema, "properties": {name: _no_boolean(each) for name, each in known.items()}}


def _no_boolean(schema: object) -> object:
    return ({} if schema else {"not": {}}) if isinstance(schema, bool) else schema


def _size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"))


def _outlined(schema: Mapping[str, object]) -> Portable:
    """The names, types and shortened descriptions of the properties; without them if even those are too many."""
    note = "Abridged: the whole schema is too large for hosts. Calls are checked against all of it."
    properties: dict[str, Any] = {}
    for name, each in cast("Mapping[str, object]", schema.get("properties", {})).items():
        if name not in INHERITED:
            properties[name] = _outline(cast("_Json", each)) if isinstance(each, dict) else {}
    required = [name for name in cast("list[str]", schema.get("required", ())) if name in properties]
    body: dict[str, Any] = {"type": "object", "description": note, "properties": properties}
    _without_refused(body)
    body["required"] = [name for name in required if name in body["properties"]]
    if _size(body) > MAX_PUBLISHED_BYTES:
        body = {"type": "object", "description": note, "properties": {}}
        return Portable(body, (Change("", "is too large for hosts: they are told only that it is an object"),))
    return Portable(body, (Change("", "is too large for hosts: they are told the names and types of its properties"),))


def _outline(schema: _Json) -> dict[str, Any]:
    outline = {key: schema[key] for key in ("type",) if key in schema}
    text = schema.get("description")
    return outline | ({"description": text[:_MAX_OUTLINED_TEXT]} if isinstance(text, str) else {})


def _without_refused(body: dict[str, Any]) -> None:
    """Take out properties whose names a model vendor refuses, and all tools of all servers with them."""
    refused = [name for name in body["properties"] if PROPERTY_NAME.fullmatch(name) is None]
    if refused:
        body["properties"] = {name: each for name, each in body["properties"].items() if name not in refused}
        body.pop("additionalProperties", None)
        _also_takes(body, refused)


def _also_takes(body: dict[str, Any], names: Sequence[str]) -> None:
    if names:
        described = [body["description"]] if body.get("description") else []
        body["description"] = "\n".join([*described, f"Also takes {', '.join(json.dumps(name) for name in names)}."])


class _Writer:
    """Writes one form of a schema. Changes are kept once a place."""

    def __init__(self, schema: Mapping[str, object], role: Role, *, inline: bool, limit: int) -> None:
        self.changes: dict[str, Change] = {}
        self._schema = schema
        self._role = role
        self._inline = inline
        self._left = limit * 2
        self._nodes = 0
        self._exactness = Exactness(schema)
        self._defs: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._pending: list[tuple[str, tuple[str | int, ...], Mapping[str, object]]] = []

    def root(self) -> dict[str, Any]:
        """The whole schema."""
        body = self._node(self._schema, (), (), 0, at_root=True)
        if self._role == "parameters":
            for keyword in _COMBINATORS:
                if keyword in body:
                    del body[keyword]
                    self._changed((keyword,), "hosts are not told of it")
            body["type"] = "object"
            body.setdefault("properties", {})
            _without_refused(body)
        required = body.get("required")
        if isinstance(required, list) and body.get("type") == "object":
            # A host that sees a required name without a property drops the tool.
            known = body.get("properties", {})
            body["required"] = [name for name in cast("list[str]", required) if name in known]
        while self._pending:
            name, where, target = self._pending.pop()
            self._defs[name] = self._node(target, where, (), 0)
        if self._defs:
            body["$defs"] = self._defs
        return body

    def _changed(self, at: tuple[str | int, ...], what: str, *, is_same: bool = False) -> None:
        self.changes.setdefault(pointer(*at), Change(pointer(*at), what, is_same))

    def _any(self, schema: object, at: tuple[str | int, ...], opened: tuple[str, ...], depth: int) -> dict[str, Any]:
        if isinstance(schema, Mapping):
            return self._node(cast("Mapping[str, object]", schema), at, opened, depth)
        return {"not": {}} if schema is False else {}

    def _node(
        self,
        node: Mapping[str, object],
        at: tuple[str | int, ...],
        opened: tuple[str, ...],
        depth: int,
        *,
        at_root: bool = False,
    ) -> dict[str, Any]:
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise _TooLargeError
        if node.get("enum") == []:
            return {"not": {}}

        def inner(schema: object, *below: str | int) -> dict[str, Any]:
            return self._any(schema, (*at, *below), opened, depth + 1)

        plain = {key: value for key, value in node.items() if key in _AS_IT_IS}
        self._left -= _size(plain)
        if self._left < 0:
            raise _TooLargeError
        result: dict[str, Any] = dict(plain)
        self._numbers(node, result, at)
        self._noted(node, result, at)
        self._object(node, result, inner, at)
        self._array(node, result, inner, at)
        self._combined(node, result, inner, at)
        for keyword in _LEFT_OUT:
            if keyword in node:
                self._changed((*at, keyword), "hosts are not told of it")
        reference = node.get("$ref", node.get("$dynamicRef"))
        if isinstance(reference, str):
            return self._referred(reference, result, at, opened, depth, at_root=at_root)
        return result

    def _numbers(self, node: Mapping[str, object], result: dict[str, Any], at: tuple[str | int, ...]) -> None:
        """Beyond 2^53 a program with floating-point numbers excludes what stands next to the bound."""
        for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            bound = node.get(keyword)
            if isinstance(bound, int | float) and abs(bound) > MAX_INTEGER:
                del result[keyword]
                self._changed((*at, keyword), "hosts are not told of it: they can't compare such numbers exactly")
        if self._role == "returns" and result.pop("uniqueItems", None):
            self._changed((*at, "uniqueItems"), "hosts are not told of it: they can't compare large numbers exactly")

    def _noted(self, node: Mapping[str, object], result: dict[str, Any], at: tuple[str | int, ...]) -> None:
        notes: list[str] = []
        for keyword, note in _NOTED.items():
            value = node.get(keyword)
            if value is None:
                continue
            text = to_ecma(value) if keyword == "pattern" and isinstance(value, str) else None
            if text is not None:
                result[keyword] = text
                if text != value:
                    self._changed((*at, keyword), f"is published as {text}", is_same=True)
            elif keyword == "format" and value in SAFE_FORMATS:
                result[keyword] = value
            else:
                notes.append(note.format(value))
                self._changed((*at, keyword), "is published as a note in the description: hosts differ about it")
        if notes:
            described = result.get("description")
            parts = [described.strip()] if isinstance(described, str) and described.strip() else []
            result["description"] = "\n".join([*parts, *notes])

    def _object(
        self,
        node: Mapping[str, object],
        result: dict[str, Any],
        inner: Callable[..., dict[str, Any]],
        at: tuple[str | int, ...],
    ) -> None:
        is_open = False
        properties = node.get("properties")
        if isinstance(properties, Mapping):
            known = cast("Mapping[str, object]", properties)
            result["properties"] = {
                name: inner(each, "properties", name) for name, each in known.items() if name not in INHERITED
            }
            hidden = sorted(INHERITED & known.keys())
            is_open = bool(hidden)
            _also_takes(result, hidden)
            for name in hidden:
                what = "is published as a note in the description: hosts find the name in every object"
                self._changed((*at, "properties", name), what)
        patterns = node.get("patternProperties")
        if isinstance(patterns, Mapping):
            kept: dict[str, Any] = {}
            for pattern, each in cast("Mapping[str, object]", patterns).items():
                text = to_ecma(pattern)
                if text is None or text in kept:
                    is_open = True
                    self._changed(
                        (*at, "patternProperties", pattern), "hosts are not told of it: they differ about patterns"
                    )
                else:
                    kept[text] = inner(each, "patternProperties", pattern)
            result["patternProperties"] = kept
        names = node.get("propertyNames")
        if names is not None:
            result["propertyNames"] = inner(names, "propertyNames")
        others = node.get("additionalProperties")
        if others is not None and not is_open:
            result["additionalProperties"] = (
                others if isinstance(others, bool) else inner(others, "additionalProperties")
            )

    def _array(
        self,
        node: Mapping[str, object],
        result: dict[str, Any],
        inner: Callable[..., dict[str, Any]],
        at: tuple[str | int, ...],
    ) -> None:
        first, items = node.get("prefixItems"), node.get("items")
        if isinstance(first, list):
            each_first = cast("list[object]", first)
            result["prefixItems"] = [inner(each, "prefixItems", index) for index, each in enumerate(each_first)]
            if items is False:
                result["maxItems"] = min(len(each_first), result.get("maxItems", len(each_first)))
            elif items not in (None, True):
                # To a reader of draft-07 these are all items, the first ones included.
                self._changed((*at, "items"), "hosts are not told of it: older ones would take it for all items")
        elif items is not None:
            result["items"] = inner(items, "items")
        if "contains" in node and node.get("minContains") != 0:
            result["contains"] = inner(node["contains"], "contains")

    def _combined(
        self,
        node: Mapping[str, object],
        result: dict[str, Any],
        inner: Callable[..., dict[str, Any]],
        at: tuple[str | int, ...],
    ) -> None:
        for written_as in ("allOf", "anyOf", "oneOf"):
            keyword = written_as
            branches = cast("list[object]", node.get(keyword, ()))
            written = [inner(each, keyword, index) for index, each in enumerate(branches)]
            if keyword == "oneOf" and not all(self._exactness.of(each) for each in branches):
                self._changed((*at, "oneOf"), "is published as anyOf: what hosts are told of its branches is looser")
                if "anyOf" in node:
                    result["allOf"] = [*result.get("allOf", ()), {"anyOf": written}]
                    continue
                keyword = "anyOf"
            if branches:
                result[keyword] = written
        if "not" in node:
            if self._exactness.of(node["not"]):
                result["not"] = inner(node["not"], "not")
            else:
                self._changed((*at, "not"), "hosts are not told of it: they would refuse too much")
        if "if" in node:
            if self._exactness.of(node["if"]):
                result |= {each: inner(node[each], each) for each in ("if", "then", "else") if each in node}
            else:
                self._changed((*at, "if"), "hosts are not told of it: they would refuse too much")

    def _referred(
        self,
        reference: str,
        siblings: dict[str, Any],
        at: tuple[str | int, ...],
        opened: tuple[str, ...],
        depth: int,
        *,
        at_root: bool,
    ) -> dict[str, Any]:
        """What a reference and the keywords beside it say together."""
        found = resolve(reference, self._schema)
        if found is None or isinstance(found[1], bool):
            return siblings if found is None or found[1] else {"not": {}}
        where, target = found[0], found[1]
        if not self._inline and not at_root:
            return {"$ref": self._defined(pointer(*where), where, target), **siblings}
        if pointer(*where) in opened or (not where and not at_root):
            # A recursive shape has no finite expansion: anything goes here, and the full schema decides.
            self._changed(at, "is recursive: hosts are told that anything goes here")
            return siblings
        body = self._node(target, where, (*opened, pointer(*where)), depth + 1, at_root=at_root)
        return joined(body, siblings)

    def _defined(self, key: str, where: tuple[str | int, ...], target: Mapping[str, object]) -> str:
        name = self._names.get(key)
        if name is None:
            wanted = str(where[-1]) if where else "root"
            wanted = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in wanted)
            name = next(each for each in _numbered(wanted) if each not in self._defs)
            self._names[key] = name
            self._defs[name] = {}
            self._pending.append((name, where, target))
        return f"#/$defs/{name}"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1
