"""``atlas from-openapi``, as a person uses it; and what it drafts, served against a real service."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from tests.execution.http_service import Handler, serving
from tests.faces.cli.conftest import PATIENCE_S, cra
from tests.faces.mcp.conftest import environment
from tests.forks.command import forked

SPEC = """
openapi: 3.1.0
info: {title: Ticket Desk, version: 2.1.0, description: Tickets.}
servers: [{url: https://desk.example.com/v1}]
security: [{token: []}]
paths:
  /tickets/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string}}
    get:
      tags: [tickets]
      operationId: getTicket
      summary: Read a ticket
      parameters: [{name: fields, in: query, schema: {type: array, items: {type: string}}}]
      responses: {200: {description: it, content: {application/json: {schema: {$ref: '#/components/schemas/Ticket'}}}}}
    patch:
      tags: [tickets]
      operationId: updateTicket
      requestBody: {required: true, content: {application/json: {schema: {$ref: '#/components/schemas/Ticket'}}}}
      responses: {204: {description: done}}
    delete: {tags: [tickets], operationId: deleteTicket, responses: {204: {description: done}}}
  /upload:
    post: {tags: [files], requestBody: {required: true, content: {multipart/form-data: {}}}, responses: {}}
components:
  securitySchemes: {token: {type: http, scheme: bearer}}
  schemas:
    Ticket:
      type: object
      required: [id, text]
      properties: {id: {type: string, readOnly: true}, text: {type: string}, tags: {type: array, items: {type: string}}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "desk.yaml"
    path.write_text(SPEC)
    return path


def test_a_folder_is_drafted_that_validates_and_says_what_is_missing(spec: Path, tmp_path: Path) -> None:
    done = cra("atlas", "from-openapi", spec, "-o", tmp_path / "desk")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("desk.yaml#/paths/~1upload/post/requestBody: ")
    assert lines[0].endswith("(left out: POST /upload)")
    assert lines[1] == "3 actions, 1 operation left out, 1 finding"
    assert sorted(str(path.relative_to(tmp_path / "desk")) for path in (tmp_path / "desk").rglob("*.json")) == [
        "actions/tickets.json",
        "atlas.json",
        "policies/policies.json",
    ]
    checked = cra("atlas", "validate", tmp_path / "desk", "--json")
    assert json.loads(checked.stdout)["ok"] is True
    again = cra("atlas", "from-openapi", spec, "-o", tmp_path / "desk")
    assert again.returncode == 3
    assert "hint:" in again.stderr


def test_without_a_folder_one_file_is_printed_and_json_is_read_too(spec: Path, tmp_path: Path) -> None:
    printed = cra("atlas", "from-openapi", spec, "--include", "*.get_*")
    (tmp_path / "one.json").write_text(printed.stdout)
    assert [action["action_id"] for action in json.loads(printed.stdout)["actions"]] == ["tickets.get_ticket"]
    assert cra("atlas", "validate", tmp_path / "one.json").returncode == 0
    (tmp_path / "desk.json").write_text(
        '{"openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "servers": [{"url": "https://x.test"}], '
        '"paths": {"/x": {"get": {}}}}'
    )
    from_json = cra("atlas", "from-openapi", tmp_path / "desk.json")
    assert from_json.returncode == 0
    assert "/info/version" in from_json.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openapi: 3.1.0\nopenapi: 3.1.0", "line 2 column 1"),
        ("swagger: '2.0'", "unsupported_version|3.0 and 3.1"),
        ("a: !!python/name:os.system x", "line 1 column 4"),
        ("openapi: 3.1.0\npaths: {}", "no operation became an action"),
        ("openapi: 3.1.0\npaths: {/x: {get: {}}}", "say --server"),
    ],
)
def test_a_document_that_is_none_ends_with_what_is_wrong_and_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = cra("atlas", "from-openapi", tmp_path / "bad.yaml")
    assert done.returncode == 1
    assert any(part in done.stderr for part in said.split("|"))
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("server", ["desk", "ftp://x", "https://{x}/", "https://x/?a", "https://u@x/"])
def test_a_server_that_can_not_be_one_is_refused(spec: Path, server: str) -> None:
    done = cra("atlas", "from-openapi", spec, "--server", server)
    assert done.returncode == 3
    assert "--server" in done.stderr


def test_a_document_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = cra("atlas", "from-openapi", tmp_path / "none.yaml")
    assert done.returncode == 3
    assert "none.yaml" in done.stderr


def test_what_is_drafted_works_against_the_service(spec: Path, tmp_path: Path, monkeypatch) -> None:
    def answer(handler: Handler) -> None:
        if handler.command == "GET":
            handler.json({"id": "7", "text": handler.path, "tags": []})
        else:
            handler.reply(204)

    monkeypatch.setenv("TICKET_DESK_TOKEN", "made-up-token-1")
    with serving() as service:
        service.answer = answer
        done = cra("atlas", "from-openapi", spec, "-o", tmp_path / "desk", "--server", f"{service.url}/v1")
        assert done.returncode == 0, done.stderr
        config = RuntimeConfig(data_dir=tmp_path / "data", allow_private_hosts=(f"127.0.0.1:{service.port}",))
        with CRARuntime(config) as runtime:
            runtime.load_atlas(tmp_path / "desk")
            session = runtime.create_session().session_id
            read = runtime.execute_blocking(session, "tickets.get_ticket", {"id": "a b", "fields": ["x", "y&z"]})
            assert read.value == {"id": "7", "text": "/v1/tickets/a%20b?fields=x&fields=y%26z", "tags": []}
            update = runtime.execute_blocking(session, "tickets.update_ticket", {"id": "7", "text": "new"})
            assert update.status == "pending_approval"
            assert update.approval is not None
            approved = cra("approve", update.approval.approval_id, "--yes", "--data-dir", tmp_path / "data")
            assert approved.returncode == 0, approved.stderr
            update = runtime.execute_blocking(session, "tickets.update_ticket", {"id": "7", "text": "new"})
            assert update.status == "success"
            assert runtime.execute_blocking(session, "tickets.delete_ticket", {"id": "7"}).status == "denied"
        assert [(asked.method, asked.target) for asked in service.asked] == [
            ("GET", "/v1/tickets/a%20b?fields=x&fields=y%26z"),
            ("PATCH", "/v1/tickets/7"),
        ]
        assert json.loads(service.asked[1].body) == {"text": "new"}
        assert {asked.headers["authorization"] for asked in service.asked} == {"Bearer made-up-token-1"}


def ask(*command: str | Path, env: dict[str, str]) -> dict[str, object]:
    """What a server answers to one call over its standard streams."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    lines = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "tickets_get_ticket", "arguments": {"id": "7"}}},
    ]
    typed = "".join(json.dumps({"jsonrpc": "2.0", **line}) + "\n" for line in lines)
    with subprocess.Popen(
        [sys.executable, *forked(*command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment(), **env},
    ) as server:
        guard = threading.Timer(PATIENCE_S, server.kill)
        guard.start()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(typed)
        server.stdin.flush()
        try:
            return next(each["result"] for each in map(json.loads, server.stdout) if each.get("id") == 2)
        finally:
            guard.cancel()
            server.kill()


def test_a_server_reaches_the_private_hosts_its_operator_names_and_no_other(spec: Path, tmp_path: Path) -> None:
    with serving() as service:
        service.answer = lambda handler: handler.json({"id": "7", "text": "found"})
        drafted = cra("atlas", "from-openapi", spec, "-o", tmp_path / "desk", "--server", f"{service.url}/v1")
        assert drafted.returncode == 0, drafted.stderr
        command = ("serve", "--atlas", tmp_path / "desk", "--data-dir", tmp_path / "data")
        env = {"TICKET_DESK_TOKEN": "made-up-token-1"}
        allowed = ask(*command, "--allow-private-host", f"127.0.0.1:{service.port}", env=env)
        assert allowed["structuredContent"] == {"id": "7", "text": "found"}
        by_variable = ask(*command, env={**env, "CRA_ALLOW_PRIVATE_HOSTS": f"x.test,127.0.0.1:{service.port}"})
        assert by_variable["structuredContent"] == {"id": "7", "text": "found"}
        other = ask(*command, "--allow-private-host", "127.0.0.1:1", env=env)
        assert other["isError"] is True
        assert "address_refused" in json.dumps(other)
        assert len(service.asked) == 2
    wrong = cra(*command, "--allow-private-host", "http://x")
    assert wrong.returncode == 3
    assert "allow_private_hosts" in wrong.stderr
