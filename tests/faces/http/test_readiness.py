"""Whether the server says that it can't do its work, and how often it looks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.mcp.http.readiness import Readiness
from tests.faces.http.conftest import Servers
from tests.faces.http.test_front_door import modern, request


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def no_trace_folder(data: Path) -> Path:
    (data / "traces").write_text("in the way")
    return data / "traces"


def no_database(data: Path) -> Path:
    (data / "state.sqlite3").write_text("no database at all" * 100)
    return data / "state.sqlite3"


@pytest.mark.parametrize(
    ("break_it", "code"), [(no_trace_folder, "trace_unavailable"), (no_database, "state_unavailable")]
)
@pytest.mark.anyio
async def test_what_keeps_calls_from_being_recorded_is_found_and_remembered_for_a_while(
    tmp_path: Path, break_it: Callable[[Path], Path], code: str
) -> None:
    clock = Clock()
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as runtime:
        readiness = Readiness(runtime, clock=clock)
        broken = break_it(tmp_path)
        assert await readiness.problem() == code
        broken.unlink()
        assert await readiness.problem() == code, "one look serves everybody who asks"
        clock.now = 5.0
        assert await readiness.problem() is None
        assert list((tmp_path / "traces").iterdir()) == [], "looking leaves nothing behind"


def test_a_server_that_can_write_no_trace_says_that_it_is_not_ready(servers: Servers) -> None:
    servers.place.data.mkdir(parents=True, exist_ok=True)
    no_trace_folder(servers.place.data)
    server = servers.start()
    status, headers, body = request(server, "GET", "/readyz")
    assert (status, headers["cache-control"]) == (503, "no-store")
    assert json.loads(body) == {"status": "not_ready", "error": "trace_unavailable"}
    assert request(server, "GET", "/healthz")[0] == 200


def test_a_trace_moved_under_a_server_stops_its_calls_and_readiness_until_it_is_back(servers: Servers) -> None:
    server = servers.start()
    call = {"name": "tool_mark", "arguments": {"marks": str(servers.place.marks), "text": "m"}}
    assert modern(server, "tools/call", call)[1]["result"]["isError"] is False
    (path,) = servers.place.traces()
    moved = path.rename(path.with_name("rotated"))
    for _ in range(3):
        result = modern(server, "tools/call", call)[1]["result"]
        assert result["isError"]
        assert result["_meta"]["dev.cra/receipt"]["error"] == "trace_unavailable"
        assert "was moved, renamed or deleted" in result["content"][0]["text"]
        assert "Put it back" in result["content"][0]["text"]
    assert servers.place.marked() == ["m"]
    status, _, body = request(server, "GET", "/readyz")
    assert (status, json.loads(body)) == (
        503,
        {"status": "not_ready", "error": "trace_unavailable", "reason": "missing"},
    )
    assert "was moved, renamed or deleted" in servers.errors()
    moved.rename(path)
    assert modern(server, "tools/call", call)[1]["result"]["isError"] is False
    assert servers.place.marked() == ["m", "m"]
