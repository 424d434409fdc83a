"""What every sink of a live export owes. Source: specs/export.md, "Live export"."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from cra_mcp.errors import SettingsError
from cra_mcp.trace.export.format import Format
from cra_mcp.trace.export.record import Record

TIMEOUT_S: Final = 5.0
"""Seconds a receiver may hold a delivery up."""


class DeliveryError(Exception):
    """A payload did not arrive. ``lasting``: it never will, so trying again is no use."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class Sink(Protocol):
    """One receiver. Used by one thread."""

    @property
    def name(self) -> str:
        """What it is called in logs and metrics; without credentials."""
        ...

    def payloads(self, records: Sequence[Record]) -> Iterable[bytes]:
        """What is to be delivered for records. Called once for each, in order."""
        ...

    def rest(self) -> Iterable[bytes]:
        """What is to be delivered at the end."""
        ...

    def deliver(self, payload: bytes) -> None:
        """Deliver one payload; may wait for ``TIMEOUT_S``.

        Raises:
            DeliveryError: it did not arrive.
        """
        ...

    def close(self) -> None:
        """Let go of the receiver."""
        ...


def joined(form: Format, records: Sequence[Record]) -> list[bytes]:
    """Records in a format, as one payload; none where the format waits for more."""
    data = b"".join(piece for record in records for piece in form.feed(record))
    return [data] if data else []


def invalid_export(why: str) -> SettingsError:
    """What to raise where ``--export`` can't be used."""
    return SettingsError(
        f"an export can't be used: {why}",
        code="invalid_export",
        hint="give otlp+http://HOST:4318, syslog+tcp://HOST:PORT, file:PATH or command:PROGRAM, and #FORMAT where needed",
    )
