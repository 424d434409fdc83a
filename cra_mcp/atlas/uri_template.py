"""URI templates: all four levels of RFC 6570.

Rule: a template that is not well formed is refused, never read as text; what a value becomes is ASCII, and without a ``+``
or ``#`` operator holds none of the characters that structure a URI. Pure.
Source: RFC 6570; errata 6937 (a prefix counts characters, not bytes).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

from cra_mcp.atlas.placeholders import scalar_text

MAX_LENGTH = 8_192
MAX_PREFIX = 9_999

Scalar = str | int | float | bool
_RESERVED = ":/?#[]@!$&'()*+,;="
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
# RFC 6570, 2.1: controls, space, quotes, < > \ ^ ` { | } and a lone % are no literals; here all of them are ASCII.
_LITERALS = re.compile(r"(?:[!#$&()*+,./0-9:;=?@A-Z\[\]_a-z~'-]|%[0-9A-Fa-f]{2})*")
_NAME = re.compile(r"(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+(?:\.(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+)*")
_PERCENT_ENCODED = re.compile(r"(%[0-9A-Fa-f]{2})")


class UriTemplateError(ValueError):
    """A template is not well formed, or a value has no place in one. The message shows no values."""


@dataclass(frozen=True, slots=True)
class _Style:
    """How an operator writes its variables (RFC 6570, appendix A)."""

    first: str
    separator: str
    named: bool
    if_empty: str
    reserved: bool


_STYLES: Mapping[str, _Style] = {
    "": _Style("", ",", named=False, if_empty="", reserved=False),
    "+": _Style("", ",", named=False, if_empty="", reserved=True),
    "#": _Style("#", ",", named=False, if_empty="", reserved=True),
    ".": _Style(".", ".", named=False, if_empty="", reserved=False),
    "/": _Style("/", "/", named=False, if_empty="", reserved=False),
    ";": _Style(";", ";", named=True, if_empty="", reserved=False),
    "?": _Style("?", "&", named=True, if_empty="=", reserved=False),
    "&": _Style("&", "&", named=True, if_empty="=", reserved=False),
}


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of an expression; ``prefix`` is how many characters of it are used (0: all)."""

    name: str
    explode: bool = False
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Expression:
    """What stands between braces."""

    operator: str
    variables: tuple[Variable, ...]

    def expand(self, values: Mapping[str, object]) -> str:
        """The text for ``values``; variables that are missing, null or empty lists or objects are left out.

        Raises:
            UriTemplateError: a value is nested, a prefix is taken of a list, or a text holds a lone surrogate.
        """
        style = _STYLES[self.operator]
        texts = [text for variable in self.variables for text in _expand(variable, values.get(variable.name), style)]
        return style.first + style.separator.join(texts) if texts else ""


Part = str | Expression


def parse_template(text: str) -> tuple[Part, ...]:
    """The literals and expressions of a template, in order.

    Raises:
        UriTemplateError: it is too long, or not a template.
    """
    if len(text) > MAX_LENGTH:
        raise UriTemplateError(f"a template has at most {MAX_LENGTH} characters")
    parts: list[Part] = []
    position = 0
    for found in _EXPRESSION.finditer(text):
        parts.append(_literal(text[position : found.start()]))
        parts.append(_expression(found[1]))
        position = found.end()
    parts.append(_literal(text[position:]))
    return tuple(part for part in parts if part != "")


def expand(text: str, values: Mapping[str, object]) -> str:
    """A whole template expanded.

    Raises:
        UriTemplateError: it is not a template, or a value has no place in it.
    """
    parts = parse_template(text)
    return "".join(part if isinstance(part, str) else part.expand(values) for part in parts)


def _literal(text: str) -> str:
    if not _LITERALS.fullmatch(text):
        raise UriTemplateError("a brace has no partner, or a character must be percent-encoded")
    return text


def _expression(text: str) -> Expression:
    operator = text[0] if text and text[0] in _STYLES else ""
    return Expression(operator, tuple(_variable(part) for part in text[len(operator) :].split(",")))


def _variable(text: str) -> Variable:
    name, colon, prefix = text.partition(":")
    if colon:
        if not re.fullmatch(r"[1-9][0-9]{0,3}", prefix):
            raise UriTemplateError(f"a prefix is a number from 1 to {MAX_PREFIX}")
        variable = Variable(name, prefix=int(prefix))
    else:
        variable = Variable(name.removesuffix("*"), explode=name.endswith("*"))
    if not _NAME.fullmatch(variable.name):
        raise UriTemplateError("a variable's name has letters, digits, _ and . between them only")
    return variable


def _expand(variable: Variable, value: object, style: _Style) -> Iterator[str]:
    """The texts of one variable, to be joined by the style's separator."""
    if value is None:
        return
    if not isinstance(value, dict | list | tuple):
        text = _text(variable, value)
        yield _named(variable.name, _encode(text[: variable.prefix or None], style), style)
        return
    if variable.prefix:
        raise UriTemplateError(f'"{variable.name}" is a list or an object, of which there is no prefix')
    if isinstance(value, dict):
        members = [
            (_encode(_text(variable, key), style), _encode(_text(variable, item), style))
            for key, item in cast("dict[object, object]", value).items()
            if item is not None
        ]
        if variable.explode:
            yield from (f"{key}={item}" if item or not style.named else key + style.if_empty for key, item in members)
        elif members:
            yield _named(variable.name, ",".join(f"{key},{item}" for key, item in members), style)
        return
    items = [_encode(_text(variable, item), style) for item in cast("list[object]", value) if item is not None]
    if variable.explode:
        yield from (_named(variable.name, item, style) for item in items)
    elif items:
        yield _named(variable.name, ",".join(items), style)


def _named(name: str, text: str, style: _Style) -> str:
    if not style.named:
        return text
    return f"{name}={text}" if text else name + style.if_empty


def _text(variable: Variable, value: object) -> str:
    text = scalar_text(value)
    if text is None:
        raise UriTemplateError(f'"{variable.name}" holds something that is not text, a number or a boolean')
    return text


def _encode(text: str, style: _Style) -> str:
    try:
        if not style.reserved:
            return quote(text, safe="")
        # What is percent-encoded already stays so.
        return "".join(
            part if index % 2 else quote(part, safe=_RESERVED)
            for index, part in enumerate(_PERCENT_ENCODED.split(text))
        )
    except UnicodeEncodeError:
        raise UriTemplateError("a text holds a lone surrogate") from None
