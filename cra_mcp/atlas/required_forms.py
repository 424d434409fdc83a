"""The forms that texts of an atlas must have, in words and with an example, by the pattern that asks for them.

Rule: a refusal shows what would be right. A test compares the list with the models.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, get_args

from pydantic import BaseModel

from cra_mcp.atlas import fields

_LINE = "one line without control characters and characters that reorder text", "Deletes need a person."


def _of(kind: object) -> str:
    """The pattern of a kind of text."""
    return next(
        str(each.pattern) for field in get_args(kind)[1:] for each in field.metadata if hasattr(each, "pattern")
    )


FORMS: Final[Mapping[str, tuple[str, str]]] = {
    _of(fields.Line): _LINE,
    _of(fields.Lines): ("lines without control characters and characters that reorder text", _LINE[1]),
    _of(fields.Argument): ("a text without a NUL", "--verbose"),
    _of(fields.Address): ("a URI without spaces", "https://example.com/terms"),
    _of(fields.WebAddress): ("http(s)://, or ${NAME} for the address, and no spaces", "https://mcp.example.com/mcp"),
    _of(fields.HttpAddress): ("http(s)://HOST and no spaces", "https://api.example.com/v1"),
    _of(fields.SemanticVersion): ("MAJOR.MINOR.PATCH", "1.0.0"),
    _of(fields.VersionRange): ("comparators with a whole version each, or *", ">=1.2.0 <2.0.0"),
    _of(fields.AtlasId): ("lower-case names joined by dots, two at least", "com.example.payments"),
    _of(fields.ActionId): ("lower-case names joined by dots, two at least", "ticket.search"),
    _of(fields.ActionGlob): ("an action id, lower-case, with * for any characters: one glob an item", "ticket.*"),
    _of(fields.DottedId): ("lower-case names joined by dots", "payments.read"),
    _of(fields.PolicyId): ("letters, digits, dots, _ and -, a letter or digit first", "no-deletes"),
    _of(fields.LocalName): ("lower-case letters, digits, _ and -, a letter first", "github"),
    _of(fields.PublishedName): ("letters, digits, _ and -, a letter first", "search_tickets"),
    _of(fields.EnvironmentName): ("letters, digits and _, no digit first", "API_TOKEN"),
    _of(fields.HeaderName): ("the name of an HTTP header", "X-Request-Source"),
    _of(fields.HeaderValue): ("a text without line breaks", "application/json"),
    _of(fields.Glob): ("a text without a NUL, with * for any characters", "support-*"),
    _of(fields.FieldName): ("a name without control characters", "customer_id"),
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$": ("an instant in UTC", "2026-01-31T08:00:00Z"),
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$": ("module:function", "tickets:search"),
    r"^[A-Za-z_][A-Za-z0-9_]*$": ("letters, digits and _, no digit first", "ctx"),
    r"^[^/\x00-\x1f\x7f]+/[^\x00-\x1f\x7f]+$": ("service/name", "github/token"),
    r"^[\x20-\x7e]*$": ("printable ASCII", "Bearer "),
    r"^(/([^~/]|~[01])*)*$": ("a JSON pointer", "/data/items"),
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": ("HH:MM", "09:00"),
    r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$": ("HH:MM or 24:00", "17:30"),
    r"^[A-Za-z][A-Za-z0-9_-]*$": ("letters, digits, _ and -, a letter first", "usd"),
    r"^[a-z][a-z0-9+.-]*://[A-Za-z0-9._~!$&'()*+,;=:@/?%{}-]+$": ("a URI or URI template", "notes://{name}"),
    r"^[a-z0-9.+-]+/[a-z0-9.+-]+$": ("type/subtype, lower-case", "text/markdown"),
    r"^[()A-Za-z0-9.+:-]+( [()A-Za-z0-9.+:-]+)*$": ("an SPDX expression", "Apache-2.0 OR MIT"),
}  # fmt: skip


_MAX_LENGTH = 64
"""Comparing takes time; no field has a longer name."""


def no_field(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """What to write in place of a field that an object lacks; ``location`` leads to it from the model."""
    known = _fields_at(model, location[:-1])
    near = get_close_matches(str(location[-1])[:_MAX_LENGTH], known, 1, 0.75)
    advice = f": write {near[0]}" if near else f"; there are {', '.join(known)}" if known else ""
    return f"there is no such field{advice}"


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The fields of the object there. The name of a union's member, and the place in a list, lead no further."""
    models = [model]
    for step in location:
        inner = [
            each
            for owner in models
            if step in owner.model_fields
            for each in _models_in(owner.model_fields[str(step)].annotation)
        ]
        models = inner or models
    return sorted({field.alias or name for each in models for name, field in each.model_fields.items()})


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def required(pattern: object) -> str:
    """What a text of a pattern must look like."""
    form = FORMS.get(str(pattern))
    return "the text does not have the required form" if form is None else f'must be {form[0]}, such as "{form[1]}"'
