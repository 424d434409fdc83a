"""What commands print: data on stdout, people on stderr, and errors in one form.

Exit codes: 0 done; 1 the answer is no (denied, pending, invalid, broken, failed); 2 the command line is wrong; 3 the environment
is (a file, a folder, a lock, a setting); 130 interrupted.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

import orjson
import typer

from cra_mcp.canonical import lossy
from cra_mcp.errors import (
    AtlasInvalidError,
    CRAError,
    SettingsError,
    TraceLockedError,
    TraceUnavailableError,
    UnknownTraceError,
)

OK, NO, USAGE, ENVIRONMENT = 0, 1, 2, 3
EPILOG = (
    "Exit codes: 0 done; 1 the answer is no (denied, pending, invalid, broken); 2 wrong usage; 3 the environment is in the "
    "way (file, folder, lock, setting); 130 interrupted. Settings: CRA_* environment variables, see `cra-mcp doctor`."
)

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "dim": 2, "bold": 1}


def say(text: str = "") -> None:
    """Tell people something (stderr)."""
    sys.stderr.write(text + "\n")


def emit(text: str) -> None:
    """Give data (stdout)."""
    sys.stdout.write(text + "\n")


def emit_json(value: object) -> None:
    """Give data as JSON (stdout)."""
    sys.stdout.write(orjson.dumps(lossy(value), option=orjson.OPT_INDENT_2).decode() + "\n")


def paint(text: str, colour: str, *, stream: object = None) -> str:
    """Coloured text where a terminal reads it and nobody asked for none (NO_COLOR)."""
    target = stream if stream is not None else sys.stdout
    is_terminal = getattr(target, "isatty", lambda: False)()
    if not is_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, colours: dict[str, str] | None = None) -> None:
    """Give rows in columns (stdout); a cell whose first word is in ``colours`` is painted so."""
    cells = [list(head), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for number, row in enumerate(cells):
        parts = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number == 0:
            parts = [paint(part, "bold") for part in parts]
        elif colours:
            parts = [_coloured(part, colours) for part in parts]
        emit("  ".join(parts).rstrip())


def printable(text: str) -> str:
    """Text without control characters: what an agent sent must not steer the reader's terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def complain(message: str, hint: str | None = None) -> None:
    """Say what is wrong and what can be done (stderr)."""
    first, *rest = message.splitlines() or [""]
    say(f"{paint('error:', 'red', stream=sys.stderr)} {printable(first)}")
    for line in rest:
        say(f"  {printable(line)}")
    if hint:
        say(f"{paint('hint:', 'yellow', stream=sys.stderr)} {hint}")


def fail(error: CRAError) -> NoReturn:
    """Complain and end with the exit code of the error.

    Raises:
        typer.Exit: always.
    """
    if isinstance(error, AtlasInvalidError):
        count = len(error.problems)
        complain(f"the atlas has {count} problem{'s' if count != 1 else ''}", error.hint)
        for problem in error.problems:
            emit(printable(str(problem)))
    else:
        complain(f"{error.message} [{error.code}]", error.hint)
    raise typer.Exit(exit_code(error))


def exit_code(error: CRAError) -> int:
    """The exit code of an error."""
    environment = (SettingsError, TraceLockedError, TraceUnavailableError, UnknownTraceError)
    if isinstance(error, environment) or error.code in {"state_unavailable", "atlas_unreadable"}:
        return ENVIRONMENT
    return NO


def _coloured(part: str, colours: dict[str, str]) -> str:
    word = part.split(" ", 1)[0]
    return paint(part, colours[word]) if word in colours else part
