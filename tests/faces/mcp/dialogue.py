"""Two servers that differ in one thing: what the one hides, the other does not have. And all that an agent can say to them."""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faces.mcp.conftest import MANIFEST, Place, action, write_atlas

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""``ask(method, params)``: the answer to one request, without its id."""

SECRET = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
TEXT = {"type": "string"}
CHOICE = {"type": "object", "properties": {"to": {"type": "string", "enum": ["Ada", "Alan"]}}, "required": ["to"]}
GATED = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "key": {"type": "string", "writeOnly": True},
    },
}


def python(function: str, **more: object) -> dict[str, object]:
    return {"type": "python", "callable": f"tools:{function}", **more}


SHOWN = [
    action("open.echo", "echo", idempotent=True),
    action("open.delete", "echo"),
    action("open.pay", "echo", risk_tier="high"),
    action("open.letter", "large", parameters_schema=CHOICE, publish={"as": "prompt", "name": "letter"}),
    action("open.page", "large", publish={"as": "resource", "uri": "app://page/one"}),
]
HIDDEN = [
    action("vault.plain", "echo"),
    action(
        "vault.gated",
        "echo",
        parameters_schema=GATED,
        publish={"as": "tool", "name": "gated", "parameters_schema": "exact"},
    ),
    action("vault.asking", "steps", executor=python("steps", context="ctx", asks=["elicitation"])),
    action("vault.unbound", "nothing_of_this_name"),
    action("vault.letter", "echo", parameters_schema=CHOICE, publish={"as": "prompt", "name": "vault_letter"}),
    action("vault.guide", "echo", publish={"as": "prompt", "name": "faces_guide"}),
    action("vault.page", "echo", publish={"as": "resource", "uri": "app://vault/page"}),
    action(
        "vault.pages",
        "echo",
        parameters_schema={"type": "object", "properties": {"id": TEXT}, "required": ["id"]},
        publish={"as": "resource", "uri": "app://page/{id}"},
    ),
]
OPEN_POLICIES: list[dict[str, Any]] = [
    {"policy_id": "no-delete", "type": "deny", "actions": ["open.delete"], "reason": "Deleting is for people"},
    {"policy_id": "ask", "type": "require_approval", "actions": ["open.pay"], "reason": "Money leaves the house"},
]


def worlds(folder: Path, seed: int) -> tuple[tuple[Place, list[str]], tuple[Place, list[str]]]:
    """Two places and their options: in the first a few actions are hidden, in the second they aren't declared."""
    draw = random.Random(seed)
    hidden = HIDDEN if seed == 0 else draw.sample(HIDDEN, draw.randint(1, len(HIDDEN)))
    hide = {
        "policy_id": "veil",
        "type": "deny",
        "actions": ["vault.*"],
        "disclose": False,
        "reason": "never",
        "priority": draw.choice([1, 900]),
    }
    loud = {"policy_id": "loud", "type": "deny", "actions": ["vault.*"], "reason": "told", "priority": 500}
    by_operator = draw.random() < 0.5
    shown = draw.sample(SHOWN, len(SHOWN))
    mixed = draw.sample([*shown, *hidden], len(shown) + len(hidden))
    found = []
    for name, actions, inside in (
        ("hidden", mixed, [loud] if by_operator else draw.sample([hide, loud], 2)),
        ("undeclared", [each for each in mixed if each in shown], []),
    ):
        place = Place(folder / name, folder / name / "atlas")
        write(place, actions, [*OPEN_POLICIES, *inside])
        options = []
        if by_operator:
            policy = folder / name / "ours.json"
            policy.write_text(json.dumps({"overlay_id": "ours", "policies": [hide]}))
            options = ["--policy", str(policy)]
        found.append((place, ["--control-tools", "all", *options]))
    return found[0], found[1]


def write(place: Place, actions: list[dict[str, Any]], policies: list[dict[str, Any]]) -> None:
    write_atlas(place.atlas, _manifest(actions, policies))


def rewrite(place: Place, actions: list[dict[str, Any]], policies: list[dict[str, Any]]) -> None:
    """Put other actions and policies in the place of those there are."""
    (place.atlas / "atlas.json").write_text(json.dumps(_manifest(actions, policies)))


def _manifest(actions: list[dict[str, Any]], policies: list[dict[str, Any]]) -> dict[str, Any]:
    return {**MANIFEST, "actions": actions, "policies": policies}


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything an agent can say that could tell of what it must not know; ``{session}`` is its session."""
    lists = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]
    yield from ((method, {}) for method in lists)
    yield from looking("before a session")
    yield "tools/call", {"name": "open_echo", "arguments": {"a": 1}}
    yield from calls()
    yield "tools/call", {"name": "cra_start_session", "arguments": {"goal": "look around"}}
    yield "tools/call", {"name": "cra_bootstrap", "arguments": {"goal": "read the guide"}}
    yield from calls()
    for name, arguments in (
        ("cra_request_context", {"need": "guide"}),
        ("cra_search_contexts", {"query": "vault guide"}),
        ("cra_list_atlases", {}),
        ("cra_report_action", {"action": "looked"}),
        ("cra_feedback", {"context_id": "guide", "helpful": True}),
        ("cra_pending_approvals", {}),
    ):
        yield "tools/call", {"name": name, "arguments": arguments}
    yield from looking("within it")
    yield "tools/call", {"name": "cra_end_session", "arguments": {}}
    yield from looking("after it")
    yield from ((method, {}) for method in lists)


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("vault_plain", "vault.plain", "gated", "vault_asking", "vault_unbound", "faces_guide", "nowhere"):
        for arguments in ({}, {"region": "eu", "key": SECRET, "mail": "ann@example.org"}, [1], {"x": "\ud800"}):
            yield "tools/call", {"name": name, "arguments": arguments}
    yield "tools/call", {"name": "vault_asking", "arguments": {}, "requestState": "cra.round.x"}
    yield "tools/call", {"name": "open_delete", "arguments": {}}
    yield "tools/call", {"name": "open_pay", "arguments": {"to": "Ada"}}
    for name in ("vault_letter", "letter", "faces_guide", "vault_plain", "vault.letter", "open.echo", "nowhere"):
        yield "prompts/get", {"name": name, "arguments": {"to": "Ada", "size": "1"}}
        yield (
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": name},
                "argument": {"name": "to", "value": "A"},
            },
        )
    for uri in (
        "app://vault/page",
        "app://page/one",
        "app://page/two",
        "app://nowhere/page",
        f"app://page/{SECRET}",
        "cra://nowhere",
    ):
        yield "resources/read", {"uri": uri}
        yield "resources/read", {"uri": uri, "requestState": "forged"}


def looking(_when: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for arguments in ({}, {"after": -1, "limit": 500}, {"after": -1, "limit": 500, "format": "jsonl"}):
        yield "tools/call", {"name": "cra_trace", "arguments": arguments}
    base = "cra://trace/{session}"
    for uri in (
        base, f"{base}?after=2&limit=3", f"{base}/table", f"{base}/4", "cra://chain/{session}", "cra://sessions",
        "cra://session/current", "cra://atlas/com.example.faces", "cra://context/com.example.faces/guide", "cra://approvals",
    ):  # fmt: skip
        yield "resources/read", {"uri": uri}
    template = {"type": "ref/resource", "uri": "cra://trace/{session_id}/{sequence}"}
    for name in ("session_id", "sequence", "atlas_id", "block_id"):
        argument = {"name": name, "value": ""}
        yield (
            "completion/complete",
            {
                "ref": template,
                "argument": argument,
                "context": {"arguments": {"session_id": "{session}"}},
            },
        )


_IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_TOKEN = re.compile(r"(?<=\[redacted:secret:)[0-9a-f]{16}")  # under a key of each data folder
_PLAIN = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?"), "TIME"),
    (re.compile(r'(duration_ms\\*": ?)[0-9.]+'), r"\1N"),
    (re.compile(r"\| [0-9.e-]+ \|\\n"), "| N |\\\\n"),
)


class Heard:
    """Answers with ids, hashes and times made alike: by what was heard of first."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def plain(self, answer: dict[str, Any]) -> str:
        text = json.dumps(answer, sort_keys=True)
        for pattern in (_IDENTIFIER, _HASH, _TOKEN):
            text = pattern.sub(lambda match: self._known.setdefault(match[0], f"#{len(self._known)}"), text)
        for pattern, instead in _PLAIN:
            text = pattern.sub(instead, text)
        return text


def hold(ask: Ask) -> list[str]:
    """The whole dialogue with one server: each request, and what it answers."""
    heard = Heard()
    session = "01980000-0000-7000-8000-000000000000"
    found = []
    for method, params in requests():
        sent = json.dumps(params).replace("{session}", session)
        answer = ask(method, json.loads(sent))
        meta = answer.get("result", {}).get("_meta", {})
        session = meta.get("dev.cra/session") or meta.get("dev.cra/receipt", {}).get("session_id") or session
        found.append(f"{method} {json.dumps(params, sort_keys=True)} -> {heard.plain(answer)}")
    return found
