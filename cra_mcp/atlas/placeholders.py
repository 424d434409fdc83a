"""Placeholders in the argv of a command: ``{name}`` stands for the parameter of that name.

Rule: what the loader checks and what a back end fills are found by the same pattern. Braces around anything that is not
a name are text.
Source: specs/atlas.md, "Command".
"""

import re

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

ALLOW_OPTION = "x-cra-allow-option"
"""Keyword of a parameter's schema: its value may begin an element with ``-``."""


def placeholders(element: str) -> tuple[str, ...]:
    """The parameters one element of an argv takes, in order."""
    return tuple(PLACEHOLDER.findall(element))
