"""Which parts of a value a trace must not show.

Rule: a schema marks a value as sensitive with ``writeOnly: true``, ``format: password`` or ``x-cra-sensitive: true``. Whatever
branch of the schema may describe a value, one mark hides it. The hash of the whole is kept beside the redacted form.
Source: specs/trace.md, "What is recorded".
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

REDACTED = "[redacted]"

Schema = Mapping[str, object]

_BRANCHES = ("allOf", "anyOf", "oneOf")
_CONDITIONALS = ("if", "then", "else", "not")
_ITEMS = ("items", "contains", "unevaluatedItems")
_OTHER_MEMBERS = ("additionalProperties", "unevaluatedProperties")
_MAX_DEPTH = 128


class Redactor:
    """Hides what one schema marks. Made only for schemas that mark something: see :func:`redactor_for`."""

    __slots__ = ("_root",)

    def __init__(self, schema: Schema) -> None:
        self._root = schema

    def apply(self, value: object) -> object:
        """A copy of ``value`` with every sensitive part replaced by ``[redacted]``."""
        return self._apply(value, (self._root,), 0)

    def _apply(self, value: object, schemas: Iterable[object], depth: int) -> object:
        nodes = list(self._expand(schemas))
        if depth > _MAX_DEPTH or any(_is_marked(node) for node in nodes):
            return REDACTED
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            return {key: self._apply(member, _of_member(nodes, key), depth + 1) for key, member in members.items()}
        if isinstance(value, list):
            items = list(_of_items(nodes))
            return [self._apply(item, items, depth + 1) for item in cast("list[object]", value)]
        return value

    def _expand(self, schemas: Iterable[object]) -> Iterator[Schema]:
        """Every subschema that may describe the same value: references and branches followed, each once."""
        waiting = list(schemas)
        seen: set[int] = set()
        while waiting:
            candidate = waiting.pop()
            if not isinstance(candidate, Mapping) or id(cast("object", candidate)) in seen:
                continue
            node = cast("Schema", candidate)
            seen.add(id(node))
            yield node
            references = (node.get("$ref"), node.get("$dynamicRef"))
            waiting.extend(_resolve(reference, self._root) for reference in references if isinstance(reference, str))
            for keyword in _BRANCHES:
                if isinstance(branches := node.get(keyword), list):
                    waiting.extend(cast("list[object]", branches))
            waiting.extend(node.get(keyword) for keyword in _CONDITIONALS)
            if isinstance(dependent := node.get("dependentSchemas"), Mapping):
                waiting.extend(cast("Schema", dependent).values())


def redactor_for(schema: object) -> Redactor | None:
    """What hides the sensitive parts of values of ``schema``; None if it marks nothing (the usual case)."""
    if not isinstance(schema, Mapping):
        return None
    root = cast("Schema", schema)
    return Redactor(root) if _marks_anything(root) else None


def _is_marked(node: Schema) -> bool:
    return node.get("writeOnly") is True or node.get("format") == "password" or node.get("x-cra-sensitive") is True


def _marks_anything(root: Schema) -> bool:
    waiting: list[object] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            members = cast("Schema", node)
            if _is_marked(members):
                return True
            waiting.extend(members.values())
        elif isinstance(node, list):
            waiting.extend(cast("list[object]", node))
    return False


def _of_member(nodes: Iterable[Schema], key: str) -> Iterator[object]:
    for node in nodes:
        properties = node.get("properties")
        if isinstance(properties, Mapping) and key in properties:
            yield properties[key]
        else:
            for keyword in _OTHER_MEMBERS:
                yield node.get(keyword)
        # Which pattern matches which key is not decided here: a mark on any of them hides the member.
        if isinstance(patterns := node.get("patternProperties"), Mapping):
            yield from cast("Schema", patterns).values()


def _of_items(nodes: Iterable[Schema]) -> Iterator[object]:
    for node in nodes:
        for keyword in _ITEMS:
            yield node.get(keyword)
        if isinstance(prefix := node.get("prefixItems"), list):
            yield from cast("list[object]", prefix)


def _resolve(reference: str, root: Schema) -> object:
    """The target of a local reference; None if there is none (the loader has refused such a schema)."""
    node: object = root
    for token in reference.removeprefix("#").split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        node = _child(node, key)
    return node


def _child(node: object, key: str) -> object:
    if isinstance(node, dict):
        return cast("dict[str, object]", node).get(key)
    if isinstance(node, list) and key.isdigit():
        items = cast("list[object]", node)
        return items[int(key)] if int(key) < len(items) else None
    return None
