"""``trace show``: a story on a terminal, or as plain text."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cra_mcp.faces.cli.output import emit, paint, printable
from cra_mcp.faces.cli.wording import Block, Fact, blocks, span_of_time, tally
from cra_mcp.trace.telling import tell

if TYPE_CHECKING:
    from cra_mcp.faces.cli.kept_atlases import KeptAtlases
    from cra_mcp.trace.story import Story

_COLOURS = {"good": "green", "bad": "red", "waiting": "yellow"}
_MAX_TEXT = 400
_LABEL_CHARS = 9
_PLAIN_COLUMNS = 120
_LEAST_COLUMNS = 40


def print_story(session_id: str, lines: Sequence[bytes], kept: "KeptAtlases") -> int:
    """Print the story of a session (stdout); how many lines can't be read."""
    story = tell(lines)
    for line in _opening(session_id, story):
        emit(line)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_COLUMNS
    for block in blocks(story, kept):
        for line in _lines(block, max(columns, _LEAST_COLUMNS)):
            emit(line)
    return len(story.unreadable)


def _opening(session_id: str, story: "Story") -> Iterator[str]:
    goal = story.origin("goal")
    yield f"{paint('Session', 'bold')} {session_id}"
    yield f"  {_cut(story.origin('agent_id') or '?')}: {_cut(goal) if goal else 'no goal given'}"
    for ref in story.atlases_at(0):
        yield f"  under {_cut(ref.atlas_id)} {_cut(ref.version)}"
    yield f"  {_cut(span_of_time(story))}"
    yield f"  {tally(story)}"


def _lines(block: Block, columns: int) -> Iterator[str]:
    indent = "  " if block.under else ""
    if block.kind in {"request", "call"}:
        yield ""
    title = _cut(block.title)
    colour = _COLOURS.get(block.tone)
    painted = paint(title, colour) if colour is not None else paint(title, "bold")
    where = f"{block.place:<8} {block.time:<12}"
    text = f"  {_cut(block.text)}" if block.text else ""
    head = _wrap(f"{title}{text}", columns - len(indent) - len(where) - 2, "  ") or [title]
    for number, line in enumerate(head):
        if number:
            yield f"{indent}{' ' * len(where)}  {line}"
        else:
            rest = line.removeprefix(title)
            yield f"{indent}{paint(where, 'dim')}  {painted if rest != line else ''}{rest}"
    for fact in block.facts:
        yield from _fact(fact, indent + "    ", columns)


def _fact(fact: Fact, indent: str, columns: int) -> Iterator[str]:
    colour = _COLOURS.get(fact.tone)
    wide = _wrap(_cut(fact.text), columns - len(indent) - _LABEL_CHARS) or [""]
    for number, line in enumerate(wide):
        label = paint(fact.label.ljust(_LABEL_CHARS), "dim") if not number else " " * _LABEL_CHARS
        yield f"{indent}{label}{paint(line, colour) if colour is not None else line}"


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _cut(text: str) -> str:
    """Foreign text as far as it is worth reading here, without what could steer a terminal."""
    return printable(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…")
