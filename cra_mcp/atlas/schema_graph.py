"""What a JSON Schema refers to and what checking against it can cost.

Rule: a schema whose evaluation can run in a circle, or whose references multiply it beyond bounds, never reaches a
validator. The graph's nodes are subschemas; an edge leads to what is applied to the same value, or to a part of it.
Source: JSON Schema 2020-12 (core, sections 8 and 10); specs/atlas.md, "Schemas".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote_to_bytes

from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.atlas.shape import Place

MAX_SUBSCHEMAS = 2_000
MAX_EVALUATIONS = 100_000
"""How many times subschemas may be applied to any one value inside a document."""

MAX_DEPTH = 64

_SAME_ONE = ("not", "if", "then", "else")
_SAME_MANY = ("allOf", "anyOf", "oneOf")
_SAME_MAP = ("dependentSchemas",)
_MEMBER_ONE = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_MEMBER_MAP = ("patternProperties",)
_ITEM_ONE = ("items", "contains", "unevaluatedItems")
_UNUSED_ONE = ("contentSchema",)
_UNUSED_MAP = ("$defs", "definitions")
_REFERENCES = ("$ref", "$dynamicRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")


@dataclass(slots=True)
class Node:
    """A subschema: where it is, what it says, and which nodes it applies.

    Attributes:
        same: applied to the same value.
        members: applied to members of an object, whatever their name.
        named: applied to members of one name each.
        items: applied to items of an array, whatever their index.
        placed: applied to items of one index each.
    """

    at: tuple[str | int, ...]
    schema: Mapping[str, object]
    same: list[int] = field(default_factory=list[int])
    members: list[int] = field(default_factory=list[int])
    named: list[int] = field(default_factory=list[int])
    items: list[int] = field(default_factory=list[int])
    placed: list[int] = field(default_factory=list[int])

    def all(self) -> Iterator[int]:
        """Every node this one applies."""
        yield from self.same
        yield from self.members
        yield from self.named
        yield from self.items
        yield from self.placed


class Graph:
    """The subschemas of one schema and how they apply each other. Tolerates any JSON in place of a schema."""

    def __init__(self, schema: Mapping[str, object]) -> None:
        self.nodes: list[Node] = []
        self.truncated = False
        self.has_references = False
        self._by_pointer: dict[str, int] = {}
        self._by_anchor: dict[str, int] = {}
        self._pending: list[tuple[tuple[str | int, ...], Mapping[str, object], list[int] | None]] = [((), schema, None)]
        while self._pending and not self.truncated:
            self._enter(*self._pending.pop())

    def link(self, place: Place) -> None:
        """Follow references; report those that lead out of the schema or nowhere."""
        for node in self.nodes:
            for keyword in _REFERENCES:
                target = node.schema.get(keyword)
                if isinstance(target, str):
                    self._follow(node, target, place.below(*node.at, keyword))

    def report_circles(self, place: Place) -> bool:
        """Report references that come back to themselves on the same value; such a schema never finishes."""
        found = False
        state = bytearray(len(self.nodes))  # 0 not seen, 1 on the way, 2 done
        for start in range(len(self.nodes)):
            if state[start]:
                continue
            state[start] = 1
            way = [(start, iter(self.nodes[start].same))]
            while way:
                here, onward = way[-1]
                step = next(onward, None)
                if step is None:
                    state[here] = 2
                    way.pop()
                elif state[step] == 1:
                    found = True
                    place.below(*self.nodes[here].at).add("ref_cycle", "the schema applies itself to the same value")
                elif state[step] == 0:
                    state[step] = 1
                    way.append((step, iter(self.nodes[step].same)))
        return found

    def is_within_bounds(self) -> bool:
        """Whether no document can make one value be checked more than ``MAX_EVALUATIONS`` times.

        Where a schema contains itself, a validator remembers what it has checked; only the rest multiplies.
        """
        if not self.has_references:
            return True
        component = _components(self.nodes)
        counts = self._count(lambda one, other: component[one] != component[other], MAX_EVALUATIONS)
        return counts[-1] <= MAX_EVALUATIONS

    def _enter(self, at: tuple[str | int, ...], schema: Mapping[str, object], edges: list[int] | None) -> None:
        if len(self.nodes) >= MAX_SUBSCHEMAS:
            self.truncated = True
            return
        index = len(self.nodes)
        node = Node(at, schema)
        self.nodes.append(node)
        self._by_pointer[pointer(*at)] = index
        if edges is not None:
            edges.append(index)
        for keyword in _ANCHORS:
            name = schema.get(keyword)
            if isinstance(name, str):
                self._by_anchor[name] = index
        self.has_references = self.has_references or any(keyword in schema for keyword in _REFERENCES)
        for keyword, value in schema.items():
            self._enter_keyword(node, keyword, value)

    def _enter_keyword(self, node: Node, keyword: str, value: object) -> None:
        edges = _edges(node, keyword)
        if edges is None:
            return
        at = (*node.at, keyword)
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            if keyword in _MAPS:
                for name, member in members.items():
                    self._push((*at, name), member, edges)
            elif keyword in _ONES:
                self._push(at, members, edges)
        elif isinstance(value, list) and keyword in _MANY:
            for index, item in enumerate(cast("list[object]", value)):
                self._push((*at, index), item, edges)

    def _push(self, at: tuple[str | int, ...], schema: object, edges: list[int]) -> None:
        if isinstance(schema, dict):
            self._pending.append((at, cast("dict[str, object]", schema), edges))
        elif isinstance(schema, bool):
            self._pending.append((at, {}, edges))

    def _follow(self, node: Node, target: str, place: Place) -> None:
        if not target.startswith("#"):
            place.add("remote_ref", "a reference must stay inside the schema: # or #/...")
            return
        index = self._resolve(target[1:])
        if index is None:
            place.add("unresolvable_ref", "the reference leads to no subschema")
        else:
            node.same.append(index)

    def _resolve(self, fragment: str) -> int | None:
        try:
            text = unquote_to_bytes(fragment).decode()
        except UnicodeDecodeError:
            return None
        return self._by_pointer.get(text) if not text or text.startswith("/") else self._by_anchor.get(text)

    def _count(self, follows: Callable[[int, int], bool], limit: int) -> list[int]:
        """The most evaluations of any one value at each depth, until there are none or more than ``limit``."""
        order = _innermost_first(len(self.nodes), lambda index: self.nodes[index].same)
        previous: list[int] | None = None
        counts: list[int] = []
        while len(counts) <= MAX_DEPTH:
            current = [0] * len(self.nodes)
            for index in order:
                current[index] = self._evaluations(index, current, previous, follows)
            counts.append(current[0])
            previous = current
            if current[0] == 0 or current[0] > limit:
                break
        return counts

    def _evaluations(
        self, index: int, current: list[int], previous: list[int] | None, follows: Callable[[int, int], bool]
    ) -> int:
        node = self.nodes[index]
        same = sum(current[to] for to in node.same if follows(index, to))
        if previous is None:
            return 1 + same

        def of_parts(every: list[int], one: list[int]) -> int:
            some = max((previous[to] for to in one if follows(index, to)), default=0)
            return some + sum(previous[to] for to in every if follows(index, to))

        return same + max(of_parts(node.members, node.named), of_parts(node.items, node.placed))


_ONES = frozenset((*_SAME_ONE, *_MEMBER_ONE, *_ITEM_ONE, *_UNUSED_ONE))
_MANY = frozenset((*_SAME_MANY, "prefixItems"))
_MAPS = frozenset((*_SAME_MAP, *_MEMBER_MAP, *_UNUSED_MAP, "properties"))
_FIELDS: Mapping[str, str] = {
    **dict.fromkeys((*_SAME_ONE, *_SAME_MANY, *_SAME_MAP), "same"),
    **dict.fromkeys((*_MEMBER_ONE, *_MEMBER_MAP), "members"),
    **dict.fromkeys(_ITEM_ONE, "items"),
    "properties": "named",
    "prefixItems": "placed",
}


def _edges(node: Node, keyword: str) -> list[int] | None:
    """Where to note what a keyword applies; a list nobody reads for what is only referred to."""
    name = _FIELDS.get(keyword)
    if name is not None:
        return cast("list[int]", getattr(node, name))
    return [] if keyword in _UNUSED_ONE or keyword in _UNUSED_MAP else None


def _innermost_first(count: int, edges: Callable[[int], Iterable[int]]) -> list[int]:
    """All nodes in depth-first post-order: without circles, each comes after those its edges lead to."""
    order: list[int] = []
    seen = bytearray(count)
    for start in range(count):
        if seen[start]:
            continue
        seen[start] = 1
        way = [(start, iter(edges(start)))]
        while way:
            here, onward = way[-1]
            step = next(onward, None)
            if step is None:
                order.append(here)
                way.pop()
            elif not seen[step]:
                seen[step] = 1
                way.append((step, iter(edges(step))))
    return order


def _components(nodes: list[Node]) -> list[int]:
    """A number for each node; two nodes share one if each leads to the other (Kosaraju's algorithm)."""
    backwards: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for to in node.all():
            backwards[to].append(index)
    component = [-1] * len(nodes)
    for start in reversed(_innermost_first(len(nodes), lambda index: nodes[index].all())):
        pending = [start] if component[start] < 0 else []
        while pending:
            here = pending.pop()
            component[here] = start
            pending.extend(to for to in backwards[here] if component[to] < 0)
    return component
