"""Small MCP servers over standard input and output, most of them bad ones: ``server.py MODE FOLDER [ARGUMENT…]``.

Standard library only, raw JSON-RPC, so that they can break every rule. They note what happens to them in files of FOLDER.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Message = Mapping[str, object]

MODE, FOLDER = sys.argv[1], Path(sys.argv[2])
ARGUMENTS = sys.argv[3:]
LOCK = threading.Lock()


def note(name: str, text: object) -> None:
    """Add a line to a file of FOLDER."""
    with (FOLDER / name).open("a") as file:
        file.write(f"{text}\n")


def noted(name: str) -> int:
    path = FOLDER / name
    return len(path.read_text().splitlines()) if path.exists() else 0


def write(data: bytes) -> None:
    with LOCK:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def send(message: Message) -> None:
    write(json.dumps(message).encode() + b"\n")


def answer(request: Message, result: object) -> None:
    send({"jsonrpc": "2.0", "id": request["id"], "result": result})


def refuse(request: Message, code: int, message: str) -> None:
    send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}})


def text(value: object) -> Message:
    return {"content": [{"type": "text", "text": value}]}


def arguments(request: Message) -> dict[str, object]:
    return request["params"].get("arguments") or {}  # type: ignore[attr-defined]


# --- how each mode answers tools/call ----------------------------------------------------------------------------------


def progress(request: Message) -> None:
    token = request["params"]["_meta"]["progressToken"]  # type: ignore[index]
    for done in (1, 2, 3):
        params = {"progressToken": token, "progress": done, "total": 3, "message": f"step {done}"}
        send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    answer(request, text("done"))


WAITING: list[Message] = []


def hostile(request: Message) -> None:
    """Writes an answer as it is given, a part repeated and the id filled in; then answers the calls that wait."""
    given = arguments(request)
    data = given["before"] + given["part"] * given["times"] + given["after"]  # type: ignore[operator]
    write(data.replace("ID", str(request["id"])).encode() + b"\n")
    for waiting in WAITING:
        answer(waiting, text("done all the same"))
    WAITING.clear()
    if given.get("die"):
        os._exit(1)


def wait(request: Message) -> None:
    WAITING.append(request)
    note("waiting", os.getpid())


TOOLS: Mapping[str, Callable[[Message], None]] = {
    "echo": lambda request: answer(request, text(arguments(request).get("text", ""))),
    "fail": lambda request: answer(request, {**text("it went wrong"), "isError": True}),
    "error": lambda request: refuse(request, -32602, "no\nsuch\x1b[31m tool " + "x" * 2000),
    "hang": lambda _: note("started", os.getpid()),
    "pid": lambda request: answer(request, text(str(os.getpid()))),
    "environment": lambda request: answer(request, {"content": [], "structuredContent": dict(os.environ)}),
    "where": lambda request: answer(request, text(os.getcwd())),
    "blocks": lambda request: answer(request, json.loads((FOLDER / "blocks.json").read_text())),
    "progress": progress,
    "hostile": hostile,
    "wait": wait,
}


def good(request: Message) -> None:
    """A good server."""
    TOOLS[request["params"]["name"]](request)  # type: ignore[index]


def modern(request: Message) -> None:
    """A server of the newest protocol alone."""
    match arguments(request).get("text"):
        case "ask":
            answer(request, {"resultType": "input_required", "inputRequests": {}, "requestState": "x"})
        case given:
            answer(request, {"resultType": "complete", **text(given)})


def hang(request: Message) -> None:
    note("started", os.getpid())


def die(request: Message) -> None:
    note("calls", "x")
    if noted("calls") <= int(ARGUMENTS[0]):
        os._exit(1)
    answer(request, text("alive"))


def huge(request: Message) -> None:
    answer(request, text("x" * int(ARGUMENTS[0])))


def endless_line(request: Message) -> None:
    note("started", os.getpid())
    while True:
        write(b"x" * 65536)


def flood(request: Message) -> None:
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n'
    while True:
        write(line * 100)


def flood_requests(request: Message) -> None:
    line = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    while True:
        write(line * 100)


def flood_garbage(request: Message) -> None:
    while True:
        write(b"this is not JSON at all, it is a log line\n" * 1000)


def malformed(request: Message) -> None:
    answer(request, json.loads(ARGUMENTS[0]))


def raw(request: Message) -> None:
    """The bytes of a whole answer, its id filled in."""
    write(ARGUMENTS[0].replace("ID", str(request["id"])).encode() + b"\n")


def raw_first(request: Message) -> None:
    """The bytes of ``raw``, and then an answer."""
    raw(request)
    answer(request, text("the answer"))


def deaf(request: Message) -> None:
    """Answers once, then reads no more."""
    answer(request, text("once"))
    note("deaf", os.getpid())
    while True:
        time.sleep(60)


def die_after(request: Message) -> None:
    """Answers, then dies at once."""
    answer(request, text(str(os.getpid())))
    os._exit(1)


CALLS: Mapping[str, Callable[[Message], None]] = {
    "good": good,
    "garbage": good,
    "stubborn": good,
    "modern": modern,
    "hang": hang,
    "die": die,
    "die-after": die_after,
    "huge": huge,
    "endless-line": endless_line,
    "flood": flood,
    "flood-garbage": flood_garbage,
    "flood-requests": flood_requests,
    "malformed": malformed,
    "raw": raw,
    "raw-first": raw_first,
    "deaf": deaf,
    "crash-at-start": good,
    "hang-at-start": good,
    "refuse-at-start": good,
    "flood-at-start": good,
}


def initialize(request: Message) -> None:
    version = request["params"]["protocolVersion"]  # type: ignore[index]
    info = {"name": "test", "version": "1"}
    answer(request, {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})


def start(request: Message) -> None:
    match MODE:
        case "crash-at-start":
            os._exit(3)
        case "hang-at-start":
            return
        case "refuse-at-start":
            refuse(request, -32600, "go away")
        case "flood-at-start":
            flood(request)
        case "modern":
            refuse(request, -32601, "Method not found")
        case _:
            note("initialize", json.dumps(request["params"]["capabilities"]))  # type: ignore[index]
            initialize(request)


def discover(request: Message) -> None:
    if MODE != "modern":
        refuse(request, -32601, "Method not found")
        return
    note("discover", os.getpid())
    meta = {"io.modelcontextprotocol/serverInfo": {"name": "test", "version": "1"}}
    answer(
        request,
        {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": meta,
        },
    )


def handle(message: Message) -> None:
    match message.get("method"):
        case "initialize":
            start(message)
        case "server/discover":
            discover(message)
        case "tools/call":
            CALLS[MODE](message)
        case "notifications/cancelled":
            note("cancelled", json.dumps(message["params"]))
        case "tools/list":
            note("listed", "x")
            answer(message, {"tools": []})


def main() -> None:
    note("pids", os.getpid())
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time\nwhile True: time.sleep(60)"])
        note("pids", child.pid)
    if MODE == "garbage":
        write(b"Starting up...\n\xff\xfe\n[1,2\n{}\n")
    for line in sys.stdin.buffer:
        handle(json.loads(line))
        if MODE == "garbage":
            write(b"handled a message\n\x00\n")
    while MODE == "stubborn":
        time.sleep(60)


main()
