"""One event among all traces, by its id or hash.

Rule: an index only says where to look. What is found is read from the store, and is the event only if it calls itself so; where the
index is wrong, old, or not there, the traces are gone through.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from cra_mcp.errors import TraceError, TraceUnavailableError, UnknownTraceError

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.store import TraceStore

_UUID_TIME_CHARS = 13
_HASH_CHARS = 64


def find_event(config: "RuntimeConfig", store: "TraceStore", what: str) -> tuple[str, int, list[bytes]]:
    """Session, position and all lines of the chain of an event.

    Args:
        config: says where the index is, if there is one.
        store: where the traces are.
        what: the id or the hash of an event.

    Raises:
        UnknownTraceError: there is none.
        typer.BadParameter: it is neither an id nor a hash.
    """
    needle = _needle(what)
    for session_id, sequence in _indexed(config, what):
        with suppress(UnknownTraceError):
            if any(_is(line, what) for line in store.read(session_id, after=sequence - 1, limit=1)):
                return session_id, sequence, store.read(session_id)
    for session_id in _likely(store, what):
        lines = store.read(session_id)
        for place, line in enumerate(lines):
            if needle in line and _is(line, what):
                return session_id, place, lines
    raise UnknownTraceError(
        f"no event has the id or hash {what[:80]!r}", hint="give a session and a sequence, as in `trace why latest 10`"
    )


def _indexed(config: "RuntimeConfig", what: str) -> Iterator[tuple[str, int]]:
    """Where an index that is there, brought up to date, has it."""
    from cra_mcp.compose import open_index  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.trace_search import follow  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.search import locate  # noqa: PLC0415 - not for --help

    index = open_index(config)
    if index is None or not index.exists():
        return
    try:
        follow(index)
        with index.reading() as connection:
            found = locate(connection, what)
    except TraceUnavailableError:  # someone else's folder, or a full disk: the traces can be read all the same
        return
    finally:
        index.close()
    yield from found


def _needle(what: str) -> bytes:
    """What the stored line of an event with this id or hash holds."""
    from cra_mcp.trace.event import is_identifier  # noqa: PLC0415 - not for --help

    if is_identifier(what):
        return f'"event_id":"{what}"'.encode()
    if len(what) == _HASH_CHARS and not what.strip("0123456789abcdef"):
        return f'"event_hash":"{what}"'.encode()
    raise typer.BadParameter(
        "must be the whole id or hash of an event, or a session with a SEQUENCE after it", param_hint="EVENT"
    )


def _is(line: bytes, what: str) -> bool:
    """Whether it is this event's own id or hash: a payload may name another's."""
    from cra_mcp.trace.event import parse  # noqa: PLC0415 - not for --help

    try:
        event = parse(line)
    except TraceError:
        return False
    return what in {event.event_id, event.event_hash}


def _likely(store: "TraceStore", what: str) -> Sequence[str]:
    """All sessions, those first that began before an id was made, which says when: the latest such first."""
    names = sorted((info.session_id for info in store.sessions()), reverse=True)
    if "-" not in what:
        return names
    born = what[:_UUID_TIME_CHARS]
    return [name for name in names if name[:_UUID_TIME_CHARS] <= born] + [
        name for name in names if name[:_UUID_TIME_CHARS] > born
    ]
