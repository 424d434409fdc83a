"""The obligations of a format, and the formats there are.

Rule: pure mappings; no clock, file or network. A new one is one module and one line here, one table in specs/export.md, and a
test against its grammar or a receiver.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from cra_mcp.errors import SettingsError
from cra_mcp.trace.export.record import Record


class Format(Protocol):
    """Turns records, in order, into pieces that can be written one after the other."""

    def begin(self) -> bytes:
        """What comes before the first record."""
        ...

    def feed(self, record: Record) -> Iterator[bytes]:
        """The pieces a record makes, each a whole line or several; a format may wait for more records."""
        ...

    def finish(self) -> Iterator[bytes]:
        """The pieces of what it was still waiting with."""
        ...


class Lines:
    """A format in which each record is one piece by itself."""

    def __init__(self, piece: Callable[[Record], bytes], head: bytes = b"") -> None:
        self._piece = piece
        self._head = head

    def begin(self) -> bytes:
        """See ``Format.begin``."""
        return self._head

    def feed(self, record: Record) -> Iterator[bytes]:
        """See ``Format.feed``."""
        yield self._piece(record)

    def finish(self) -> Iterator[bytes]:
        """See ``Format.finish``; nothing waits."""
        yield from ()


def _jsonl() -> Format:
    return Lines(lambda record: record.line + b"\n")


def _csv() -> Format:
    from cra_mcp.trace.export import csv_rows  # noqa: PLC0415 - only the format that is wanted

    return Lines(csv_rows.row, csv_rows.HEAD)


def _syslog() -> Format:
    from cra_mcp.trace.export import syslog  # noqa: PLC0415 - as above

    return Lines(lambda record: syslog.message(record) + b"\n")


def _cef() -> Format:
    from cra_mcp.trace.export import cef  # noqa: PLC0415 - as above

    return Lines(lambda record: cef.line(record) + b"\n")


def _leef() -> Format:
    from cra_mcp.trace.export import leef  # noqa: PLC0415 - as above

    return Lines(lambda record: leef.line(record) + b"\n")


def _ocsf() -> Format:
    from cra_mcp.trace.export import ocsf  # noqa: PLC0415 - as above

    return Lines(lambda record: ocsf.line(record) + b"\n")


def _otlp_logs() -> Format:
    from cra_mcp.trace.export import otlp  # noqa: PLC0415 - as above

    return Lines(lambda record: otlp.request_of_logs([record]) + b"\n")


def _otlp_spans() -> Format:
    from cra_mcp.trace.export.otlp_spans import Spans  # noqa: PLC0415 - as above

    return Spans()


FORMATS: dict[str, Callable[[], Format]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "otlp-logs": _otlp_logs,
    "otlp-spans": _otlp_spans,
    "ocsf": _ocsf,
    "cef": _cef,
    "leef": _leef,
    "syslog": _syslog,
}
"""Every format by its name."""


def format_of(name: str) -> Format:
    """A format, ready for its first record.

    Raises:
        SettingsError: ``unknown_format``.
    """
    make = FORMATS.get(name)
    if make is None:
        raise SettingsError(
            f"there is no format {name[:40]!r}", code="unknown_format", hint=f"use one of {', '.join(FORMATS)}"
        )
    return make()
