"""Schemas of an OpenAPI document as JSON Schemas that stand alone.

Rule: what is referred to comes along as ``$defs``; what only describes (examples, XML, discriminators) is left out, and
so is every extension: none of a foreign document may speak for an atlas. The result passes the loader's own checks.
Source: JSON Schema 2020-12; OpenAPI 3.0.4, 4.7.24 (the Schema Object, where it differs) and 3.1.1, 4.8.24.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, cast

from cra_mcp.atlas.json_schema import check_schema
from cra_mcp.atlas.openapi_document import Document, Located, UnconvertibleError
from cra_mcp.atlas.shape import Place
from cra_mcp.canonical import MAX_INTEGER
from cra_mcp.errors import Problem

Use = Literal["request", "response"]

_ONE = frozenset(
    "items additionalProperties not if then else contains propertyNames unevaluatedItems unevaluatedProperties".split()  # noqa: SIM905
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})
_KEPT = frozenset(
    "type enum const title description default format deprecated readOnly writeOnly multipleOf maximum exclusiveMaximum "  # noqa: SIM905
    "minimum exclusiveMinimum maxLength minLength pattern maxItems minItems uniqueItems maxContains minContains "
    "maxProperties minProperties required dependentRequired contentEncoding contentMediaType".split()
)
_REFUSED = frozenset({"$id", "$dynamicRef", "$recursiveRef", "$schema"})
_HIDDEN: Mapping[Use, str] = {"request": "readOnly", "response": "writeOnly"}
_MAX_NODES = 5_000
_BEYOND_DOUBLES = 1 << 1023
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class SchemaWriter:
    """Writes one schema with everything it refers to.

    Args:
        document: where the schemas stand.
        use: ``request`` leaves out what is ``readOnly``, ``response`` what is ``writeOnly``.
    """

    def __init__(self, document: Document, use: Use) -> None:
        self._document = document
        self._hidden = _HIDDEN[use]
        self._names: dict[str, str] = {}
        self._waiting: list[Located] = []
        self._count = 0

    def write(self, part: Located) -> object:
        """One schema. What it refers to is in :meth:`definitions` afterwards.

        Raises:
            UnconvertibleError: a reference can't be followed, or something has no place in JSON Schema 2020-12.
        """
        self._count += 1
        if self._count > _MAX_NODES:
            raise UnconvertibleError(part.at, f"a schema of more than {_MAX_NODES} parts")
        if isinstance(part.value, bool):
            return part.value
        if not isinstance(part.value, dict):
            raise UnconvertibleError(part.at, "a schema must be an object")
        written: dict[str, object] = {}
        for keyword in part.members():
            self._write_keyword(part, keyword, written)
        if self._document.is_3_0:
            _update_3_0(part.members(), written)
        self._hide(part, written)
        return written

    def definitions(self) -> dict[str, object]:
        """Everything that was referred to, by name.

        Raises:
            UnconvertibleError: as :meth:`write`.
        """
        written: dict[str, object] = {}
        while self._waiting:
            part = self._waiting.pop()
            written[self._names[part.at]] = self.write(part)
        return dict(sorted(written.items()))

    def _write_keyword(self, part: Located, keyword: str, written: dict[str, object]) -> None:
        inner = part.get(keyword)
        if keyword == "$ref":
            if self._document.is_3_0:
                written.clear()
            written["$ref"] = self._reference(inner)
        elif self._document.is_3_0 and "$ref" in part.members():
            pass  # 3.0 has nothing beside a reference
        elif keyword in _REFUSED:
            raise UnconvertibleError(inner.at, f"{keyword} changes how a schema is read")
        elif keyword in _ONE:
            written[keyword] = self.write(inner)
        elif keyword in _MANY:
            written[keyword] = [self.write(item) for item in inner.items()]
        elif keyword in _BY_NAME:
            written[keyword] = {name: self.write(inner.get(name)) for name in inner.members()}
        elif keyword in _KEPT:
            written[keyword] = plain(inner.value)

    def _reference(self, part: Located) -> str:
        if not isinstance(part.value, str):
            raise UnconvertibleError(part.at, "a reference must be a text")
        found = self._document.target(part.value, part.at)
        name = self._names.get(found.at)
        if name is None:
            stem = _NOT_IN_A_NAME.sub("_", found.at.rpartition("/")[2])[:64] or "root"
            name, number = stem, 1
            while name in self._names.values():
                number += 1
                name = f"{stem}_{number}"
            self._names[found.at] = name
            self._waiting.append(found)
        return f"#/$defs/{name}"

    def _hide(self, part: Located, written: dict[str, object]) -> None:
        """Leave out members that never go in this direction."""
        members = written.get("properties")
        if not isinstance(members, dict):
            return
        known = cast("dict[str, object]", members)
        hidden = {name for name in known if self._is_hidden(part.get("properties", name))}
        if not hidden:
            return
        written["properties"] = {name: member for name, member in known.items() if name not in hidden}
        required = written.get("required")
        if isinstance(required, list):
            written["required"] = [name for name in cast("list[object]", required) if name not in hidden]

    def _is_hidden(self, part: Located) -> bool:
        try:
            return part.get(self._hidden).value is True or self._document.resolved(part).get(self._hidden).value is True
        except UnconvertibleError:
            return False  # said where the reference is written


def plain(value: object) -> object:
    """A value as an atlas can hold it: integers beyond 2^53 as doubles, texts without characters that steer a terminal."""
    match value:
        case int() if abs(value) > MAX_INTEGER:
            return float(value) if abs(value) < _BEYOND_DOUBLES else None
        case str():
            return readable(value)
        case list():
            return [plain(item) for item in cast("list[object]", value)]
        case dict():
            return {name: plain(member) for name, member in cast("dict[str, object]", value).items()}
        case _:
            return value


def readable(text: str) -> str:
    """A text without control characters and characters that reorder text; line ends are kept."""
    return _UNREADABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).encode("utf-8", "replace").decode()


def checked(schema: dict[str, object], document: Document, at: str, *, object_root: bool = False) -> dict[str, object]:
    """A schema that the loader accepts: patterns it doesn't are taken out, and said.

    Raises:
        UnconvertibleError: something else is wrong with it.
    """
    found = _problems(schema, object_root=object_root)
    for problem in found:
        if problem.code == "invalid_pattern":
            _take_out(schema, problem.pointer)
            document.note(at, f"a pattern that can't be matched in linear time was taken out (at {problem.pointer})")
    remaining = _problems(schema, object_root=object_root) if found else []
    if remaining:
        raise UnconvertibleError(at, f"the schema can't be used: {remaining[0].pointer}: {remaining[0].message}")
    return schema


def _problems(schema: dict[str, object], *, object_root: bool) -> list[Problem]:
    place = Place("", "", [])
    check_schema(schema, place, object_root=object_root)
    return place.problems


def _take_out(schema: dict[str, object], at: str) -> None:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in at.split("/")[1:]]
    value: object = schema
    for step in steps[:-1]:
        value = Located(value, "").get(int(step) if isinstance(value, list) else step).value
    if isinstance(value, dict):
        cast("dict[str, object]", value).pop(steps[-1], None)


def _update_3_0(old: Mapping[str, object], written: dict[str, object]) -> None:
    """What OpenAPI 3.0 says in its own way."""
    if old.get("nullable") is True and isinstance(written.get("type"), str):
        written["type"] = [written["type"], "null"]
        values = written.get("enum")
        if isinstance(values, list) and None not in cast("list[object]", values):
            written["enum"] = [*cast("list[object]", values), None]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        flag = written.get(exclusive)
        if isinstance(flag, bool):
            del written[exclusive]
            if flag and bound in written:
                written[exclusive] = written.pop(bound)


def types_of(document: Document, part: Located) -> frozenset[str]:
    """The JSON types a schema says itself, references followed; none if it doesn't say.

    Raises:
        UnconvertibleError: a reference can't be followed.
    """
    schema = document.resolved(part)
    kind = schema.get("type").value
    if kind is None and isinstance(schema.get("enum").value, list):
        kinds: Iterator[object] = (_type_name(item.value) for item in schema.get("enum").items())
    else:
        kinds = iter(cast("list[object]", kind) if isinstance(kind, list) else [kind])
    return frozenset(name for name in kinds if isinstance(name, str)) - {"null"}


def _type_name(value: object) -> str:
    match value:
        case str():
            return "string"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case None:
            return "null"
        case _:
            return "array" if isinstance(value, list) else "object"
