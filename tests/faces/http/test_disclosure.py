"""What policy hides from an agent, over HTTP: the same dialogue, and the checks of headers that come before it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import initialize, legacy, modern
from tests.faces.mcp import dialogue

GATED = dialogue.HIDDEN[1]


def asking(server: HttpServer, *, in_2026: bool) -> dialogue.Ask:
    session = None if in_2026 else initialize(server)[1]["mcp-session-id"]

    def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
        if in_2026:
            answer = modern(server, method, params)[1]
        else:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            _, headers, body = legacy(server, message, session)
            if headers["content-type"].startswith("text/event-stream"):
                body = next(line[6:] for line in body.splitlines()[::-1] if line.startswith(b"data: {"))
            answer = json.loads(body)
        return {key: answer[key] for key in ("result", "error") if key in answer}

    return ask


def talk(world: tuple[Any, list[str]], *, in_2026: bool) -> list[str]:
    servers = Servers(world[0])
    try:
        return dialogue.hold(asking(servers.start(*world[1]), in_2026=in_2026))
    finally:
        servers.close()


@pytest.mark.parametrize("in_2026", [False, True], ids=["2025", "2026"])
def test_an_agent_hears_the_same_whether_an_action_is_hidden_or_undeclared(tmp_path: Path, in_2026: bool) -> None:
    hidden, undeclared = dialogue.worlds(tmp_path, 0)
    heard = talk(hidden, in_2026=in_2026)
    assert heard == talk(undeclared, in_2026=in_2026)
    assert len(heard) > 100
    assert "veil" in json.dumps(hidden[0].events()), "the trace knows"


@pytest.mark.parametrize("headers", [{}, {"Mcp-Param-Region": "us"}])
def test_headers_are_checked_against_no_schema_that_is_hidden(tmp_path: Path, headers: dict[str, str]) -> None:
    answers = []
    for name, policies in (("hidden", True), ("shown", False)):
        world, _ = dialogue.worlds(tmp_path / name, 0)
        if not policies:
            dialogue.rewrite(world[0], [GATED], [])
        servers = Servers(world[0])
        try:
            server = servers.start(*(world[1] if policies else []))
            for tool in ("gated", "nowhere"):
                params = {"name": tool, "arguments": {"region": "eu"}}
                status, answer = modern(server, "tools/call", params, headers)
                answers.append((status, answer["error"]["code"], answer["error"]["message"].replace(tool, "TOOL")))
        finally:
            servers.close()
    hidden, unknown, shown, elsewhere = answers
    assert hidden == unknown == elsewhere
    assert hidden[1] == -32602
    assert shown[1] == -32020, "where it may be known, it is checked"
