"""Placeholders in texts of an executor: ``{name}`` stands for the parameter of that name.

Rule: ``{{`` and ``}}`` are braces; a brace without its partner is a mistake, never text.
Source: specs/atlas.md, "Executor: command" and "Executor: http".
"""

import re
from dataclasses import dataclass
from typing import cast

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|([{}])")
_EXACT_INTEGER = 2**53
_SCALARS = frozenset({"string", "number", "integer", "boolean"})


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Where the parameter ``name`` goes."""

    name: str


Piece = str | Placeholder


def parse_text(text: str) -> tuple[Piece, ...]:
    """The literal pieces and placeholders of a text, in order.

    Raises:
        ValueError: a brace has no partner.
    """
    pieces: list[Piece] = []
    position = 0
    for token in _TOKEN.finditer(text):
        if token[2]:
            raise ValueError("a brace has no partner: write {{ or }} for a brace itself")
        pieces.append(text[position : token.start()])
        pieces.append(Placeholder(token[1]) if token[1] else token[0][0])
        position = token.end()
    pieces.append(text[position:])
    return tuple(piece for piece in pieces if piece)


def placeholders(text: str) -> tuple[str, ...]:
    """The parameters a text takes, in order.

    Raises:
        ValueError: a brace has no partner.
    """
    return tuple(piece.name for piece in parse_text(text) if isinstance(piece, Placeholder))


def is_scalar(schema: object) -> bool:
    """Whether a schema itself says that its values are texts, numbers or booleans."""
    if not isinstance(schema, dict):
        return False
    rules = cast("dict[str, object]", schema)
    if "type" in rules:
        kinds = cast("list[object]", rules["type"] if isinstance(rules["type"], list) else [rules["type"]])
        return all(isinstance(kind, str) and kind in _SCALARS for kind in kinds)
    values = rules.get("enum", [rules["const"]] if "const" in rules else None)
    return isinstance(values, list) and all(
        isinstance(value, str | int | float) for value in cast("list[object]", values)
    )


def scalar_text(value: object) -> str | None:
    """How a text, number or boolean is written; None for anything else."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            # 5.0 and 5 are the same JSON number
            return str(int(value)) if value.is_integer() and abs(value) < _EXACT_INTEGER else repr(value)
        case str():
            return value
        case _:
            return None
