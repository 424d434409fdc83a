"""Times as people give them on the command line."""

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment_of(text: str | None, option: str) -> str | None:
    """A time as timestamps of events are written, so that texts compare as times do.

    Raises:
        typer.BadParameter: it is none.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            moment = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            "must be a time as 24h, 7d, 2026-11-21 or 2026-11-21T08:00Z", param_hint=option
        ) from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
