"""YAML 1.2 texts as JSON values.

Rule: what JSON has no value for is refused where it stands, never guessed: other tags, merge keys, keys that are no
scalars, duplicate keys, infinities. Aliases count as what they stand for, so that a small text can't become a large value.
Source: YAML 1.2.2, 10.3 (core schema).

Imports ``ruamel.yaml``, for its parser: loaded when the first YAML text is read.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

MAX_VALUES = 500_000
MAX_DEPTH = 64

_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BASES = {"0o": 8, "0x": 16}


class YamlTextError(ValueError):
    """Not YAML that stands for one JSON value. The message says line and column."""


@dataclass(slots=True)
class _Open:
    """A mapping or sequence under way; ``size`` is how many values it has, ``height`` how many levels."""

    value: dict[str, object] | list[object]
    anchor: str | None
    size: int = 1
    height: int = 1
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Done:
    """A finished value."""

    value: object
    size: int = 1
    height: int = 0


def parse_yaml(data: bytes) -> object:
    """The JSON value of one YAML document.

    Raises:
        YamlTextError: it is not one, has more than ``MAX_VALUES`` values, or is nested deeper than ``MAX_DEPTH``.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlTextError(f"not UTF-8: bad byte at offset {error.start}") from error
    try:
        return _Composer().compose(YAML(typ="safe", pure=True).parse(text))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    except MarkedYAMLError as error:
        mark = cast("Any", error.problem_mark or error.context_mark)
        where = f"line {mark.line + 1} column {mark.column + 1}: " if mark is not None else ""
        raise YamlTextError(f"{where}not YAML") from error
    except (YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, YamlTextError):
            raise
        raise YamlTextError("not YAML: a character or a directive that YAML does not have") from error


class _Composer:
    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, _Done] = {}
        self._count = 0
        self._documents = 0
        self._result: object = None

    def compose(self, events: Iterator[Any]) -> object:
        """The value that a stream of events describes."""
        for event in events:
            match type(event).__name__:
                case "DocumentStartEvent":
                    self._documents += 1
                    if self._documents > 1:
                        raise _fault(event, "there is a second document")
                case "ScalarEvent":
                    self._scalar(event)
                case "AliasEvent":
                    self._alias(event)
                case "MappingStartEvent":
                    self._begin(event, {})
                case "SequenceStartEvent":
                    self._begin(event, [])
                case "MappingEndEvent" | "SequenceEndEvent":
                    done = self._open.pop()
                    self._put(event, _Done(done.value, done.size, done.height), done.anchor)
                case _:
                    pass
        return self._result

    def _begin(self, event: Any, value: dict[str, object] | list[object]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _fault(event, f"nested deeper than {MAX_DEPTH}")
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise _fault(event, "a key must be a text")
        _check_tag(event)
        self._open.append(_Open(value, event.anchor))

    def _scalar(self, event: Any) -> None:
        _check_tag(event)
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            top.key = self._key(event, top.value)
            return
        self._put(event, _Done(_value(event)), event.anchor)

    def _key(self, event: Any, known: dict[str, object]) -> str:
        key = str(event.value)
        if key == "<<" and event.style is None:
            raise _fault(event, "YAML 1.2 has no merge keys: write the members out")
        if key in known:
            raise _fault(event, "the same key stands here twice")
        return key

    def _alias(self, event: Any) -> None:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise _fault(event, "an alias of what is not complete or not there")
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise _fault(event, "a key must be a text")
        self._count += found.size - 1
        if len(self._open) + found.height > MAX_DEPTH:
            raise _fault(event, f"nested deeper than {MAX_DEPTH}")
        self._put(event, found, None)

    def _put(self, event: Any, done: _Done, anchor: str | None) -> None:
        """Give a finished value to what it is in."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise _fault(event, f"more than {MAX_VALUES} values")
        if anchor is not None:
            self._anchors[anchor] = done
        if not self._open:
            self._result = done.value
            return
        top = self._open[-1]
        top.size += done.size
        top.height = max(top.height, done.height + 1)
        if isinstance(top.value, dict):
            top.value[top.key or ""] = done.value
            top.key = None
        else:
            top.value.append(done.value)


def _check_tag(event: Any) -> None:
    tag = str(event.tag) if event.tag else ""
    if tag and tag not in _TAGS and tag != "!":
        raise _fault(event, "a tag that JSON has no value for")


def _value(event: Any) -> object:
    text = str(event.value)
    tag = str(event.tag).rpartition(":")[2] if event.tag else ""
    if tag in ("str", "!") or (event.style is not None and not tag):
        return text
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    try:
        return _number(event, text)
    except (ValueError, OverflowError) as error:
        if isinstance(error, YamlTextError):
            raise
        raise _fault(event, "a number beyond bounds") from error


def _number(event: Any, text: str) -> object:
    if _INTEGER.fullmatch(text):
        return int(text[2:], _BASES[text[:2]]) if text[:2] in _BASES else int(text)
    if _NOT_FINITE.fullmatch(text):
        raise _fault(event, "JSON has no infinity and no NaN")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise _fault(event, "a number beyond bounds")
        return number
    return text


def _fault(event: Any, message: str) -> YamlTextError:
    mark = event.start_mark
    return YamlTextError(f"line {mark.line + 1} column {mark.column + 1}: {message}")
