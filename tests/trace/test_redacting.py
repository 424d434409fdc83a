"""Nothing that the detectors find gets into a store, whatever event it comes in."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.manifest import RedactionPart
from cra_mcp.errors import AtlasInvalidError, SettingsError
from cra_mcp.settings import DETECTORS
from cra_mcp.trace.detect.detectors import Detectors
from cra_mcp.trace.detect.rules import BUILT_IN
from cra_mcp.trace.event import REQUIRED_FIELDS, Draft, Head
from cra_mcp.trace.memory import MemoryStore
from cra_mcp.trace.redacting import RedactingStore
from cra_mcp.trace.store import new_identifier

MAIL = "ann.lee@example.com"
CARD = "4111 1111 1111 1111"
ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.redacting",
    "version": "1.0.0",
    "name": "Redacting",
    "description": "For tests.",
    "actions": [
        {
            "action_id": f"mail.{name}",
            "name": name,
            "description": "sends",
            "parameters_schema": {"type": "object"},
            "returns_schema": {"type": "object", "properties": {"code": {"type": "string", "x-cra-sensitive": True}}},
            "executor": {"type": "python", "callable": f"action:{name}"},
        }
        for name in ("send", "ask")
    ],
    "policies": [
        {"policy_id": "ask", "type": "require_approval", "actions": ["mail.ask"], "reason": "people first"},
    ],
}
FUNCTION = """
def send(**parameters):
    return {"sent": parameters, "code": "se" + "ven"}
ask = send
"""


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    folder = tmp_path / "atlas"
    (folder / "python").mkdir(parents=True)
    (folder / "atlas.json").write_text(json.dumps(ATLAS))
    (folder / "python" / "action.py").write_text(FUNCTION)
    return folder


def runtime(tmp_path: Path, atlas: Path, **settings: object) -> CRARuntime:
    made = CRARuntime(RuntimeConfig(data_dir=tmp_path / "data", **settings))
    made.load_atlas(atlas)
    return made


def stored(tmp_path: Path) -> str:
    return "".join(
        path.read_bytes().decode("utf-8", "replace")
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and path.name != "redaction.key"
    )


def test_no_file_of_a_data_folder_holds_what_a_caller_sent(tmp_path: Path, atlas: Path) -> None:
    with runtime(tmp_path, atlas, result_recording="redacted") as made:
        session = made.create_session("agent", f"Write to {MAIL}", context={"card": CARD}).session_id
        made.resolve(session, goal=f"Refund {CARD}")
        outcome = made.execute_blocking(session, "mail.send", {"to": MAIL, "password": "hunter22"})
        assert outcome.value["sent"] == {"to": MAIL, "password": "hunter22"}, "the call itself is as it was sent"
        assert made.execute_blocking(session, "mail.ask", {"card": CARD}).status == "pending_approval"
        assert made.verify_chain(session).ok
        events = made.get_trace(session)
        text = stored(tmp_path)
    for secret in (MAIL, CARD, "hunter22", "seven"):
        assert secret not in text
    types = [event.event_type for event in events]
    assert types[:2] == ["session.started", "context.redacted"], "whose the chain is stands at its beginning"
    for place, event in enumerate(events):
        if event.event_type == "context.redacted":
            about = events[place - 1 if place == 1 else place + 1]
            assert about.event_type == event.payload["event_type"]
            assert event.span_id == about.span_id
    requested = next(event for event in events if event.event_type == "action.requested")
    told = events[requested.sequence - 1].payload
    assert told["action_id"] == "mail.send"
    assert told["found"] == [
        {"pointer": "/parameters/password", "detector": "named"},
        {"pointer": "/parameters/to", "detector": "email"},
    ] or sorted(each["pointer"] for each in told["found"]) == ["/parameters/password", "/parameters/to"]
    executed = next(event for event in events if event.event_type == "action.executed").payload
    assert executed["recording"] == "redacted"
    assert executed["result"]["code"] == "[redacted]"
    assert executed["result"]["sent"]["to"] == requested.payload["parameters"]["to"], "equal secrets are seen equal"


def test_who_approves_sees_whom_a_call_concerns_but_no_secret(tmp_path: Path, atlas: Path) -> None:
    with runtime(tmp_path, atlas) as made:
        session = made.create_session().session_id
        asked = made.execute_blocking(session, "mail.ask", {"to": MAIL, "card": CARD}).approval
        assert asked is not None
        assert asked.parameters["to"] == MAIL
        assert asked.parameters["card"].startswith("[redacted:card:")
        assert made.pending_approvals() == [asked]


def test_what_is_kept_in_full_and_what_is_not_looked_for_stay(tmp_path: Path, atlas: Path) -> None:
    with runtime(tmp_path, atlas, recording="full", result_recording="full") as made:
        session = made.create_session(goal=f"Write to {MAIL}").session_id
        made.execute_blocking(session, "mail.send", {"to": MAIL})
        made.execute_blocking(session, "mail.ask", {"to": CARD})
        assert made.pending_approvals()[0].parameters == {"to": CARD}
        events = {event.event_type: event.payload for event in made.get_trace(session)}
        assert events["action.executed"]["result"]["sent"] == {"to": MAIL}
        assert MAIL not in events["session.started"]["goal"]
    with runtime(tmp_path, atlas, detectors=("none",)) as made:
        session = made.create_session(goal=f"Write to {MAIL}").session_id
        assert made.get_trace(session)[0].payload["goal"] == f"Write to {MAIL}"


SECRETS = (
    f"mail_{MAIL}",
    "AKIAIOSFODNN7EXAMPLE",
    "password=hunter2-hunter2",
    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "https://ann:hunter2hunter2@example.com/x",
    "4111111111111111",
)


@pytest.mark.parametrize("recording", ["redacted", "full", "hash"])
def test_names_that_no_action_has_are_searched(tmp_path: Path, atlas: Path, recording: str) -> None:
    with runtime(tmp_path, atlas, recording=recording) as made:
        session = made.create_session("bot", "look").session_id
        for name in SECRETS:
            before = len(made.get_trace(session))
            outcome = made.execute_blocking(session, name, {})
            assert outcome.fault is not None
            assert outcome.fault.code == "unknown_action"
            kept = [event for event in made.get_trace(session)[before:] if "action_id" in event.payload]
            assert [event.event_type for event in kept if event.event_type != "context.redacted"] == [
                "action.requested",
                "policy.evaluated",
                "policy.violated",
                "action.denied",
            ]
            assert all("[redacted:" in event.payload["action_id"] for event in kept), name
    for path in (tmp_path / "data").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert [name for name in SECRETS if name.encode() in data] == []


@pytest.mark.parametrize("event_type", ["action.requested", "policy.evaluated", "policy.violated", "action.denied"])
def test_a_name_that_no_action_has_is_searched_whatever_else_its_event_says(event_type: str) -> None:
    store = RedactingStore(MemoryStore(), Detectors(), known=lambda name: name == CARD)
    session, span = new_identifier(), new_identifier()
    store.begin(session, new_identifier())
    hidden = {"disclosed": False}
    for named in ({"action_id": MAIL}, {"action_id": MAIL, **hidden}, {"action_id": CARD, "called": MAIL, **hidden}):
        store.append(session, [Draft(event_type, named, span)])
    store.append(session, [Draft(event_type, {"action_id": CARD}, span)])
    lines = [line.decode() for line in store.read(session)]
    assert [name for name in (MAIL, "[redacted:card") if name in "".join(lines)] == []
    assert CARD in lines[-1], "what an action is called is no secret"


def test_names_of_actions_stay_whatever_they_look_like(tmp_path: Path, atlas: Path) -> None:
    manifest = json.loads((atlas / "atlas.json").read_text())
    manifest["actions"][0]["action_id"] = "pay.4111111111111111"
    manifest["policies"] = [{"policy_id": "no", "type": "deny", "reason": "never"}]
    (atlas / "atlas.json").write_text(json.dumps(manifest))
    with runtime(tmp_path, atlas) as made:
        session = made.create_session("bot", "look").session_id
        made.execute_blocking(session, "pay.4111111111111111", {})
        named = [event.payload["action_id"] for event in made.get_trace(session) if "action_id" in event.payload]
    assert set(named) == {"pay.4111111111111111"}


def test_detectors_that_do_not_exist_are_refused() -> None:
    for names in ((), ("none", "email"), ("emails",)):
        with pytest.raises(SettingsError):
            RuntimeConfig(detectors=names)


def test_every_event_with_foreign_text_is_searched() -> None:
    inner = MemoryStore()
    store = RedactingStore(inner, Detectors())
    session, span = new_identifier(), new_identifier()
    store.begin(session, new_identifier())
    for event_type in (*REQUIRED_FIELDS, "x.example.note"):
        text = {
            name: {"deep": MAIL}
            for name in ("parameters", "result", "goal", "context", "query", "faults", "error_message")
        }
        store.append(session, [Draft(event_type, {**text, "data": MAIL}, span)])
    seen = [json.loads(line) for line in store.read(session)]
    untouched = {event["event_type"] for event in seen if MAIL in str(event["payload"].get("data"))}
    leaks = {
        event["event_type"]: [name for name in event["payload"] if MAIL in str(event["payload"][name])]
        for event in seen
    }
    assert leaks["x.example.note"] == leaks["input.received"] == []
    assert "goal" not in leaks["session.started"]
    assert "parameters" not in leaks["action.requested"]
    assert "error_message" not in {*leaks["action.failed"], *leaks["error.occurred"]}
    assert {"approval.granted", "policy.evaluated", "atlas.loaded"} <= untouched, (
        "the runtime's own words are not searched"
    )


def test_the_head_after_an_append_is_of_the_last_draft_and_nothing_is_added_without_need() -> None:
    store = RedactingStore(MemoryStore(), Detectors())
    session, span = new_identifier(), new_identifier()
    store.begin(session, new_identifier())
    plain = Draft("action.requested", {"parameters": {"n": 1}}, span)
    secret = Draft("action.requested", {"parameters": {"to": MAIL}, "action_id": "a.b"}, span)
    made = Draft("carp.resolution.cached", b"{}", span)
    note = Draft("x.example.note", b'{"to":"ann@example.com"}', span)
    assert store.append(session, (plain, made)).sequence == 1
    assert store.append(session, (plain, secret, plain, secret)).sequence == 7
    types = [json.loads(line)["event_type"] for line in store.read(session)]
    assert types[2:] == [
        "action.requested",
        "context.redacted",
        "action.requested",
        "action.requested",
        "context.redacted",
        "action.requested",
    ]
    assert store.append(session, (note,)).sequence == 8


def test_the_rest_of_a_store_is_as_it_was() -> None:
    inner = MemoryStore()
    store = RedactingStore(inner, Detectors())
    session = new_identifier()
    store.begin(session, new_identifier())
    head = store.append(session, [Draft("x.a", {}, new_identifier())])
    store.flush(session)
    assert (store.head(session), store.unfinished(session)) == (head, b"")
    assert [info.live for info in store.sessions()] == [True]
    store.release(session)
    assert store.recover(session).kept == 1
    store.close()
    with pytest.raises(ValueError, match="remote"):
        RedactingStore(_Remote(), Detectors())


class _Listener:
    def __init__(self) -> None:
        self.told: list[object] = []

    def grown(self, session_id: str, head: Head, lines: Sequence[bytes]) -> None:
        self.told.append([json.loads(line)["event_type"] for line in lines])

    def released(self, session_id: str) -> None:
        self.told.append(session_id)


def test_who_listens_at_the_door_hears_what_was_stored() -> None:
    store = RedactingStore(MemoryStore(), Detectors())
    session = new_identifier()
    store.begin(session, new_identifier())
    store.append(session, [Draft("x.a", {}, new_identifier())])
    store.tap = listener = _Listener()
    store.append(session, [Draft("x.b", {"to": MAIL}, new_identifier())])
    store.release(session)
    assert listener.told == [["context.redacted", "x.b"], session]


class _Remote(MemoryStore):
    remote = True


def asking_for(name: str, *detectors: str, overlay: bool = False) -> str:
    """An atlas of one action, or an overlay, that has more hidden."""
    made: dict[str, object] = {**ATLAS, "atlas_id": f"com.example.{name}", "policies": []}
    if overlay:
        made |= {"actions": [], "overlay": True}
    else:
        schema = {"type": "object", "properties": {"to": {"type": "string"}}}
        action = {"action_id": f"{name}.send", "name": "n", "description": "d", "parameters_schema": schema}
        policy = {"policy_id": f"ask-{name}", "type": "require_approval", "reason": "people first"}
        policy["when"] = "has(args.to) && args.to != ''"
        made |= {"actions": [action], "policies": [policy]}
    if detectors:
        made["redaction"] = {"detectors": detectors}
    return json.dumps(made)


def hidden(made: CRARuntime, session: str) -> list[tuple[str, str | None, str]]:
    """What was hidden: the event's type, its action and the detector."""
    return [
        (event.payload["event_type"], event.payload.get("action_id"), each["detector"])
        for event in made.get_trace(session)
        if event.event_type == "context.redacted"
        for each in event.payload["found"]
    ]


def test_an_atlas_has_more_hidden_of_its_own_actions_and_of_what_is_about_none(tmp_path: Path) -> None:
    config = RuntimeConfig(data_dir=tmp_path, detectors=("card",))
    with CRARuntime(config) as made:
        made.load_atlas_from_json(asking_for("strict", "email"))
        made.load_atlas_from_json(asking_for("plain"))
        session = made.create_session("ann", f"Write to {MAIL}").session_id
        for action in ("strict.send", "plain.send", "unknown.send"):
            made.execute_blocking(session, action, {"to": MAIL, "card": CARD})
        assert hidden(made, session) == [
            ("session.started", None, "email"),
            ("carp.request.received", None, "email"),
            ("action.requested", "strict.send", "email"),
            ("action.requested", "strict.send", "card"),
            ("action.requested", "plain.send", "card"),
        ]
        (unknown,) = [
            event.payload for event in made.get_trace(session) if event.payload.get("action_id") == "unknown.send"
        ][:1]
        assert (unknown["parameters"], unknown["recording"]) == (None, "hash"), "no schema says what in them is secret"
        shown = [json.dumps(made.explain(f"{name}.send", {"to": MAIL}).to_dict()) for name in ("strict", "plain")]
        assert [(MAIL in text, "[redacted:email" in text) for text in shown] == [(False, True), (True, False)]


def test_no_atlas_takes_away_what_the_operator_hides(tmp_path: Path) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as made:
        made.load_atlas_from_json(asking_for("sly", "entropy"))
        session = made.create_session("ann").session_id
        made.execute_blocking(session, "sly.send", {"to": MAIL, "card": CARD})
        assert hidden(made, session) == [
            ("action.requested", "sly.send", "email"),
            ("action.requested", "sly.send", "card"),
        ]


def test_an_overlay_atlas_has_more_hidden_of_every_action_and_approvals_show_whom_a_call_concerns(
    tmp_path: Path,
) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(asking_for("privacy", "email", "card", overlay=True))
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data", detectors=("none",), overlays=(overlay,))) as made:
        made.load_atlas_from_json(asking_for("plain"))
        session = made.create_session("ann").session_id
        asked = made.execute_blocking(session, "plain.send", {"to": MAIL, "card": CARD}).approval
        assert {each[2] for each in hidden(made, session)} == {"email", "card"}
        assert asked is not None
        assert asked.parameters["to"] == MAIL
        assert asked.parameters["card"].startswith("[redacted:card:")


def test_an_extension_does_not_choose_what_an_atlas_hides_by_the_action_it_names() -> None:
    def added(action_id: str | None) -> frozenset[str]:
        return frozenset(() if action_id == "plain.send" else ("email",))

    store, session = MemoryStore(), new_identifier()
    store.begin(session, session)
    redacting = RedactingStore(store, Detectors(()), added)
    for event_type in ("x.test.note", "action.reported", "action.requested"):
        payload = {"action_id": "plain.send", "parameters_hash": "0" * 64, "parameters": {"to": MAIL}}
        redacting.append(session, [Draft(event_type, payload, session)])
    assert [MAIL in line.decode() for line in store.read(session) if b"context.redacted" not in line] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "redaction", [{"detectors": []}, {"detectors": ["emails"]}, {"detectors": ["email"], "off": ["card"]}, {}, None]
)
def test_an_atlas_that_asks_for_what_there_is_not_is_invalid(tmp_path: Path, redaction: object) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as made, pytest.raises(AtlasInvalidError):
        made.load_atlas_from_json(json.dumps({**ATLAS, "redaction": redaction}))


def test_an_atlas_can_ask_for_every_detector_there_is() -> None:
    assert tuple(RedactionPart.model_validate({"detectors": list(DETECTORS)}).detectors) == DETECTORS == BUILT_IN
