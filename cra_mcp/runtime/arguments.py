"""What programs pass to a runtime, checked where a slip would otherwise end somewhere deep inside.

Rule: an argument of the wrong type is a ``RequestError`` that names it and says what was meant.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from cra_mcp.errors import RequestError

_MEMBERS = ("session_id", "action_id", "atlas_id", "approval_id")


def text(name: str, value: object) -> str:
    """``value``, which must be a text.

    Raises:
        RequestError: ``invalid_request``.
    """
    if isinstance(value, str):
        return value
    member = next((each for each in (name, *_MEMBERS) if isinstance(getattr(value, each, None), str)), None)
    hint = f"pass its {member}" if member is not None else None
    raise _wrong(name, "a str", value, hint)


def path(name: str, value: object, hint: str) -> Path:
    """``value``, which must be a path. Raises as ``text``, with ``hint``."""
    if isinstance(value, str | os.PathLike):
        return Path(value)  # pyright: ignore[reportUnknownArgumentType] - a path of bytes is refused by Path
    raise _wrong(name, "a path", value, hint)


def document(name: str, value: object) -> str | bytes:
    """``value``, which must be the text of a document. Raises as ``text``."""
    if isinstance(value, str | bytes):
        return value
    raise _wrong(name, "a JSON text", value, "json.dumps makes one" if isinstance(value, Mapping) else None)


def mapping(name: str, value: object) -> Mapping[str, object]:
    """``value``, which must be a mapping. Raises as ``text``."""
    if isinstance(value, Mapping):
        return value  # pyright: ignore[reportUnknownVariableType] - its keys are checked where it is read
    raise _wrong(name, "a mapping", value, None)


def _wrong(name: str, meant: str, value: object, hint: str | None) -> RequestError:
    return RequestError("invalid_request", f"{name} must be {meant}, not {type(value).__name__}", hint=hint)
