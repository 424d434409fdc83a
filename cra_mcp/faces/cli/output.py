"""What commands print: data on stdout, people on stderr.

Rule: stdout carries UTF-8 with line feeds on every system, so that stored lines come out as they were hashed. What an agent, a
trace or a file name says must not steer the reader's terminal or pass for a line of ours: values go through ``printable``, and
``emit`` and ``say`` escape whatever is left. JSON is written so that it reads back the same and shows nothing raw.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from cra_mcp.errors import SettingsError
from cra_mcp.words import visible, visible_json, visible_lines

if TYPE_CHECKING:
    import io

READER_GONE = 141
"""Exit code where the reader of stdout has gone, as shells report it (128 + SIGPIPE)."""

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "dim": 2, "bold": 1}
_PAINT = re.compile(f"(\x1b\\[(?:0|{'|'.join(map(str, _COLOURS.values()))})m)")


def prepare_streams() -> None:
    """Fix encoding and line ends of the standard streams, whatever the locale says."""
    output, messages = cast("io.TextIOWrapper", sys.stdout), cast("io.TextIOWrapper", sys.stderr)
    output.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    messages.reconfigure(encoding="utf-8", errors="backslashreplace")


def say(text: str = "") -> None:
    """Tell people something (stderr): one line; line breaks in it are escaped like all that can't be seen."""
    sys.stderr.write(_shown(text) + "\n")


def say_text(text: str) -> None:
    """Tell people something of several lines (stderr)."""
    sys.stderr.write("\n".join(map(_shown, text.split("\n"))) + "\n")


def emit(text: str) -> None:
    """Give one line (stdout): line breaks in it are escaped like all that can't be seen, so no value fakes a line.

    Raises:
        SettingsError: ``output_unavailable``: it can't be written.
    """
    _write(_shown(text))


def emit_text(text: str) -> None:
    """Give a document as it is (stdout); on a terminal, escaped. Raises as ``emit``."""
    _write("\n".join(map(_shown, text.split("\n"))) if sys.stdout.isatty() else text)


def emit_line(line: bytes) -> None:
    """Give a stored line as it is, byte for byte (stdout); on a terminal, escaped as JSON."""
    text = line.decode("utf-8", "surrogateescape")
    _write(visible_json(text) if sys.stdout.isatty() else text)


def emit_bytes(data: bytes) -> None:
    """Give bytes as they are (stdout); on a terminal, without what could steer it.

    Raises:
        SettingsError: ``output_unavailable``: they can't be written.
    """
    try:
        if sys.stdout.isatty():
            sys.stdout.write(visible_lines(data.decode("utf-8", "replace").replace("\r\n", "\n")))
            return
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    except OSError as error:
        _give_up(error)


def emit_json(value: object, *, indent: bool = True) -> None:
    """Give data as JSON (stdout); without ``indent`` on one line."""
    import orjson  # noqa: PLC0415 - not for --help

    from cra_mcp.canonical import lossy  # noqa: PLC0415 - not for --help

    _write(visible_json(orjson.dumps(lossy(value), option=orjson.OPT_INDENT_2 if indent else 0).decode()))


def flush() -> None:
    """Hand on what was given so far.

    Raises:
        SettingsError: ``output_unavailable``: it can't be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(error)


def paint(text: str, colour: str, *, stream: TextIO | None = None) -> str:
    """Coloured text where a terminal reads it and nobody asked for none (NO_COLOR)."""
    target = stream if stream is not None else sys.stdout
    if not target.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, colours: Mapping[str, str] | None = None) -> None:
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
    """Foreign text on one line, with everything escaped that steers a reader or that nobody sees."""
    return visible(text)


def complain(message: str, hint: str | None = None) -> None:
    """Say what is wrong and what can be done (stderr)."""
    first, *rest = message.split("\n")
    say(f"{paint('error:', 'red', stream=sys.stderr)} {printable(first)}")
    for line in rest:
        say(f"  {printable(line)}")
    if hint:
        say(f"{paint('hint:', 'yellow', stream=sys.stderr)} {printable(hint)}")


def _coloured(part: str, colours: Mapping[str, str]) -> str:
    word = part.split(" ", 1)[0]
    return paint(part, colours[word]) if word in colours else part


def _write(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
    except OSError as error:
        _give_up(error)


def _shown(text: str) -> str:
    """One line with nothing raw in it but the colours of ``paint``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(part if number % 2 else visible(part) for number, part in enumerate(_PAINT.split(text)))


def _give_up(error: OSError) -> NoReturn:
    """Stdout takes no more: without a word if its reader has gone (``| head``). The interpreter's own last flush stays silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        sys.exit(READER_GONE)
    raise SettingsError(f"the output can't be written: {error.strerror}", code="output_unavailable") from error
