"""Requests made of a template and the parameters of one call.

Rule: every value stays in its place: one part of the path, one field of the query or a form, one header on one line, one value
in a JSON body. What would leave it is refused, never repaired. Pure.
Source: specs/atlas.md, "Executor: http"; RFC 9110, 5.5 (field values); WHATWG URL, 5 (forms).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast
from urllib.parse import quote, quote_plus, urlencode

from cra_mcp.atlas.http_target import ALLOW_SLASH, TargetError, TargetTemplate
from cra_mcp.atlas.model import HttpExecutor
from cra_mcp.atlas.origin import Origin
from cra_mcp.atlas.placeholders import Piece, Placeholder, parse_text, scalar_text
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.http_secrets import Secret

IDEMPOTENCY_KEY = "Idempotency-Key"

_ACCEPT = "application/json, text/*;q=0.9, */*;q=0.8"
_FIELD_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_BODY_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_EMPTY: Mapping[str, object] = {}


class RequestTemplateError(ValueError):
    """An executor can't make requests."""


class _Missing:
    """Stands for a member that is left out."""


_MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. ``target`` is the path and query of a request line; header names are unique, whatever their case."""

    method: str
    origin: Origin
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    def with_secrets(self, secrets: tuple[Secret, ...]) -> "HttpRequest":
        """The request with secrets in their places."""
        headers = {**self.headers}
        target = self.target
        for secret in secrets:
            if secret.reference.place == "header":
                headers[secret.reference.name] = secret.sent
            else:
                name = quote(secret.reference.name, safe="")
                target += f"{'&' if '?' in target else '?'}{name}={quote(secret.sent, safe='')}"
        return replace(self, headers=headers, target=target)


class RequestTemplate:
    """What requests of one action look like.

    Args:
        executor: as the loader has checked it.
        parameters_schema: says which parameters have a default, and which may hold slashes.

    Raises:
        RequestTemplateError: it is not well formed.
    """

    def __init__(self, executor: HttpExecutor, parameters_schema: Mapping[str, object]) -> None:
        declared = parameters_schema.get("properties")
        schemas = cast("Mapping[str, object]", declared) if isinstance(declared, Mapping) else _EMPTY
        rules = {
            name: cast("Mapping[str, object]", rule) for name, rule in schemas.items() if isinstance(rule, Mapping)
        }
        self._defaults = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
        self._slashes = frozenset(name for name, rule in rules.items() if rule.get(ALLOW_SLASH) is True)
        self._method = executor.method
        self._body_type = executor.body.type if executor.body is not None else None
        try:
            self._target = TargetTemplate(executor.url)
            self._query = {name: _parsed(value) for name, value in executor.query.items()}
            self._headers = {name: parse_text(value) for name, value in executor.headers.items()}
            self._body = _parsed(executor.body.content) if executor.body is not None else None
        except ValueError as error:
            raise RequestTemplateError(str(error)) from error

    @property
    def origin(self) -> Origin:
        """Where requests go."""
        return self._target.origin

    def build(self, parameters: Mapping[str, object], execution_id: str) -> HttpRequest:
        """The request of one call, without secrets.

        Args:
            parameters: have passed the action's schema.
            execution_id: what a service may know a repeated request by.

        Raises:
            ExecutionError: ``value_refused``: a value has no place in the request, or would leave it.
        """
        values = {**self._defaults, **parameters}
        fields = list(_fields(self._query, values))
        try:
            target = self._target.expand(values, fields, self._slashes)
        except TargetError as error:
            raise _refused(str(error)) from error
        headers = {"Accept": _ACCEPT, "User-Agent": "cra-mcp"}
        body = self._encoded(values)
        if body is not None and self._body_type is not None:
            headers["Content-Type"] = _BODY_TYPES[self._body_type]
        for name, pieces in self._headers.items():
            text = _filled(pieces, values)
            if text is not None:
                _set(headers, name, _field_value(name, text))
        if self._method not in _SAFE_METHODS:
            headers[IDEMPOTENCY_KEY] = execution_id
        return HttpRequest(self._method, self._target.origin, target, headers, body)

    def _encoded(self, values: Mapping[str, object]) -> bytes | None:
        if self._body_type == "form":
            fields = list(_fields(cast("Mapping[str, object]", self._body), values))
            return urlencode(fields, quote_via=quote_plus).encode()
        if self._body_type is None:
            return None
        content = _json(self._body, values)
        if content is _MISSING:
            return None
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _parsed(value: object) -> object:
    """A template with every text in it parsed."""
    match value:
        case str():
            return parse_text(value)
        case dict():
            return {name: _parsed(member) for name, member in cast("dict[str, object]", value).items()}
        case list():
            return [_parsed(item) for item in cast("list[object]", value)]
        case _:
            return value


def _json(template: object, values: Mapping[str, object]) -> object:
    """A JSON body. A text that is one placeholder becomes the parameter's own value; what is missing is left out."""
    match template:
        case tuple():
            pieces = cast("tuple[Piece, ...]", template)
            if len(pieces) == 1 and isinstance(pieces[0], Placeholder):
                return values.get(pieces[0].name, _MISSING)
            text = _filled(pieces, values)
            return _MISSING if text is None else text
        case dict():
            members = {name: _json(member, values) for name, member in cast("dict[str, object]", template).items()}
            return {name: member for name, member in members.items() if member is not _MISSING}
        case list():
            items = [_json(item, values) for item in cast("list[object]", template)]
            return [item for item in items if item is not _MISSING]
        case _:
            return template


def _fields(templates: Mapping[str, object], values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Names and texts of a query or a form; a list makes one field an item, what is missing or null none."""
    for name, template in templates.items():
        value = _json(template, values)
        for item in cast("list[object]", value) if isinstance(value, list) else [value]:
            if item is None or item is _MISSING:
                continue
            text = scalar_text(item)
            if text is None:
                raise _refused(f'the field "{name}" takes text, numbers, booleans and lists of them')
            yield name, text


def _filled(pieces: tuple[Piece, ...], values: Mapping[str, object]) -> str | None:
    """A text with its parameters in place; None if one is missing."""
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        value = values.get(piece.name)
        if value is None:
            return None
        text = scalar_text(value)
        if text is None:
            raise _refused(f'the value of "{piece.name}" is not text, a number or a boolean')
        texts.append(text)
    return "".join(texts)


def _field_value(name: str, text: str) -> str:
    if not _FIELD_VALUE.fullmatch(text):
        raise _refused(
            f'the header "{name}" would hold a line break, other than ASCII, or a space at an end, which no header can'
        )
    return text


def _set(headers: dict[str, str], name: str, value: str) -> None:
    """Set a header in place of one whose name differs in case only."""
    for other in [known for known in headers if known.lower() == name.lower()]:
        del headers[other]
    headers[name] = value


def _refused(message: str) -> ExecutionError:
    return ExecutionError("value_refused", message, hint="give another value")
