"""Nothing that is sent, or that a back end answers, keeps a server from answering others.

A hostile input is sent while ``/healthz`` is asked again and again. Of some tries the best counts: other work on the machine
delays an answer now and then, what holds the event loop does so every time. Where answers are slow with nothing sent, the bound
is a multiple of what they take then.
"""

import contextlib
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import ACCEPT, META, modern, request
from tests.faces.mcp.conftest import MANIFEST, Place, write_atlas

BOUND_S = 0.1
TRIES = 6
SLOWER = 4

_NODE = {"$ref": "#/$defs/node"}


def _kind(name: str) -> dict[str, Any]:
    members = {"kind": {"const": name}, "children": {"type": "array", "items": _NODE}}
    return {"type": "object", "properties": members, "required": ["kind", "children"], "additionalProperties": False}


_TREE = {
    "type": "object",
    "properties": {
        "tree": _NODE,
        "numbers": {"type": "array", "items": {"type": "integer"}},
        "text": {"type": "string"},
    },
    "$defs": {"node": {"oneOf": [_kind("folder"), _kind("album")]}},
}
_ANY = {"type": "object"}
_TOOLS = """
def keep(**given):
    return len(given)

def give(form, count):
    if form == "lists":
        return [[] for _ in range(count)]
    if form == "members":
        return {str(number): {} for number in range(count)}
    if form == "text":
        return "password=x@y.z 4111 " * count
    return list(range(count))
"""
_UPSTREAM = """
import json, sys
for line in sys.stdin.buffer:
    request = json.loads(line)
    if request.get("method") == "initialize":
        result = {"protocolVersion": request["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "u", "version": "1"}}
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
    elif request.get("method") == "tools/call":
        given = request["params"]["arguments"]
        head = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[' % request["id"]
        body = given["part"].encode() * given["times"]
        answer = head + given["before"].encode() + body + given["after"].encode()
    else:
        continue
    sys.stdout.buffer.write(answer + b"\\n")
    sys.stdout.buffer.flush()
"""


def _action(name: str, schema: Any, executor: Any, **more: Any) -> dict[str, Any]:
    return {
        "action_id": f"loop.{name}",
        "name": name,
        "description": name,
        "parameters_schema": schema,
        "executor": executor,
        **more,
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    folder = tmp_path_factory.mktemp("loop")
    python = {"type": "python", "callable": "loop_tools:keep"}
    actions = [
        _action("keep", _TREE, python),
        _action("any", _ANY, python),
        _action("give", _ANY, {"type": "python", "callable": "loop_tools:give"}),
        _action("ask", _ANY, {"type": "mcp", "upstream": "up", "tool": "x"}),
        _action("run", _ANY, {"type": "command", "argv": [sys.executable, "-c", "print('x,[,' * 3_000_000)"]}),
    ]
    upstreams = {"up": {"command": sys.executable, "args": ["upstream.py"]}}
    manifest = {**MANIFEST, "actions": [*MANIFEST["actions"], *actions], "upstreams": upstreams}
    atlas = write_atlas(folder / "atlas", manifest)
    (atlas / "python" / "loop_tools.py").write_text(_TOOLS)
    (atlas / "upstream.py").write_text(_UPSTREAM)
    with contextlib.closing(Servers(Place(folder, atlas))) as made:
        server = made.start()
        call(server, "ask", {"before": "", "part": "", "times": 0, "after": "]}}"})
        call(server, "keep", {})
        yield server


def call(server: HttpServer, name: str, arguments: object) -> Any:
    return modern(server, "tools/call", {"name": f"loop_{name}", "arguments": arguments})


def post(server: HttpServer, body: bytes) -> int:
    headers = {
        "Content-Type": "application/json",
        "Accept": ACCEPT,
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "loop_any",
    }
    return request(server, "POST", "/mcp", body, headers)[0]


def sent(arguments: bytes) -> bytes:
    meta = json.dumps(META).encode()
    head = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":' + meta
    return head + b',"name":"loop_any","arguments":' + arguments + b"}}"


def nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"kind": "nothing", "children": []}
    for _ in range(depth):
        tree = {"kind": "folder", "children": [tree]}
    return tree


def answer(part: str, times: int, before: str = '],"structuredContent":{"a":[', after: str = "0]}}}") -> dict[str, Any]:
    return {"before": before, "part": part, "times": times, "after": after}


HOSTILE: dict[str, Callable[[HttpServer], object]] = {
    "arguments that fit nothing, deep": lambda server: call(server, "keep", {"tree": nested(14)}),
    "arguments that fit nothing, many": lambda server: call(server, "keep", {"numbers": [[]] * 300_000}),
    "arguments of many members": lambda server: call(server, "any", {f"k{n}": n for n in range(60_000)}),
    "arguments nested deep": lambda server: post(server, sent(b"[" * 100_000 + b"]" * 100_000)),
    "arguments of many lists": lambda server: post(server, sent(b'{"a":[' + b"[]," * 1_300_000 + b"[]]}")),
    "arguments of as many lists as are taken": lambda server: post(server, sent(b'{"a":[' + b"[]," * 20_000 + b"[]]}")),
    "arguments of as many members as are taken": lambda server: call(
        server, "any", {f"k{n}": n for n in range(40_000)}
    ),
    "arguments of many texts": lambda server: call(server, "any", {"a": ["a@b.cd"] * 100_000}),
    "a text full of what might be a secret": lambda server: call(server, "any", {"a": "password=x@y 4111 " * 3_000}),
    "a text of one run": lambda server: call(server, "any", {"a": "aB1" * 300_000}),
    "a message that is no JSON": lambda server: post(server, b'{"a":' + b"[" * 4_000_000),
    "a batch": lambda server: post(server, b"[" + b'{"jsonrpc":"2.0","id":1,"method":"ping"},' * 90_000 + b"{}]"),
    "a large id": lambda server: post(server, b'{"jsonrpc":"2.0","method":"ping","id":' + b"9" * 4_000_000 + b"}"),
    "a long id": lambda server: post(server, b'{"jsonrpc":"2.0","method":"ping","id":"' + b"9" * 4_000_000 + b'"}'),
    "many members of a message": lambda server: post(
        server, b'{"jsonrpc":"2.0","id":1,"method":"ping",' + b",".join(b'"%d":{}' % n for n in range(300_000)) + b"}"
    ),
    "a long goal": lambda server: modern(
        server, "tools/call", {"name": "cra_start_session", "arguments": {"goal": "a b@c.de " * 100_000}}
    ),
    "a long query": lambda server: modern(
        server, "tools/call", {"name": "cra_search_contexts", "arguments": {"query": "rules guide kind " * 100_000}}
    ),
    "a long search": lambda server: modern(
        server, "tools/call", {"name": "cra_request_context", "arguments": {"need": "rules guide kind " * 100_000}}
    ),
    "a long address": lambda server: modern(server, "resources/read", {"uri": "cra://" + "a/" * 20_000}),
    "a long argument to complete": lambda server: modern(
        server,
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "cra://trace/{session_id}"},
            "argument": {"name": "session_id", "value": "a" * 900_000},
        },
    ),
    "a long cursor": lambda server: modern(server, "resources/list", {"cursor": "9" * 900_000}),
    "a result of many lists": lambda server: call(server, "give", {"form": "lists", "count": 300_000}),
    "a result of many members": lambda server: call(server, "give", {"form": "members", "count": 90_000}),
    "a result of many numbers": lambda server: call(server, "give", {"form": "numbers", "count": 95_000}),
    "a long text as a result": lambda server: call(server, "give", {"form": "text", "count": 300_000}),
    "an upstream's answer of many lists": lambda server: call(server, "ask", answer("[],", 11_000_000)),
    "an upstream's answer of as many as allowed": lambda server: call(server, "ask", answer("[],", 45_000)),
    "an upstream's answer of many blocks": lambda server: call(
        server, "ask", answer('{"type":"text","text":""},', 20_000, before="", after='{"type":"text","text":""}]}}')
    ),
    "an upstream's answer nested deep": lambda server: call(server, "ask", answer("[", 1_000_000)),
    "an upstream's long text": lambda server: call(
        server, "ask", answer("x,[{", 4_000_000, '],"structuredContent":{"a":["', '"]}}}')
    ),
    "what a command writes": lambda server: call(server, "run", {}),
}


def slowest(server: HttpServer, attack: Callable[[HttpServer], object]) -> float:
    """The longest that ``/healthz`` took to answer while a hostile input was dealt with."""
    done = threading.Event()
    failed: list[BaseException] = []

    def attacked() -> None:
        try:
            attack(server)
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            failed.append(error)
        finally:
            done.set()

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        worker = threading.Thread(target=attacked)
        worker.start()
        longest, last = 0.0, False
        while not last:
            last = done.is_set()
            began = time.monotonic()
            connection.request("GET", "/healthz")
            answered = connection.getresponse()
            answered.read()
            longest = max(longest, time.monotonic() - began)
            assert answered.status == 200
            time.sleep(0.002)
        worker.join()
    return longest


def quiet(server: HttpServer) -> object:
    """Nothing hostile, for as long as most of it takes."""
    time.sleep(0.5)
    return server.port


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
def test_others_are_answered_at_once(served: HttpServer, attack: Callable[[HttpServer], object]) -> None:
    took: list[tuple[float, float]] = []
    for _ in range(TRIES):
        bound = max(BOUND_S, SLOWER * slowest(served, quiet))
        took.append((slowest(served, attack), bound))
        if took[-1][0] < bound:
            return
    pytest.fail(f"longest answer and bound of each try, in seconds: {took}")
