"""Fills a disk: ``full_disk.py STORE FOLDER``; STORE is file or sqlite, FOLDER on a disk that is small.

Room comes and goes three times.
"""

import json
import sys
from pathlib import Path

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.event import Draft, parse, verify
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.store import TraceStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
SPAN = "01980000-0000-7000-8000-000000000002"


def open_store(folder: Path) -> TraceStore:
    if sys.argv[1] == "sqlite":
        return SqliteStore(folder / "traces" / "traces.sqlite3")
    return FileStore(folder / "traces", flush_interval_s=0.005, bounds=Bounds(segment_bytes=30_000))


def main() -> None:
    folder = Path(sys.argv[2])
    for turn in range(3):
        (folder / f"filler-{turn}").write_bytes(b"x" * 400_000)
    store = open_store(folder)
    store.begin(SESSION, SPAN)
    acknowledged, refused = [], 0
    for turn in range(3):
        filler = folder / f"filler-{turn}"
        for number in range(2_000):
            try:
                draft = Draft("x.test.note", {"n": "a" * 500}, SPAN)
                acknowledged.append(store.append(SESSION, [draft] * 3, durable=number % 7 == turn))
            except TraceUnavailableError as error:
                refused += "space" in (error.hint or "")
                break
        else:
            raise AssertionError("it was never full")
        try:
            store.begin(SPAN, SPAN)
        except TraceUnavailableError:
            refused += 1
        filler.unlink()
        acknowledged.append(store.append(SESSION, [Draft("x.test.note", {"n": "room"}, SPAN)], durable=True))
        more = Draft("x.test.note", {"n": "more"}, SPAN)
        acknowledged.extend(store.append(SESSION, [more]) for _ in range(10))
    store.close()
    reader = open_store(folder)
    lines = reader.read(SESSION)
    assert verify(lines, session_id=SESSION, tail=reader.unfinished(SESSION)).ok
    assert len(lines) == acknowledged[-1].sequence + 1
    assert all(parse(lines[head.sequence]).event_hash == head.event_hash for head in acknowledged)
    print(json.dumps({"refused": refused, "files": len(list((folder / "traces").rglob("*.*")))}))  # noqa: T201


if __name__ == "__main__":
    main()
