"""The library as programs use it: the names it is documented by, short representations, and errors for slips."""

import inspect
import json
import typing
import warnings
from pathlib import Path

import pytest

import cra_mcp
from cra_mcp import CRARuntime, RequestError, RuntimeConfig, SettingsError, TraceError
from cra_mcp.actions.client import Client
from cra_mcp.execution.backend import Progress
from cra_mcp.gate.explaining import CallExplanation
from cra_mcp.messages import CarpRequest
from cra_mcp.replay.again import Replayed

TICKETS = {
    "atlas_version": "1.0",
    "atlas_id": "com.acme.customer-support",
    "version": "2.1.0",
    "name": "Customer Support Atlas",
    "description": "Context and tools for customer support agents",
    "domains": ["support", "crm", "ticketing"],
    "capabilities": [
        {
            "capability_id": "ticket.read",
            "name": "Read Tickets",
            "actions": ["ticket.get", "ticket.list", "ticket.search"],
        },
        {"capability_id": "ticket.write", "name": "Modify Tickets", "actions": ["ticket.create", "ticket.update"]},
    ],
    "policies": [
        {
            "policy_id": "deny-delete",
            "type": "deny",
            "actions": ["*.delete"],
            "reason": "Deletion requires manual approval",
        },
        {
            "policy_id": "rate-limit-api",
            "type": "rate_limit",
            "actions": ["ticket.*"],
            "parameters": {"max_calls": 100, "window_seconds": 60},
        },
    ],
    "actions": [
        {
            "action_id": "ticket.get",
            "name": "Get Ticket",
            "description": "Retrieve a support ticket by ID",
            "parameters_schema": {
                "type": "object",
                "required": ["ticket_id"],
                "properties": {"ticket_id": {"type": "string"}},
            },
            "risk_tier": "low",
            "executor": {"type": "python", "callable": "tickets:get"},
        },
        {
            "action_id": "ticket.delete",
            "name": "Delete Ticket",
            "description": "Remove a support ticket",
            "parameters_schema": {"type": "object"},
        },
    ],
}
"""An atlas whose capabilities name more than it declares, as catalogues of a larger system do."""

PROGRAM = """
from cra_mcp import CRARuntime, RuntimeConfig

config = RuntimeConfig(storage="memory")
runtime = CRARuntime(config)
runtime.load_atlas("./atlas")
session = runtime.create_session(agent_id="support-agent", goal="Help with support ticket")
resolution = runtime.resolve(session.id, request)
for action in resolution.allowed_actions:
    print(f"Available: {action.action_id} ({action.name})")
for action in resolution.denied_actions:
    print(f"Denied: {action.action_id}: {action.reason}")
result = runtime.execute_blocking(session.id, "ticket.get", {"ticket_id": "123"})
trace = runtime.get_trace(session.id)
"""


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    folder = tmp_path / "atlas"
    (folder / "python").mkdir(parents=True)
    (folder / "atlas.json").write_text(json.dumps(TICKETS))
    (folder / "python" / "tickets.py").write_text("def get(ticket_id):\n    return {'ticket': ticket_id}\n")
    return folder


@pytest.fixture
def runtime(atlas: Path, tmp_path: Path) -> typing.Iterator[CRARuntime]:
    with CRARuntime(RuntimeConfig(store="memory", data_dir=tmp_path / "data")) as runtime:
        runtime.load_atlas(atlas)
        yield runtime


def test_the_program_of_the_design_runs(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names: dict[str, typing.Any] = {"request": None}
    exec(PROGRAM, names)  # noqa: S102 - our own text
    with names["runtime"] as runtime:
        assert capsys.readouterr().out == (
            "Available: ticket.get (Get Ticket)\nDenied: ticket.delete: Deletion requires manual approval\n"
        )
        assert names["result"].value == {"ticket": "123"}
        assert names["resolution"].decision.type == "partial"
        assert names["resolution"].decision.reason
        assert [each.atlas_id for each in runtime.list_atlases()] == ["com.acme.customer-support"]
        replayed = runtime.replay(names["trace"], runtime.atlas("com.acme.customer-support"))
        assert (replayed.ok, replayed.resolutions, replayed.decisions) == (True, 1, 1)
        runtime.end_session(names["session"].id)


def test_a_trace_is_replayed_from_wherever_its_atlas_is(runtime: CRARuntime, atlas: Path, tmp_path: Path) -> None:
    session = runtime.create_session("bot", "a goal").id
    runtime.execute_blocking(session, "ticket.get", {"ticket_id": "1"})
    lines = runtime.read_trace(session)
    for trace in (session, lines, runtime.get_trace(session)):
        found = runtime.replay(trace)
        assert isinstance(found, Replayed)
        assert (found.ok, found.decisions) == (True, 1)
    with CRARuntime(RuntimeConfig(store="memory", data_dir=tmp_path / "other")) as other:
        with pytest.raises(TraceError) as caught:
            other.replay(lines)
        assert caught.value.code == "atlas_missing"
        assert other.replay(lines, atlas).ok
        assert other.replay(lines, str(atlas)).ok
        forged = [*lines[:-1], lines[-1].replace(b"bot", b"tob")]
        with pytest.raises(TraceError) as caught:
            other.replay([*lines[:1], *forged[2:]], atlas)
        assert caught.value.code in {"chain_broken", "sequence_gap"}


def test_every_type_in_the_runtime_is_exported() -> None:
    """Whatever a public method takes or gives can be imported from ``cra_mcp``; ``Backend`` is for its test plugin."""
    known = {name: getattr(cra_mcp, name) for name in cra_mcp.__all__}
    local = {
        **known,
        "CallExplanation": CallExplanation,
        "CarpRequest": CarpRequest,
        "Progress": Progress,
        "Client": Client,
    }
    missing = set()

    def look(kind: object) -> None:
        if isinstance(kind, type) and kind.__module__.startswith("cra_mcp") and known.get(kind.__name__) is not kind:
            missing.add(kind.__name__)
        for part in typing.get_args(kind):
            look(part)

    for name, member in inspect.getmembers(CRARuntime, inspect.isfunction):
        if name == "__init__" or not name.startswith("_"):
            for kind in typing.get_type_hints(member, localns=local).values():
                look(kind)
    assert missing == {"Backend"}


def test_names_are_listed_and_none_is_invented() -> None:
    assert set(cra_mcp.__all__) <= set(dir(cra_mcp))
    for name in cra_mcp.__all__:
        assert getattr(cra_mcp, name) is not None
    with pytest.raises(AttributeError):
        _ = cra_mcp.NoSuchName  # pyright: ignore[reportAttributeAccessIssue]


def test_representations_are_short(runtime: CRARuntime) -> None:
    """What a debugger or a notebook shows fits a line and holds nothing a caller sent."""
    session = runtime.create_session("bot", "s3cret goal")
    resolution = runtime.resolve(session.id)
    outcome = runtime.execute_blocking(session.id, "ticket.get", {"ticket_id": "s3cret"})
    shown = [
        session,
        resolution,
        resolution.decision,
        *resolution.allowed_actions,
        outcome,
        runtime.atlas("com.acme.customer-support"),
        runtime.find_action("ticket.get"),
        *runtime.list_atlases(),
        *runtime.get_trace(session.id),
        runtime.verify_chain(session.id),
        runtime.replay(session.id),
        *runtime.list_traces(),
    ]
    for each in shown:
        assert len(repr(each)) <= 300, type(each)
        assert type(each).__name__ in repr(each)
        assert "s3cret" not in repr(each)


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda runtime, session: runtime.resolve(session), "session_id must be a str, not Session"),
        (lambda runtime, session: runtime.get_trace(session), "session_id must be a str, not Session"),
        (lambda runtime, session: runtime.verify_chain(session), "session_id must be a str, not Session"),
        (lambda runtime, session: runtime.end_session(session), "session_id must be a str, not Session"),
        (lambda runtime, session: runtime.get_session(None), "session_id must be a str, not NoneType"),
        (lambda runtime, session: runtime.execute_blocking(session, "x"), "session_id must be a str, not Session"),
        (
            lambda runtime, session: runtime.execute_blocking(session.id, runtime.find_action("ticket.get")),
            "action_id must be a str, not Action",
        ),
        (lambda runtime, session: runtime.load_atlas(TICKETS), "path must be a path, not dict"),
        (lambda runtime, session: runtime.load_atlas_from_json(TICKETS), "text must be a JSON text, not dict"),
        (lambda runtime, session: runtime.load_policy_file([]), "path must be a path, not list"),
        (lambda runtime, session: runtime.load_overlay(3), "path must be a path, not int"),
        (lambda runtime, session: runtime.create_session(7), "agent_id must be a str, not int"),
        (lambda runtime, session: runtime.create_session("a", ["goal"]), "goal must be a str, not list"),
        (lambda runtime, session: runtime.create_session("a", context=[1]), "context must be a mapping, not list"),
        (lambda runtime, session: runtime.resolve(session.id, goal=5), "goal must be a str, not int"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(
    runtime: CRARuntime, slip: typing.Callable[[CRARuntime, object], object], message: str
) -> None:
    session = runtime.create_session("bot", "a goal")
    with pytest.raises(RequestError) as caught:
        slip(runtime, session)
    assert (caught.value.code, caught.value.message) == ("invalid_request", message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ttl_seconds": "60"}, "ttl_seconds must be a whole number, not str"),
        ({"ttl_seconds": True}, "ttl_seconds must be a whole number, not bool"),
        ({"flush_interval_s": "1"}, "flush_interval_s must be a number, not str"),
        ({"data_dir": 5}, "data_dir must be a path, not int"),
        ({"policy_files": "ours.yaml"}, "policy_files must be a list of paths, not str"),
        ({"roles": "admin"}, "roles must be a list of texts, not str"),
        ({"roles": [5]}, "roles must be a text, not int"),
        ({"agent_id": None}, "agent_id must be a text, not NoneType"),
        ({"storage": "postgres://host/db"}, "store must be one of file, memory, sqlite:PATH"),
        ({"storage": "memory", "store": "sqlite:x"}, "storage is another name of store: give one of them"),
    ],
)
def test_a_setting_of_the_wrong_type_is_named(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RuntimeConfig(**settings)
    assert (caught.value.code, caught.value.message) == ("invalid_settings", message)


def test_paths_may_be_texts_and_lists_do_for_tuples(tmp_path: Path) -> None:
    config = RuntimeConfig(data_dir=str(tmp_path), policy_files=[str(tmp_path / "p.yaml")], roles=["agent", "auditor"])
    assert (config.data_dir, config.trace_path) == (tmp_path, tmp_path / "traces")
    assert (config.policy_files, config.roles) == ((tmp_path / "p.yaml",), ("agent", "auditor"))
    assert RuntimeConfig(storage="memory").store == "memory"
    assert RuntimeConfig(storage="memory", store="memory").store == "memory"


def test_what_is_no_configuration_is_told() -> None:
    with warnings.catch_warnings(), pytest.raises(SettingsError, match="config must be a RuntimeConfig, not str"):
        CRARuntime("memory")  # pyright: ignore[reportArgumentType]
