"""What stands in the payload of an event that comes from outside: a value of an unexpected type counts as absent."""

from collections.abc import Mapping
from datetime import datetime
from typing import cast


def text_of(payload: Mapping[str, object], name: str) -> str | None:
    """A text of a payload; None where there is none."""
    value = payload.get(name)
    return value if isinstance(value, str) else None


def texts_of(payload: Mapping[str, object], name: str) -> tuple[str, ...]:
    """The texts in a list of a payload."""
    return tuple(each for each in list_of(payload.get(name)) if isinstance(each, str))


def number_of(payload: Mapping[str, object], name: str) -> int | None:
    """A whole number of a payload, never negative; None where there is none."""
    value = payload.get(name)
    return value if type(value) is int and value >= 0 else None


def between_ms(earlier: str, later: str) -> float | None:
    """Milliseconds between two timestamps; None if one is no moment, as 30 February, or they are the wrong way round."""
    try:
        found = (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds() * 1_000
    except ValueError:
        return None
    return found if found >= 0 else None


def list_of(value: object) -> list[object]:
    """The values of a list; none where it is no list."""
    return cast("list[object]", value) if isinstance(value, list) else []
