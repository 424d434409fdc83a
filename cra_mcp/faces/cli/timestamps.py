"""What timestamps say of checkpoints, checked against given certificates, for ``trace verify`` and ``verify-proof``."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import TraceError
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from cra_mcp.trace.checkpoint import SignedCheckpoint
    from cra_mcp.trace.timestamp import Timestamp

TsaCa = Annotated[
    Path | None,
    typer.Option(
        "--tsa-ca",
        metavar="FILE",
        help="Root certificates (PEM) of time-stamping authorities: check the timestamps, of which there must be one.",
    ),
]


@dataclass(frozen=True, slots=True)
class Dated:
    """A checkpoint's events existed at a time.

    Attributes:
        recorded: when the last of them says it was recorded, by the runtime's own clock; None where it is not at hand.
    """

    size: int
    timestamp: "Timestamp"
    recorded: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {"size": self.size, "recorded": self.recorded, **self.timestamp.to_dict()}

    def __str__(self) -> str:
        given = self.timestamp
        accuracy = f", within {given.accuracy.total_seconds():g} s" if given.accuracy else ""
        authority = "".join(char if char.isprintable() else "\ufffd" for char in given.authority)
        return f"{given.time:%Y-%m-%d %H:%M:%S} UTC{accuracy}, says {authority}"


@dataclass(frozen=True, slots=True)
class Dates:
    """What the timestamps of a session say.

    Attributes:
        kept: how many there are.
        dated: those that hold, in the order of events; empty where none was checked.
        fault: code and message of the first that does not; or none is there, and one was asked for.
        checked: certificates were given.
    """

    kept: int = 0
    dated: tuple[Dated, ...] = ()
    fault: tuple[str, str] | None = None
    checked: bool = False

    def to_dict(self) -> dict[str, object]:
        """For ``--json``; ``verified`` is null where nothing was checked."""
        return {"kept": self.kept, "verified": [each.to_dict() for each in self.dated] if self.checked else None}

    @property
    def note(self) -> str | None:
        """For people: what was not done."""
        if self.checked or not self.kept:
            return None
        return f"there are timestamps ({self.kept}), which were not checked; give --tsa-ca"


def authorities_of(path: Path | None) -> "tuple[Certificate, ...] | None":
    """The certificates of ``--tsa-ca``; None where it was not given.

    Raises:
        SettingsError: they can't be read; ``missing_extra``.
    """
    if path is None:
        return None
    from cra_mcp.trace.timestamp import require_extra  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.timestamping import load_authorities  # noqa: PLC0415 - as said

    require_extra()
    return load_authorities(path)


def dates_of(
    signed: "Sequence[SignedCheckpoint]", authorities: "Sequence[Certificate] | None", lines: Sequence[bytes] = ()
) -> Dates:
    """Check every timestamp in checkpoints whose own signatures were verified; ``lines`` are those of the trace, if at hand."""
    from cra_mcp.trace.timestamp import stamps_of, verify_stamp, without_stamps  # noqa: PLC0415 - not for --help

    found = [(each, stamp) for each in signed for stamp in stamps_of(each)]
    if authorities is None:
        return Dates(len(found))
    if not found:
        return Dates(fault=("timestamp_missing", "none of its checkpoints has a timestamp"), checked=True)
    dated: list[Dated] = []
    fault: tuple[str, str] | None = None
    for each, stamp in found:
        try:
            timestamp = verify_stamp(stamp.token, without_stamps(each), authorities)
            dated.append(Dated(each.checkpoint.size, timestamp, _recorded(lines, each.checkpoint.size)))
        except TraceError as error:
            fault = fault or (error.code, f"checkpoint of {count_of(each.checkpoint.size, 'event')}: {error.message}")
    dated.sort(key=lambda one: (one.size, one.timestamp.time))
    return Dates(len(found), tuple(dated), fault, checked=True)


def _recorded(lines: Sequence[bytes], size: int) -> str | None:
    from cra_mcp.trace.event import parse  # noqa: PLC0415 - not for --help

    with suppress(TraceError, IndexError):  # a chain that is broken or cut off is told of elsewhere
        return parse(lines[size - 1]).timestamp
    return None
