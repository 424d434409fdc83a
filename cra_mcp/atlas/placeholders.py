"""Placeholders in the argv of a command: ``{name}`` stands for the parameter of that name.

Rule: ``{{`` and ``}}`` are braces; a brace without its partner is a mistake, never text.
Source: specs/atlas.md, "Executor: command".
"""

import re

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|([{}])")


def placeholders(element: str) -> tuple[str, ...]:
    """The parameters one element of an argv takes, in order.

    Raises:
        ValueError: a brace has no partner.
    """
    names: list[str] = []
    for token in _TOKEN.finditer(element):
        if token[2]:
            raise ValueError("a brace has no partner: write {{ or }} for a brace itself")
        if token[1]:
            names.append(token[1])
    return tuple(names)
