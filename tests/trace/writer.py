"""A process of its own that writes one chain: ``writer.py folder session mode``. It reports each acknowledged sequence."""

import os
import sys
from pathlib import Path

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.event import Draft
from cra_mcp.trace.file import FileStore

SPAN = "01980000-0000-7000-8000-000000000002"


def note(text: str) -> Draft:
    return Draft("x.test.note", {"note": text}, SPAN)


def flat_out(store: FileStore, session: str) -> None:
    """Until killed."""
    while True:
        head = store.append(session, [note("a" * 200), note("b")], durable=False)
        os.write(1, f"{head.sequence}\n".encode())


def hold(store: FileStore, session: str) -> None:
    """One event, then wait to be told."""
    store.append(session, [note("held")])
    os.write(1, b"0\n")
    sys.stdin.readline()
    store.close()


def limited(store: FileStore, session: str) -> None:
    """Against a limit on file sizes that falls inside an event; then the limit is lifted."""
    import resource  # noqa: PLC0415 - not on Windows

    good = store.append(session, [note("first")])
    size = store.sessions()[0].size_bytes
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1_000, hard))
    for durable in (False, True):
        try:
            store.append(session, [note("x" * 300) for _ in range(4)], durable=durable)
        except TraceUnavailableError as error:
            left = store.sessions()[0].size_bytes - size
            os.write(1, f"{error.code} {bool(error.hint)} {store.head(session) == good} {left}\n".encode())
    store.append(session, [note("fits")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    head = store.append(session, [note("x" * 300) for _ in range(4)])
    os.write(1, f"{head.sequence}\n".encode())


def unprivileged(store: FileStore, session: str) -> None:
    """In a folder that may not be written, as someone whom that stops."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        store.begin(session, session)
    except TraceUnavailableError as error:
        os.write(1, f"{error.code} {bool(error.hint)}\n".encode())


def main() -> None:
    folder, session, mode = sys.argv[1:]
    store = FileStore(Path(folder))
    if mode != "unprivileged":
        store.begin(session, session)
    {"flat_out": flat_out, "hold": hold, "limited": limited, "unprivileged": unprivileged}[mode](store, session)


if __name__ == "__main__":
    main()
