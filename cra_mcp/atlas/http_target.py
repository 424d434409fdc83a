"""The target of a request: a URL template whose parts are known, and what its values may not do.

Rule: no value leaves its place. The origin is literal; a value in the path makes no dot segment, no empty segment and,
where its schema doesn't allow it, no further segment, even for a server that decodes what is encoded; a value in the
query makes no further field. Pure.
Source: RFC 3986, 3.3, 3.4 and 5.2.4; RFC 6570; specs/atlas.md, "Executor: http".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast
from urllib.parse import quote, unquote_to_bytes

from cra_mcp.atlas.origin import OriginError, split_url
from cra_mcp.atlas.placeholders import scalar_text
from cra_mcp.atlas.uri_template import Expression, Part, UriTemplateError, Variable, parse_template

ALLOW_SLASH = "x-cra-allow-slash"
"""Mark of a parameter's schema: its value may hold slashes, which a template that isn't ``{+name}`` then encodes."""

MAX_TARGET = 16_384
_MAX_DECODINGS = 8
_IN_PATH = ("", "+", ".", "/", ";")
_MANY = ("+", "/")
"""Operators that say in the template itself that more than one segment may come of a value."""

_ALWAYS = ("", "+")
"""Operators whose place in the path would be empty without a value."""

_IN_QUERY = ("", "&")
_SLASHES = re.compile(r"[/\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class TargetError(ValueError):
    """A template that can't be used, or a value that would leave its place. The message shows no values."""


class TargetTemplate:
    """A parsed URL template.

    Args:
        url: RFC 6570 template that begins with a literal origin.

    Attributes:
        origin: where requests go, whatever the values.
        variables: names of all parameters it takes.
        required: names of those without which there is no target.

    Raises:
        TargetError: an operator stands where it can't, or the literal part is no plain path and query.
    """

    def __init__(self, url: str) -> None:
        try:
            self.origin, rest = split_url(url)
            self._path, self._query = _split(parse_template(rest))
        except (OriginError, UriTemplateError) as error:
            raise TargetError(str(error)) from error
        _check_literal_path(self._path)
        self.variables = frozenset(variable.name for variable in _variables((*self._path, *self._query)))
        self.required = frozenset(
            variable.name
            for part in self._path
            if isinstance(part, Expression) and part.operator in _ALWAYS
            for variable in part.variables
        )

    def expand(
        self,
        values: Mapping[str, object],
        fields: Sequence[tuple[str, str]] = (),
        slashes: frozenset[str] = frozenset(),
    ) -> str:
        """Path and query in the form of a request line: ASCII, beginning with ``/``.

        Args:
            values: by name; a missing one and null are the same.
            fields: further names and texts of the query.
            slashes: names of the values that may hold slashes.

        Raises:
            TargetError: a value has no place in it, or would leave it.
        """
        try:
            path = "".join(_in_path(part, values, slashes) for part in self._path) or "/"
            query = "".join(_in_query(part, values) for part in self._query)
            encoded = "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in fields)
        except UriTemplateError as error:
            raise TargetError(str(error)) from error
        except UnicodeEncodeError:
            raise TargetError("a text holds a lone surrogate") from None
        _check_path(path)
        query = "&".join(part for part in (query.removeprefix("?").strip("&"), encoded) if part)
        target = f"{path}?{query}" if query else path
        if len(target) > MAX_TARGET:
            raise TargetError(f"the URL would have more than {MAX_TARGET} characters")
        return target


def _split(parts: Sequence[Part]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """The parts of the path and those of the query, whose first begins with ``?`` or is a ``{?...}``."""
    path: list[Part] = []
    query: list[Part] = []
    for part in parts:
        if isinstance(part, Expression):
            _place(part, path, query)
        elif query:
            query.append(part)
        else:
            before, mark, after = part.partition("?")
            path.extend([before] if before else [])
            query.extend([mark + after] if mark else [])
    for part in (*path, *query):
        if isinstance(part, str) and "#" in part:
            raise TargetError("a fragment is never sent")
    return tuple(path), tuple(query)


def _place(part: Expression, path: list[Part], query: list[Part]) -> None:
    if query:
        if part.operator not in _IN_QUERY:
            raise TargetError(f"{{{part.operator}...}} has no place in a query: use {{&...}}")
        query.append(part)
    elif part.operator == "?":
        query.append(part)
    elif part.operator in _IN_PATH:
        path.append(part)
    else:
        raise TargetError(f"{{{part.operator}...}} has no place in a path")


def _variables(parts: Sequence[Part]) -> Iterator[Variable]:
    for part in parts:
        if isinstance(part, Expression):
            yield from part.variables


def _check_literal_path(parts: Sequence[Part]) -> None:
    # A letter stands for what values become, which is checked when they are known.
    _check_path("".join(part if isinstance(part, str) else _sample(part) for part in parts) or "/")


def _sample(part: Expression) -> str:
    return f"{part.operator}v" if part.operator in (".", "/", ";") else "v"


def _in_path(part: Part, values: Mapping[str, object], slashes: frozenset[str]) -> str:
    if isinstance(part, str):
        return part
    for variable in part.variables:
        _check_value(variable, values.get(variable.name), part.operator, slashes)
    text = part.expand(values)
    if "?" in text or "#" in text:
        raise TargetError("a value in the path would begin a query or a fragment")
    return text


def _check_value(variable: Variable, value: object, operator: str, slashes: frozenset[str]) -> None:
    texts = _texts(variable, value)
    if (not texts and operator in _ALWAYS) or "" in texts:
        raise TargetError(f'"{variable.name}" stands in the path, so it can\'t be empty')
    if operator in _MANY or variable.name in slashes:
        return
    if any(_SLASHES.search(_decoded(text)) for text in texts):
        raise TargetError(f'"{variable.name}" holds a slash, which could make it more than one part of the path')


def _texts(variable: Variable, value: object) -> list[str]:
    """Every text a value holds."""
    if isinstance(value, dict):
        if variable.explode:
            raise TargetError(f'"{variable.name}" is an object, whose keys would become names in the URL')
        members = cast("dict[str, object]", value)
        return [str(part) for pair in members.items() for part in pair if part is not None]
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return [scalar_text(item) or "" for item in items if item is not None]


def _in_query(part: Part, values: Mapping[str, object]) -> str:
    if isinstance(part, str):
        return part
    for variable in part.variables:
        _texts(variable, values.get(variable.name))
    return part.expand(values)


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise TargetError("the path must begin with /")
    if "//" in path:
        raise TargetError("a part of the path would be empty")
    text = _decoded(path)
    if _CONTROL.search(text):
        raise TargetError("a value in the path holds a control character")
    if any(segment.partition(";")[0].strip(" ") in (".", "..") for segment in _SLASHES.split(text)):
        raise TargetError("a part of the path would be . or .., which leads elsewhere")


def _decoded(text: str) -> str:
    """A text as a server sees it that decodes until nothing is left to decode."""
    for _ in range(_MAX_DECODINGS):
        try:
            plain = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise TargetError("what is percent-encoded in the path is not UTF-8") from None
        except UnicodeEncodeError:
            raise TargetError("a text holds a lone surrogate") from None
        if plain == text:
            return plain
        text = plain
    raise TargetError("a value in the path is percent-encoded many times over")
