"""Requests through the whole runtime: decided, recorded, sent, and no secret in what is kept or said."""

import json
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import SettingsError
from cra_mcp.settings import from_environment
from tests.execution.http_service import Service

pytestmark = pytest.mark.anyio

SECRET = "tr0ub4dor&3-tr0ub4dor"  # noqa: S105 - made up


def atlas(service: Service) -> str:
    def action(
        name: str, method: str, path: str, properties: dict[str, object], **executor: object
    ) -> dict[str, object]:
        return {
            "action_id": f"desk.{name}",
            "name": name,
            "description": name,
            "timeout_seconds": 1 if name == "slow" else 30,
            "parameters_schema": {"type": "object", "properties": properties, "required": list(properties)},
            "executor": {
                "type": "http",
                "method": method,
                "url": f"{service.url}{path}",
                "secrets": {"Authorization": {"env": "DESK_TOKEN", "prefix": "Bearer "}},
                **executor,
            },
        }

    return json.dumps(
        {
            "atlas_version": "1.0",
            "atlas_id": "com.example.desk",
            "version": "1.0.0",
            "name": "Desk",
            "description": "d",
            "actions": [
                action("read", "GET", "/tickets/{id}", {"id": {"type": "string"}}, result="/data"),
                action("slow", "GET", "/slow", {}),
                action("write", "POST", "/tickets", {"text": {"type": "string"}}, body={"json": {"text": "{text}"}}),
                action("remove", "DELETE", "/tickets/{id}", {"id": {"type": "string"}}),
            ],
            "policies": [{"policy_id": "keep", "type": "deny", "actions": ["desk.remove"]}],
        }
    )


def answer(handler) -> None:
    if handler.path == "/slow":
        handler.closed_by_client()
    elif handler.path == "/tickets/missing":
        handler.json({"error": f"no ticket for {handler.headers['authorization']}"}, status=404)
    else:
        handler.json({"data": {"path": handler.path, "seen": handler.headers["authorization"]}})


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def config(tmp_path: Path, service: Service, monkeypatch) -> RuntimeConfig:
    monkeypatch.setenv("DESK_TOKEN", SECRET)
    service.answer = answer
    return RuntimeConfig(
        data_dir=tmp_path, recording="full", allow_private_hosts=(f"127.0.0.1:{service.port}",), flush_interval_s=0.01
    )


async def test_no_secret_is_in_the_trace_or_the_outcome(
    config: RuntimeConfig, service: Service, tmp_path: Path
) -> None:
    async with CRARuntime(config) as runtime:
        runtime.load_atlas_from_json(atlas(service))
        session = runtime.create_session().session_id
        said = []
        for name, parameters in (
            ("read", {"id": "7"}),
            ("read", {"id": "missing"}),
            ("read", {"id": "../../admin"}),
            ("write", {"text": "hello"}),
            ("remove", {"id": "7"}),
            ("slow", {}),
        ):
            outcome = await runtime.execute(session, f"desk.{name}", parameters)
            said.append((outcome.status, outcome.fault.code if outcome.fault else None))
            assert SECRET not in json.dumps(outcome.to_dict())
        assert said == [
            ("success", None),
            ("error", "tool_error"),
            ("error", "value_refused"),
            ("success", None),
            ("denied", said[4][1]),
            ("error", "timeout"),
        ]
        assert (await runtime.execute(session, "desk.read", {"id": "8"})).value == {
            "path": "/tickets/8",
            "seen": "Bearer [redacted]",
        }
        assert runtime.verify_chain(session).ok
    assert {asked.headers["authorization"] for asked in service.asked} == {f"Bearer {SECRET}"}
    assert [asked.method for asked in service.asked] == ["GET", "GET", "POST", "GET", "GET"]
    kept = everything_in(tmp_path)
    assert b"desk.read" in kept
    assert SECRET.encode() not in kept


def test_programs_without_an_event_loop_send_requests_too(config: RuntimeConfig, service: Service) -> None:
    with CRARuntime(config) as runtime:
        runtime.load_atlas_from_json(atlas(service))
        session = runtime.create_session().session_id
        for _ in range(3):
            assert runtime.execute_blocking(session, "desk.read", {"id": "1"}).status == "success"
    assert service.connections == 1


def test_what_the_operator_did_not_allow_is_not_reached(service: Service, monkeypatch) -> None:
    monkeypatch.setenv("DESK_TOKEN", SECRET)
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas_from_json(atlas(service))
        session = runtime.create_session().session_id
        outcome = runtime.execute_blocking(session, "desk.read", {"id": "1"})
    assert outcome.fault is not None
    assert outcome.fault.code == "address_refused"
    assert service.asked == []


def test_the_operator_allows_hosts_in_the_environment() -> None:
    config = from_environment({"CRA_ALLOW_PRIVATE_HOSTS": "localhost:8080, 10.0.0.7", "CRA_HTTP_CA_BUNDLE": "/ca.pem"})
    assert tuple(config.allow_private_hosts) == ("localhost:8080", "10.0.0.7")
    assert config.http_ca_bundle == Path("/ca.pem")
    with pytest.raises(SettingsError):
        CRARuntime(RuntimeConfig(store="memory", allow_private_hosts=("http://localhost",)))
