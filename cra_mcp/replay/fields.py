"""Reading the payload of an event of a trace that comes from outside.

Rule: what a field can't mean is refused with the event that says so.
Source: specs/trace.md, "Event types".
"""

from datetime import datetime
from functools import lru_cache
from typing import cast

from cra_mcp.errors import TraceError
from cra_mcp.policy.model import RiskTier
from cra_mcp.replay.recorded import Payload

TIMESTAMP_CHARS = 27
_SECOND_CHARS = 19


class Fields:
    """The payload of one event, read with suspicion."""

    __slots__ = ("payload", "sequence")

    def __init__(self, payload: Payload, sequence: int) -> None:
        self.payload = payload
        self.sequence = sequence

    def fault(self, message: str) -> TraceError:
        """What to raise where the payload means nothing: ``not_replayable``."""
        return TraceError(f"event {self.sequence}: {message}", code="not_replayable", hint="verify the trace first")

    def text(self, name: str) -> str:
        """A text. Raises ``fault`` where it is none."""
        value = self.payload.get(name)
        if not isinstance(value, str):
            raise self.fault(f"{name} is not a text")
        return value

    def maybe_text(self, name: str) -> str | None:
        """A text; None where it is none."""
        value = self.payload.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int:
        """A whole number. Raises ``fault`` where it is none."""
        value = self.payload.get(name)
        if type(value) is not int:
            raise self.fault(f"{name} is not a whole number")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it is left out. Raises ``fault`` where it is none."""
        value = self.payload.get(name, ())
        if not isinstance(value, list | tuple):
            raise self.fault(f"{name} is not a list")
        found: list[str] = []
        for each in cast("list[object]", value):
            if not isinstance(each, str):
                raise self.fault(f"{name} holds what is no text")
            found.append(each)
        return tuple(found)

    def part(self, name: str) -> "Fields | None":
        """An object; None where it is left out. Raises ``fault`` where it is none."""
        value = self.payload.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fault(f"{name} is not an object")
        return Fields(cast("Payload", value), self.sequence)

    def parts(self, name: str) -> "list[Fields]":
        """A list of objects. Raises ``fault`` where it is none."""
        value = self.payload.get(name)
        if not isinstance(value, list):
            raise self.fault(f"{name} is not a list")
        found: list[Fields] = []
        for entry in cast("list[object]", value):
            if not isinstance(entry, dict):
                raise self.fault(f"{name} holds what is no object")
            found.append(Fields(cast("Payload", entry), self.sequence))
        return found

    def tier(self) -> RiskTier:
        """``risk_tier``; low where it is left out. Raises ``fault`` where it is none."""
        try:
            return RiskTier(self.payload.get("risk_tier", RiskTier.LOW))
        except ValueError:
            raise self.fault("risk_tier is none") from None

    def instant(self, dated_us: int) -> int:
        """``at``, or when the event is dated."""
        text = self.maybe_text("at")
        if text is None:
            return dated_us
        try:
            if len(text) != TIMESTAMP_CHARS:
                raise ValueError(text)
            return micros(text)
        except ValueError:
            raise self.fault("at is not an instant") from None


def micros(timestamp: str) -> int:
    """A timestamp of six fractional digits as microseconds since the epoch; exact, unlike a float."""
    return _second_us(timestamp[:_SECOND_CHARS]) + int(timestamp[_SECOND_CHARS + 1 : -1])


@lru_cache(maxsize=64)
def _second_us(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000
