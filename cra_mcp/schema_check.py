"""Compiled JSON Schemas on the call path.

Rule: the linear-time regex engine, so that no pattern stalls a call; nothing is ever fetched; compiled when first needed.
Source: JSON Schema 2020-12.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from cra_mcp.schema_faults import MASK, Compile, Schema, SchemaFault, find_faults

__all__ = ["SchemaFault", "Validator", "compile_schema", "explain"]


class Validator(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: Any, /) -> bool:
        """Whether ``instance`` is valid."""
        ...


def compile_schema(schema: Mapping[str, object]) -> Validator:
    """Compile a schema the loader has accepted."""
    return _compile(schema, masked=False)


def explain(schema: Mapping[str, object], instance: object, *, masked: bool) -> list[SchemaFault]:
    """What is wrong with ``instance``: up to five faults, found in bounded work; none if it is valid.

    ``masked`` keeps its values out of the messages.
    """
    if compile_schema(schema).is_valid(instance):
        return []

    def compiler_for(uri: str, root: Schema) -> Compile:
        import jsonschema_rs  # noqa: PLC0415 - as below

        registry = jsonschema_rs.Registry([(uri, dict(root))])
        return lambda part: _compile(part, masked=masked, registry=registry)

    return find_faults(schema, instance, compiler_for)


def _compile(schema: Mapping[str, object], *, masked: bool, registry: Any = None) -> Any:
    import jsonschema_rs  # noqa: PLC0415 - 90 ms that only the first call needs

    return jsonschema_rs.Draft202012Validator(
        dict(schema),
        pattern_options=jsonschema_rs.RegexOptions(),
        validate_formats=True,
        offline=True,
        mask=MASK if masked else None,
        registry=registry,
    )
