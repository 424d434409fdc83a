"""Published names: what an action is called towards hosts that allow few characters.

Rule: a name depends on its action id alone, so it never changes when other atlases come or go. Two ids may share a
name; the loader and the registry refuse that.
Source: specs/atlas.md, "Published names".
"""

from cra_mcp.canonical import sha256_hex

MAX_LENGTH = 40
"""Longest name that stays under every known host's limit with the prefix the host adds."""

RESERVED_PREFIX = "cra_"
"""Names of the control tools begin so; no action's may."""

_HASH_DIGITS = 8


def published_name(action_id: str) -> str:
    """The host-safe name of an action: ``^[a-zA-Z][a-zA-Z0-9_-]{0,39}$``.

    Dots and slashes become ``_``. A longer name is cut and ends in ``_`` and 8 hex digits of the id's SHA-256.
    """
    name = action_id.replace(".", "_").replace("/", "_")
    if len(name) <= MAX_LENGTH:
        return name
    return f"{name[: MAX_LENGTH - _HASH_DIGITS - 1]}_{sha256_hex(action_id.encode())[:_HASH_DIGITS]}"


def is_reserved(name: str) -> bool:
    """Whether a published name belongs to the control tools."""
    return name.startswith(RESERVED_PREFIX)
