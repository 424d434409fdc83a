"""Traces that should be there: signed, by the checkpoints beside them, and without a line.

Rule: several stores may keep their checkpoints in one folder; what any of them has is there.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cra_mcp.errors import TraceError
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.store import TraceStore


def signed_and_gone(config: "RuntimeConfig", there: Collection[str]) -> list[str]:
    """The sessions of which there are checkpoints in the trace folder, and events neither in ``there`` nor in another store."""
    from cra_mcp.trace.event import is_identifier  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.keeping import STAMPED, SUFFIX  # noqa: PLC0415 - as said

    try:
        names = os.listdir(config.trace_path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    signed = {name[:36] for name in names if name[36:] in {SUFFIX, STAMPED} and is_identifier(name[:36])}
    missing = signed.difference(there)
    return sorted(missing - set(_elsewhere(config))) if missing else []


def unlisted(config: "RuntimeConfig") -> list[tuple[str, str, str]]:
    """The sessions of which a store has something and that it does not list: each with a code and what is wrong.

    Raises:
        TraceUnavailableError: it can't be read.
    """
    from cra_mcp.compose import database_of  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.sqlite import orphans  # noqa: PLC0415 - as said

    database = database_of(config)
    found = orphans(database) if database is not None and database.is_file() else []
    what = "the table `events` holds {} of it, and the table `chains` does not know it"
    lost = [(session_id, "orphaned_events", what.format(count_of(count, "event"))) for session_id, count in found]
    return lost if config.store != "file" else [*lost, *_replaced(config.trace_path)]


def _replaced(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The sessions in the place of whose file something else lies: nobody reads through it."""
    from cra_mcp.trace.event import is_identifier  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.segments import SUFFIX  # noqa: PLC0415 - as said

    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        session_id = entry.name.removesuffix(SUFFIX)
        if entry.name.endswith(SUFFIX) and is_identifier(session_id) and not entry.is_file(follow_symlinks=False):
            yield session_id, "not_a_file", f"{entry.name} is a link, a pipe or a folder, and no trace"


def misnamed_file(config: "RuntimeConfig", store: "TraceStore", name: str) -> tuple[str, str] | None:
    """The fault of a trace in files of which one is not named by its first event; readers go by the names."""
    from cra_mcp.faces.cli.stores import find_session  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.segments import misnamed, segments_of  # noqa: PLC0415 - as said

    if config.store != "file" or name.endswith(".jsonl") or os.path.isfile(name):
        return None
    try:
        segment = misnamed(segments_of(config.trace_path, find_session(store, name)))
    except OSError:
        return None
    if segment is None:
        return None
    return "segment_misnamed", f"{segment.path.name} does not begin with the event it is named by"


def _elsewhere(config: "RuntimeConfig") -> Iterator[str]:
    """The sessions of the stores that keep their checkpoints in this folder: of files in it, and of databases it knows."""
    from cra_mcp.atlas import archive_upkeep  # noqa: PLC0415 - only where something is missing
    from cra_mcp.atlas.archive import FOLDER  # noqa: PLC0415 - as said
    from cra_mcp.trace.file import FileStore  # noqa: PLC0415 - as said
    from cra_mcp.trace.sqlite import SqliteStore  # noqa: PLC0415 - as said

    yield from _of(FileStore(config.trace_path))
    databases: list[Path] = []
    with suppress(OSError):
        databases = archive_upkeep.databases(config.trace_path / FOLDER)
    for path in databases:
        yield from _of(SqliteStore(path))


def _of(store: "TraceStore") -> list[str]:
    try:
        return [info.session_id for info in store.sessions()]
    except TraceError:  # one that can't be read has nothing to show
        return []
    finally:
        store.close()
