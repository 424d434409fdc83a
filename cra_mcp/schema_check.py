"""Compiled JSON Schemas on the call path.

Rule: the linear-time regex engine, so that no pattern stalls a call; nothing is ever fetched; compiled when first needed.
Source: JSON Schema 2020-12.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_MAX_FAULTS = 5
_MAX_MESSAGE = 300


class Validator(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: Any, /) -> bool:
        """Whether ``instance`` is valid."""
        ...


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """One way in which a value breaks its schema. ``pointer`` is an RFC 6901 JSON pointer into the value."""

    pointer: str
    keyword: str
    message: str


def compile_schema(schema: Mapping[str, object]) -> Validator:
    """Compile a schema the loader has accepted."""
    return _compile(schema, masked=False)


def explain(schema: Mapping[str, object], instance: object, *, masked: bool) -> list[SchemaFault]:
    """What is wrong with ``instance``, at most five faults. ``masked`` keeps its values out of the messages."""
    faults: list[SchemaFault] = []
    for error in _compile(schema, masked=masked).iter_errors(instance):
        message = error.message if len(error.message) <= _MAX_MESSAGE else error.message[:_MAX_MESSAGE] + "…"
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
        faults.append(SchemaFault(pointer, error.kind.name, message))
        if len(faults) == _MAX_FAULTS:
            break
    return faults


def _compile(schema: Mapping[str, object], *, masked: bool) -> Any:
    import jsonschema_rs  # noqa: PLC0415 - 90 ms that only the first call needs

    return jsonschema_rs.Draft202012Validator(
        dict(schema),
        pattern_options=jsonschema_rs.RegexOptions(),
        validate_formats=True,
        offline=True,
        mask="the value" if masked else None,
    )
