"""Templates of command lines: parameters put into single arguments, and nowhere else.

Rule: no value makes a second argument, and none becomes an option unless its schema says ``"x-cra-allow-option":
true``. Pure.
Source: specs/atlas.md, "Executor: command".
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from cra_mcp.atlas.placeholders import scalar_text
from cra_mcp.errors import ExecutionError

ALLOW_OPTION = "x-cra-allow-option"

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|([{}])")
_OPTION_STARTS = ("-", "/") if sys.platform == "win32" else ("-",)
_EMPTY: Mapping[str, object] = {}


class TemplateError(ValueError):
    """A command line template is not well formed."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a parameter goes."""

    name: str
    default: object
    has_default: bool
    may_be_option: bool


class Template:
    """A parsed ``argv``: the program, then arguments that may hold ``{name}``; ``{{`` and ``}}`` are braces.

    Args:
        argv: the elements as the atlas has them.
        parameters_schema: says which parameters have a default and which may be options.

    Raises:
        TemplateError: a brace without its partner, or a parameter in the name of the program.
    """

    def __init__(self, argv: Sequence[str], parameters_schema: Mapping[str, object]) -> None:
        declared = parameters_schema.get("properties")
        schemas = cast("Mapping[str, object]", declared) if isinstance(declared, Mapping) else _EMPTY
        elements = [_parse(element, schemas) for element in argv]
        if not elements or any(isinstance(piece, _Slot) for piece in elements[0]):
            raise TemplateError("the program itself can't be a parameter")
        self.program = "".join(str(piece) for piece in elements[0])
        self._arguments = elements[1:]
        self.has_parameters = any(isinstance(piece, _Slot) for element in elements for piece in element)

    def arguments(self, parameters: Mapping[str, object]) -> list[str]:
        """The arguments for one call. An element whose parameter is missing (or null) and has no default is left out.

        Raises:
            ExecutionError: ``option_injection``: a value would start an argument with ``-``; ``execution_failed``: a
                value is no text, number or boolean, or holds a NUL.
        """
        filled = (_fill(element, parameters) for element in self._arguments)
        return [argument for argument in filled if argument is not None]


def _parse(element: str, schemas: Mapping[str, object]) -> list[str | _Slot]:
    pieces: list[str | _Slot] = []
    position = 0
    for token in _TOKEN.finditer(element):
        pieces.append(element[position : token.start()])
        position = token.end()
        if token[2]:
            raise TemplateError("a brace has no partner; write {{ or }} for a brace itself")
        pieces.append(_slot(token[1], schemas.get(token[1])) if token[1] else token[0][0])
    pieces.append(element[position:])
    return [piece for piece in pieces if piece]


def _slot(name: str, schema: object) -> _Slot:
    known = cast("Mapping[str, object]", schema) if isinstance(schema, Mapping) else _EMPTY
    return _Slot(name, known.get("default"), "default" in known, known.get(ALLOW_OPTION) is True)


def _fill(element: Sequence[str | _Slot], parameters: Mapping[str, object]) -> str | None:
    argument = ""
    for piece in element:
        if isinstance(piece, str):
            argument += piece
            continue
        value = parameters.get(piece.name)
        if value is None and piece.has_default:
            value = piece.default
        if value is None:
            return None
        text = _text(piece.name, value)
        if not argument and text.startswith(_OPTION_STARTS) and not piece.may_be_option:
            raise ExecutionError(
                "option_injection",
                f'the value of "{piece.name}" begins like an option of the program, which is refused',
                hint=f'give another value; only a schema with "{ALLOW_OPTION}": true lets it through',
            )
        argument += text
    return argument


def _text(name: str, value: object) -> str:
    text = scalar_text(value)
    if text is None:
        raise ExecutionError(
            "execution_failed", f'the value of "{name}" is not text, a number or a boolean, so it fits no argument'
        )
    if "\0" in text:
        raise ExecutionError("execution_failed", f'the value of "{name}" holds a NUL, which no argument can')
    return text
