"""Kills writers: ``crash_rounds.py STORE FOLDER ROUNDS RATE_HZ SEED``; STORE is file or sqlite, and rate 0 flat out.

Prints a JSON object of what came of it.

Each writer is a fork that reports every sequence it got acknowledged, over files so small that they follow each other; it is killed
(signal 9) after a random number of reports. Then the chain is recovered, held to the writer's word, and continued.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.event import Draft, verify
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.store import TraceStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
SPAN = "01980000-0000-7000-8000-000000000002"
BOUNDS = Bounds(segment_bytes=20_000)


def open_store(folder: Path) -> TraceStore:
    if sys.argv[1] == "sqlite":
        return SqliteStore(folder / "traces.sqlite3")
    return FileStore(folder, flush_interval_s=0.005, bounds=BOUNDS)


def write(folder: Path, report: int, rate_hz: int, chance: random.Random) -> None:
    """Until killed."""
    store = open_store(folder)
    store.begin(SESSION, SPAN)
    while True:
        drafts = [Draft("x.test.note", {"n": "a" * chance.randrange(900)}, SPAN)] * chance.randrange(1, 5)
        head = store.append(SESSION, drafts, durable=chance.random() < 0.02)
        os.write(report, f"{head.sequence} {head.event_hash}\n".encode())
        if rate_hz:
            time.sleep(1 / rate_hz)


def one_round(folder: Path, rate_hz: int, chance: random.Random) -> dict[str, object]:
    """Start a writer and kill it; what was left. Twice, so that the second finds what the first left."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            write(folder, write_end, rate_hz, chance)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as reports:
        heard = [reports.readline() for _ in range(chance.randrange(1, 40 if rate_hz else 400))]
        os.kill(child, signal.SIGKILL)
        heard += reports.read().splitlines(keepends=True)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    acknowledged = [line.split() for line in heard if line.endswith(b"\n")]
    store = open_store(folder)
    assert [info.live for info in store.sessions()] == [False]
    done = store.recover(SESSION)
    lines = store.read(SESSION)
    checked = verify(lines, session_id=SESSION, tail=store.unfinished(SESSION))
    assert checked.ok, checked
    assert done.code in {None, "truncated"}, done
    for sequence, event_hash in acknowledged:
        assert lines[int(sequence)].startswith(b'{"event_hash":"' + event_hash)
    store.begin(SESSION, SPAN)
    assert store.append(SESSION, [Draft("x.test.note", {}, SPAN)]).sequence == len(lines)
    store.close()
    assert list(folder.rglob("*.lock")) == []
    return {
        "acknowledged": len(acknowledged),
        "torn": done.code is not None,
        "files": len(list(folder.rglob("*.*"))),
    }


def main() -> None:
    folder, rounds, rate_hz, seed = Path(sys.argv[2]), *map(int, sys.argv[3:])
    chance = random.Random(seed)
    found = [one_round(folder / str(number // 2), rate_hz, chance) for number in range(rounds)]
    total = {name: sum(int(each[name]) for each in found) for name in found[0]}
    print(json.dumps({"rounds": len(found), **total}))  # noqa: T201


if __name__ == "__main__":
    main()
