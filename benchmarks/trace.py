"""What recording and verifying cost: one event into the file store, hot, after idling and durable; verifying a chain.

    python benchmarks/trace.py [--json] [--folder DIR]

Each figure stands beside its floor, taken in turns within the same run, so that a busy machine slows both: for events, the
same bytes written (and flushed) by one bare system call; for checkpoints, the event without them; for verification, hashing
the same bytes, both in processor time. The spread is the lowest
and highest median of the rounds. Put --folder on the disk that is to be measured.
"""

import argparse
import hashlib
import json
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import orjson

from cra_mcp.trace.checkpoint import SignerKey
from cra_mcp.trace.checkpointing import Checkpointer
from cra_mcp.trace.detect.detectors import Detectors
from cra_mcp.trace.event import Draft, split_lines, verify
from cra_mcp.trace.export.live import LiveExport
from cra_mcp.trace.export.sinks import sink_of
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.keeping import KeptCheckpoints
from cra_mcp.trace.redacting import RedactingStore
from cra_mcp.trace.store import new_identifier

BAR_APPEND_US = 10.0
BAR_IDLE_US = 60.0
BAR_DURABLE = 1.5  # times a bare append and flush
BAR_VERIFY_PER_S = 150_000
ROUNDS = 15
VERIFY_ROUNDS = 60  # short ones: some fall between what else the machine does
IDLE_S = 0.001
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ID = "01980000-0000-7000-8000-0000000000b1"
# The events of one call, as the gate writes them; they are recorded in turn.
CALL: tuple[tuple[str, dict[str, object]], ...] = (
    (
        "action.requested",
        {
            "action_id": "ticket.update",
            "parameters": {"id": 1042, "status": "open", "note": "customer called again"},
            "parameters_hash": DIGEST,
            "recording": "redacted",
        },
    ),
    (
        "policy.evaluated",
        {
            "action_id": "ticket.update",
            "policy_id": "allow-tickets",
            "result": "allow",
            "basis": "allow",
            "determining": ["allow-tickets"],
        },
    ),
    (
        "action.approved",
        {"action_id": "ticket.update", "resolution_id": ID, "execution_id": ID, "approval_id": None},
    ),
    (
        "action.executed",
        {
            "action_id": "ticket.update",
            "execution_id": ID,
            "duration_ms": 12.345,
            "result_hash": DIGEST,
            "result_bytes": 812,
        },
    ),
)


@dataclass(frozen=True)
class Figure:
    """One measured thing: microseconds, its floor in the same run, and the bar it is held to (None: none is set)."""

    name: str
    p50_us: float
    p99_us: float
    lowest_us: float
    highest_us: float
    floor_us: float
    ratio: float
    bar_us: float | None
    met: bool | None
    bar_ratio: float | None = None


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1_000


def processor_time(call: Callable[[], object]) -> float:
    """Microseconds of processor time that ``call`` takes on this thread."""
    start = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - start) / 1_000


def paired(
    name: str,
    call: Callable[[], object],
    floor: Callable[[], object],
    *,
    samples: int,
    idle_s: float = 0.0,
    bar_us: float | None = None,
    bar_ratio: float | None = None,
) -> Figure:
    """Rounds of ``samples`` calls, each round followed by one of its floor."""
    times: list[float] = []
    medians: list[float] = []
    floors: list[float] = []
    for _ in range(ROUNDS):
        for measured, into in ((call, times), (floor, floors)):
            measured()  # the first after the other kind is warm-up
            taken: list[float] = []
            for _ in range(samples):
                if idle_s:
                    time.sleep(idle_s)
                taken.append(timed(measured))
            into.extend(taken)
            if measured is call:
                medians.append(statistics.median(taken))
    times.sort()
    p50, least = statistics.median(times), statistics.median(floors)
    return Figure(
        name=name,
        p50_us=p50,
        p99_us=times[int(len(times) * 0.99)],
        lowest_us=min(medians),
        highest_us=max(medians),
        floor_us=least,
        ratio=p50 / least,
        bar_us=bar_us,
        met=None
        if bar_us is None and bar_ratio is None
        else (bar_us is None or p50 <= bar_us) and (bar_ratio is None or p50 / least <= bar_ratio),
        bar_ratio=bar_ratio,
    )


def recording(folder: Path) -> list[Figure]:
    store = FileStore(folder / "store")
    session, span, parent = new_identifier(), new_identifier(), new_identifier()
    store.begin(session, new_identifier())
    kinds = cycle(CALL)
    line = b"x" * 680  # their mean size
    fd = os.open(folder / "floor", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    flush = getattr(os, "fdatasync", os.fsync)

    def append(*, durable: bool = False) -> None:
        event_type, payload = next(kinds)
        store.append(session, (Draft(event_type, payload, span, parent),), durable=durable)

    def bare() -> None:
        os.write(fd, line)

    def bare_durable() -> None:
        os.write(fd, line)
        flush(fd)

    for _ in range(2_000):
        append()
    try:
        return [
            paired("append, hot", append, bare, samples=1_500, bar_us=BAR_APPEND_US),
            paired("append, after 1 ms idle", append, bare, samples=60, idle_s=IDLE_S, bar_us=BAR_IDLE_US),
            paired("append, durable", lambda: append(durable=True), bare_durable, samples=30, bar_ratio=BAR_DURABLE),
        ]
    finally:
        store.close()
        os.close(fd)


def exporting(folder: Path) -> list[Figure]:
    """One event into the file store with its export on, and with one whose receiver is dead; the floor is the same without.

    Paced at 1 ms, as calls come; and flat out, where the thread of the export competes for the interpreter.
    """
    figures: list[Figure] = []
    with socket.socket() as dead:  # bound and not listening: connections are refused
        dead.bind(("127.0.0.1", 0))
        for name, spec in (
            ("file", f"file:{folder / 'out'}"),
            ("dead", f"otlp+http://127.0.0.1:{dead.getsockname()[1]}"),
        ):
            for pace, idle_s, samples in (("1 ms", IDLE_S, 60), ("hot", 0.0, 500)):
                plain, tapped = (Appending(folder / f"{name}-{pace}-{each}") for each in ("off", "on"))
                export = LiveExport(sink_of(spec, {}), folder / "dead.jsonl")
                tapped.store.tap = export
                figures.append(
                    paired(
                        f"append, export {name}, {pace}", tapped.append, plain.append, samples=samples, idle_s=idle_s
                    )
                )
                export.close()
                plain.store.close()
                tapped.store.close()
    return figures


class Appending:
    """A store and a session into which events are appended in turn."""

    def __init__(self, folder: Path, detectors: Detectors | None = None) -> None:
        files = FileStore(folder)
        self.store = files if detectors is None else RedactingStore(files, detectors)
        self._ids = (new_identifier(), new_identifier(), new_identifier())
        self._kinds = cycle(CALL)
        self.store.begin(self._ids[0], new_identifier())

    def append(self) -> None:
        event_type, payload = next(self._kinds)
        self.store.append(self._ids[0], (Draft(event_type, payload, *self._ids[1:]),))


def redacting(folder: Path) -> list[Figure]:
    """Searching what a call sends for secrets, which every call pays; with one found; and the most that is kept of one."""
    detectors = Detectors(key=lambda: b"k" * 32)
    plain = CALL[0][1]["parameters"]
    mail = {"id": 1042, "to": "ann@example.com", "note": "customer called again"}
    prose = {"text": "the customer called again about order 1042 " * 1_500}
    data = orjson.dumps(prose)
    through, plain_store = Appending(folder / "through", detectors), Appending(folder / "plain")
    return [
        paired("append, redacted, hot", through.append, plain_store.append, samples=1_500),
        paired("redaction, nothing found", lambda: detectors.value(plain), lambda: orjson.dumps(plain), samples=1_500),
        paired("redaction, one found", lambda: detectors.value(mail), lambda: orjson.dumps(mail), samples=500),
        paired("redaction, 64 KiB of prose", lambda: detectors.value(prose), data.lower, samples=20),
    ]


def with_checkpoints(folder: Path) -> Figure:
    """What checkpoints add to an event: its floor is the same event without them, in a store of its own."""
    folder = folder / "checkpoints"
    signed, plain = FileStore(folder / "signed"), FileStore(folder / "plain")
    checkpointer = Checkpointer(
        store=signed, key=SignerKey.generate, kept=KeptCheckpoints(folder / "signed"), every=1_000, interval_s=60
    )
    checkpointer.prepare()
    signed.tap = checkpointer
    session, span, parent = new_identifier(), new_identifier(), new_identifier()
    for store in (signed, plain):
        store.begin(session, new_identifier())
    kinds = cycle(CALL)

    def append(store: FileStore) -> None:
        event_type, payload = next(kinds)
        store.append(session, (Draft(event_type, payload, span, parent),))

    for _ in range(2_000):
        append(signed)
        append(plain)
    try:
        return paired("append, with checkpoints", lambda: append(signed), lambda: append(plain), samples=1_500)
    finally:
        for store in (signed, plain):
            store.close()
        checkpointer.close()


def chain(folder: Path, events: int) -> tuple[str, list[bytes]]:
    """A session and its lines: calls that differ in every value, so that nothing can be remembered from one to the next."""
    store = FileStore(folder)
    session, parent = new_identifier(), new_identifier()
    store.begin(session, new_identifier())
    for number in range(events // len(CALL)):
        span, execution, digest = new_identifier(), new_identifier(), hashlib.sha256(b"%d" % number).hexdigest()
        differing = {
            "parameters": {"id": number, "status": "open", "note": f"customer called again about {number * 7919}"},
            "parameters_hash": digest,
            "resolution_id": execution,
            "execution_id": execution,
            "duration_ms": number % 9_973 / 1_000 + 0.0005,
            "result_hash": digest,
            "result_bytes": number % 4_096,
        }
        for event_type, payload in CALL:
            own = {name: differing.get(name, value) for name, value in payload.items()}
            store.append(session, (Draft(event_type, own, span, parent),))
    lines = store.read(session)
    store.close()
    return session, lines


def verifying(folder: Path) -> Figure:
    """Processor time, so that what else runs on the machine counts as little as it can."""
    events = 4_000
    session, lines = chain(folder / "verify", events)
    times: list[float] = []
    floors: list[float] = []
    for _ in range(VERIFY_ROUNDS):
        times.append(processor_time(lambda: verify(lines, session_id=session)) / events)
        floors.append(processor_time(lambda: [hashlib.sha256(line).hexdigest() for line in lines]) / events)
    p50, least = statistics.median(times), statistics.median(floors)
    bar_us = 1e6 / BAR_VERIFY_PER_S
    return Figure(
        "verify, per event (cpu)", p50, max(times), min(times), max(times), least, p50 / least, bar_us, p50 <= bar_us
    )


def verify_file(path: str) -> None:
    """Read a trace and verify it, as ``trace verify`` does."""
    lines, tail = split_lines(Path(path).read_bytes())
    if not verify(lines, tail=tail).ok:
        raise SystemExit("a good chain does not verify")


def scaling(folder: Path) -> Figure:
    """Files verified by as many processes as there are processors; the floor is one process. The figures are microseconds an event,
    of wall time: the ratio is below 1 as far as processors are free, and the best is 1 / processors."""
    events, processors = 4_000, os.cpu_count() or 1
    paths: list[str] = []
    for number in range(4 * processors):
        session, _ = chain(folder / f"scaling-{number}", events)
        paths.append(str(folder / f"scaling-{number}" / f"{session}.trace.jsonl"))
    total = events * len(paths)
    with ProcessPoolExecutor(processors) as many, ProcessPoolExecutor(1) as one:

        def run(processes: ProcessPoolExecutor) -> float:
            return timed(lambda: list(processes.map(verify_file, paths))) / total

        run(many)
        run(one)
        turns = [(run(many), run(one)) for _ in range(ROUNDS)]
    times, floors = [many for many, _ in turns], [one for _, one in turns]
    return Figure(
        f"verify, {processors} processes",
        statistics.median(times),
        max(times),
        min(times),
        max(times),
        statistics.median(floors),
        statistics.median(many / one for many, one in turns),
        None,
        None,
    )


def machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def report(figures: list[Figure]) -> None:
    print(machine())
    print(f"{'':26}{'p50 us':>9}{'p99 us':>9}{'spread of medians':>20}{'floor us':>10}{'ratio':>7}  bar")
    for figure in figures:
        bound = f"<= {figure.bar_us:.4g} us" if figure.bar_us is not None else f"<= {figure.bar_ratio} times the floor"
        bar = "-" if figure.met is None else f"{bound}: {'met' if figure.met else 'MISSED'}"
        spread = f"{figure.lowest_us:.1f} - {figure.highest_us:.1f}"
        print(
            f"{figure.name:26}{figure.p50_us:9.1f}{figure.p99_us:9.1f}{spread:>20}{figure.floor_us:10.1f}{figure.ratio:7.1f}  {bar}"
        )
    verified = figures[-1]
    print(f"verified events per second: {1e6 / verified.p50_us:,.0f} (best round {1e6 / verified.lowest_us:,.0f})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = [
            *recording(Path(folder)),
            *redacting(Path(folder)),
            *exporting(Path(folder)),
            with_checkpoints(Path(folder)),
            scaling(Path(folder)),
            verifying(Path(folder)),
        ]
    if options.json:
        print(json.dumps({"machine": machine(), "figures": [asdict(figure) for figure in figures]}, indent=2))
    else:
        report(figures)
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
