"""Callers over HTTP with keys and tokens: who they are, what they see, and what is not theirs."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import modern, request
from tests.faces.http.test_sessions import bearer, call, session_of
from tests.faces.mcp.conftest import Place, environment
from tests.forks.command import forked

PUBLIC_URL = "https://cra.example/mcp"


def key(place: Place, subject: str, *roles: str, tenant: str = "acme") -> tuple[str, str]:
    options = [option for role in roles or ("agent",) for option in ("--role", role)]
    command = forked("keys", "create", subject, "--tenant", tenant, *options, "--data-dir", place.data, "--json")
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        env=environment(),
        check=True,
    )
    made = json.loads(done.stdout)
    return made["key"], made["key_id"]


def read(server: HttpServer, token: str, uri: str) -> dict[str, Any]:
    return modern(server, "resources/read", {"uri": uri}, {**bearer(token), "Mcp-Name": uri})[1]


def content(server: HttpServer, token: str, uri: str) -> Any:
    return json.loads(read(server, token, uri)["result"]["contents"][0]["text"])


def completions(server: HttpServer, token: str, argument: str, **context: str) -> list[str]:
    params = {
        "ref": {"type": "ref/resource", "uri": "cra://trace/{session_id}/{sequence}"},
        "argument": {"name": argument, "value": ""},
        "context": {"arguments": context},
    }
    return modern(server, "completion/complete", params, bearer(token))[1]["result"]["completion"]["values"]


@pytest.fixture
def guarded(servers: Servers) -> HttpServer:
    return servers.start("--require-key", "--public-url", PUBLIC_URL)


def test_a_key_lets_in_until_it_is_taken_back(guarded: HttpServer, servers: Servers) -> None:
    text, key_id = key(guarded.place, "ann")
    session = session_of(call(guarded, text))
    started = json.loads((guarded.place.data / "traces" / f"{session}.trace.jsonl").read_bytes().splitlines()[0])
    assert started["payload"]["principal"]["subject"] == "ann"
    assert started["payload"]["principal"]["credential"] == "api_key"
    command = [sys.executable, *forked("keys", "revoke", key_id, "--data-dir", guarded.place.data)]
    subprocess.run(command, capture_output=True, env=environment(), check=True)
    status, headers, _ = request(guarded, "POST", "/mcp", b"{}", bearer(text))
    assert status == 401
    assert headers["www-authenticate"] == (
        'Bearer realm="cra-mcp", error="invalid_token", '
        'resource_metadata="https://cra.example/.well-known/oauth-protected-resource/mcp"'
    )
    kept = [path.read_bytes() for path in guarded.place.data.rglob("*") if path.is_file()]
    assert not any(text.encode() in data for data in [*kept, servers.errors().encode()])


def test_every_refusal_of_a_credential_is_the_same(guarded: HttpServer) -> None:
    good, _ = key(guarded.place, "ann")
    answers = set()
    for credential in (good[:-1] + "!", "cra_" + "0" * 62, "a.b.c", "x" * 5_000):
        status, headers, body = request(guarded, "POST", "/mcp", b"{}", {"Authorization": f"Bearer {credential}"})
        answers.add((status, headers["www-authenticate"], body))
    assert len(answers) == 1
    for scheme in ("Basic", "bearer-ish", ""):
        status, headers, _ = request(guarded, "POST", "/mcp", b"{}", {"Authorization": f"{scheme} {good}"})
        assert (status, "error=" in headers["www-authenticate"]) == (401, False)
    assert modern(guarded, "tools/list", {}, {"Authorization": f"bearer {good}"})[0] == 200


def test_the_metadata_of_the_resource_needs_no_credential(guarded: HttpServer) -> None:
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
        status, _, body = request(guarded, "GET", path)
        document = json.loads(body)
        assert (status, document["resource"]) == (200, PUBLIC_URL)
        assert "authorization_servers" not in document


@pytest.mark.parametrize("reader", ["bob of acme", "ann of other", "auditor of other"])
def test_what_is_anothers_looks_like_what_is_not_there(guarded: HttpServer, reader: str) -> None:
    place = guarded.place
    owner, _ = key(place, "ann")
    theirs = {
        "bob of acme": lambda: key(place, "bob"),
        "ann of other": lambda: key(place, "ann", tenant="other"),
        "auditor of other": lambda: key(place, "eve", "agent", "auditor", "admin", tenant="other"),
    }[reader]()[0]
    session = session_of(call(guarded, owner))
    unknown = "01980000-0000-7000-8000-000000000000"
    for form in ("cra://trace/{}", "cra://trace/{}/0", "cra://trace/{}/table", "cra://chain/{}"):
        assert "result" in read(guarded, owner, form.format(session)), form
        found = json.dumps(read(guarded, theirs, form.format(session))["error"])
        missing = json.dumps(read(guarded, theirs, form.format(unknown))["error"])
        assert found.replace(session, "ID") == missing.replace(unknown, "ID"), form
    assert session not in json.dumps(content(guarded, theirs, "cra://sessions"))
    assert session in json.dumps(content(guarded, owner, "cra://sessions"))
    assert session not in completions(guarded, theirs, "session_id")
    assert completions(guarded, theirs, "sequence", session_id=session) == []
    assert completions(guarded, owner, "sequence", session_id=session) != []
    for name, arguments in (
        ("cra_trace", {"session_id": session}),
        ("cra_start_session", {"goal": "x", "parent_session_id": session}),
    ):
        params = {"name": name, "arguments": arguments}
        text = json.dumps(modern(guarded, "tools/call", params, bearer(theirs))[1])
        params = {"name": name, "arguments": json.loads(json.dumps(arguments).replace(session, unknown))}
        assert text.replace(session, "ID") == json.dumps(
            modern(guarded, "tools/call", params, bearer(theirs))[1]
        ).replace(unknown, "ID"), name
    handle = call(guarded, theirs, session)
    assert handle["isError"]
    assert json.dumps(handle).replace(session, "ID") == json.dumps(call(guarded, theirs, unknown)).replace(
        unknown, "ID"
    )


def test_an_approver_settles_over_http_what_an_agent_asks_for(guarded: HttpServer) -> None:
    agent, _ = key(guarded.place, "ann")
    approver, _ = key(guarded.place, "zoe", "approver")
    own, _ = key(guarded.place, "ann", "approver")

    def tool(token: str, name: str, **arguments: object) -> dict[str, Any]:
        return modern(guarded, "tools/call", {"name": name, "arguments": arguments}, bearer(token))[1]

    def listed(token: str) -> set[str]:
        tools = modern(guarded, "tools/list", {}, bearer(token))[1]["result"]["tools"]
        return {each["name"] for each in tools}

    assert "cra_settle_approval" not in listed(agent)
    assert listed(approver) == {"cra_pending_approvals", "cra_settle_approval", "cra_trace"}
    asked = tool(agent, "tool_pay", to="bob")["result"]["_meta"]["dev.cra/receipt"]
    approval_id = asked["details"]["approval_id"]
    settle = {"approval_id": approval_id, "decision": "approve", "comment": "fine"}
    assert tool(agent, "cra_settle_approval", **settle)["error"]["message"] == "Unknown tool: cra_settle_approval"
    refused = tool(own, "cra_settle_approval", **settle)["result"]
    assert refused["_meta"]["dev.cra/receipt"]["error"] == "self_approval"
    (waiting,) = tool(approver, "cra_pending_approvals")["result"]["structuredContent"]["approvals"]
    assert waiting["approval_id"] == approval_id
    settled = tool(approver, "cra_settle_approval", **settle)["result"]["structuredContent"]
    assert (settled["by"], settled["grade"]) == ("zoe", "authenticated_approver")
    assert tool(agent, "tool_pay", to="bob")["result"]["isError"] is False
    assert tool(agent, "tool_pay", to="bob")["result"]["isError"] is True, "an approval counts once"


def test_an_auditor_reads_its_tenants_traces_and_calls_nothing(guarded: HttpServer) -> None:
    agent, _ = key(guarded.place, "ann")
    auditor, _ = key(guarded.place, "eve", "auditor")
    session = session_of(call(guarded, agent))
    assert session in json.dumps(content(guarded, auditor, "cra://sessions"))
    assert content(guarded, auditor, f"cra://chain/{session}")["ok"]
    tools = modern(guarded, "tools/list", {}, bearer(auditor))[1]["result"]["tools"]
    assert [tool["name"] for tool in tools if not tool["name"].startswith("cra_")] == []
    before = len(guarded.place.traces())
    refused = call(guarded, auditor)
    assert refused["isError"]
    assert "agent, operator, admin" in refused["content"][0]["text"].replace(
        "admin, operator, agent", "agent, operator, admin"
    )
    assert len(guarded.place.traces()) == before


def test_totals_of_all_tenants_are_for_operators(servers: Servers) -> None:
    server = servers.start("--require-key", "--metrics")
    for role, expected in (("agent", 403), ("approver", 403), ("auditor", 403), ("operator", 200), ("admin", 200)):
        assert request(server, "GET", "/metrics", None, bearer(key(server.place, "ann", role)[0]))[0] == expected
    assert request(server, "GET", "/metrics")[0] == 401


def test_tokens_of_the_issuer_for_this_server_let_in(servers: Servers, tmp_path: Path) -> None:
    private = rsa.generate_private_key(65_537, 2_048)
    jwk = {**json.loads(RSAAlgorithm.to_jwk(private.public_key())), "kid": "k"}
    jwk.pop("key_ops", None)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk]}))
    issuer = "https://issuer.example"
    server = servers.start(
        "--jwt-issuer", issuer, "--jwks", str(path), "--public-url", PUBLIC_URL, "--require-scope", "cra"
    )
    now = int(time.time())

    def token(**change: object) -> str:
        claims = {"iss": issuer, "aud": PUBLIC_URL, "sub": "ann", "exp": now + 300, "scope": "cra", **change}
        return jwt.encode(claims, private, "RS256", headers={"kid": "k"})

    assert not call(server, token()).get("isError")
    for bad in (token(exp=now - 600), token(aud="https://other.example"), token(iss="https://evil.example")):
        assert request(server, "POST", "/mcp", b"{}", bearer(bad))[0] == 401
    status, headers, _ = request(server, "POST", "/mcp", b"{}", bearer(token(scope="read")))
    assert status == 403
    assert 'error="insufficient_scope", scope="cra"' in headers["www-authenticate"]
    document = json.loads(request(server, "GET", "/.well-known/oauth-protected-resource")[2])
    assert (document["authorization_servers"], document["scopes_supported"]) == ([issuer], ["cra"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--jwt-issuer", "https://issuer.example"),
        pytest.param(("--jwks", "keys.json"), marks=pytest.mark.long),
        pytest.param(("--jwt-issuer", "https://issuer.example", "--jwks", "keys.json"), marks=pytest.mark.long),
        pytest.param(("--require-scope", "cra", "--require-key"), marks=pytest.mark.long),
        ("--jwt-issuer", "https://i.example", "--jwks", "http://i.example/k", "--public-url", PUBLIC_URL),
        pytest.param(("--require-key", "--public-url", 'https://cra.example/"x'), marks=pytest.mark.long),
    ],
)
def test_half_an_authentication_is_refused(place: Place, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, *place.command("--transport", "sse", "--port", "0", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, "invalid_settings" in done.stderr) == (3, True), done.stderr
