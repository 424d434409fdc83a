"""Secrets written into an atlas are refused where they would be used; ordinary values are not."""

import json
import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.archive import AtlasArchive
from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.errors import AtlasInvalidError
from tests.atlas.conftest import manifest, problems


def drawn(length: int, seed: int = 1, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Random characters, the same in every run; put together here, so that no scanner of sources finds a secret."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


GITHUB = "ghp_" + drawn(36)
PEM = "-----BEGIN " + "RSA PRIVATE KEY-----\n" + drawn(64)
RANDOM = drawn(32, 7)
WORD = "hunter2" + "hunter2"


def upstream(**fields: object) -> dict[str, Any]:
    return manifest(upstreams={"up": fields})


def request(**fields: object) -> dict[str, Any]:
    action = {
        "action_id": "a.b",
        "name": "B",
        "description": "b",
        "parameters_schema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
        "executor": {"type": "http", "method": "POST", "url": "https://api.example.com/x", **fields},
    }
    return manifest(actions=[action])


def command(*argv: str) -> dict[str, Any]:
    action = {
        "action_id": "a.b",
        "name": "B",
        "description": "b",
        "parameters_schema": {"type": "object"},
        "executor": {"type": "command", "argv": ["curl", *argv]},
    }
    return manifest(actions=[action])


def env(name: str, value: str, **more: object) -> dict[str, Any]:
    return upstream(command="npx", env={name: value}, **more)


def header(name: str, value: str, **more: object) -> dict[str, Any]:
    return upstream(url="https://mcp.example.com/mcp", headers={name: value}, **more)


def args(*values: str) -> dict[str, Any]:
    return upstream(command="npx", args=list(values))


def url(text: str, **more: object) -> dict[str, Any]:
    return upstream(url=text, **more)


UP, HTTP = "/upstreams/up", "/actions/0/executor"
REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "a key in a variable": (env("SETTING", GITHUB), f"{UP}/env/SETTING"),
    "a private key": (env("PEM", PEM), f"{UP}/env/PEM"),
    "a bare word under the name of a secret": (env("API_KEY", WORD), f"{UP}/env/API_KEY"),
    "written as one": (env("PGPASSWORD", WORD), f"{UP}/env/PGPASSWORD"),
    "abbreviated": (env("DB_PASS", WORD), f"{UP}/env/DB_PASS"),
    "in camel case": (env("accessToken", WORD), f"{UP}/env/accessToken"),
    "a number": (env("PIN", "4711"), f"{UP}/env/PIN"),
    "a default": (env("TOKEN", f"${{TOKEN:-{WORD}}}"), f"{UP}/env/TOKEN"),
    "a default inside": (env("DATABASE", f"postgres://u:${{DB_PASSWORD:-{WORD}}}@db/x"), f"{UP}/env/DATABASE"),
    "a reference of another program": (env("TOKEN", "$TOKEN"), f"{UP}/env/TOKEN"),
    "drawn at random": (env("SETTING", RANDOM), f"{UP}/env/SETTING"),
    "in the address of a database": (env("DATABASE", f"postgres://ann:{WORD}@db/x"), f"{UP}/env/DATABASE"),
    "beside a reference": (env("TOKEN", f"{GITHUB}${{NOTHING}}"), f"{UP}/env/TOKEN"),
    "a header": (header("Authorization", f"Bearer {WORD}"), f"{UP}/headers/Authorization"),
    "a header of its own": (header("X-Api-Key", WORD), f"{UP}/headers/X-Api-Key"),
    "a cookie": (header("cookie", f"sid={WORD}"), f"{UP}/headers/cookie"),
    "a header that looks harmless": (header("X-Tenant", RANDOM), f"{UP}/headers/X-Tenant"),
    "an argument": (args("server", GITHUB), f"{UP}/args/1"),
    "a flag and its value": (args("server", "--api-key", WORD), f"{UP}/args/2"),
    "a flag with its value": (args("server", f"--api-key={WORD}"), f"{UP}/args/1"),
    "a variable for a container": (args("run", "-e", f"TOKEN={WORD}", "image"), f"{UP}/args/2"),
    "a header for a bridge": (args("mcp-remote", "--header", f"Authorization: Bearer {WORD}"), f"{UP}/args/2"),
    "a user of an address": (url(f"https://{WORD}@mcp.example.com/mcp"), f"{UP}/url"),
    "a password of an address": (url(f"https://ann:{WORD}@mcp.example.com/mcp"), f"{UP}/url"),
    "a query field": (url(f"https://mcp.example.com/mcp?api_key={WORD}"), f"{UP}/url"),
    "a query field, encoded": (url(f"https://mcp.example.com/mcp?x={GITHUB.replace('_', '%5F')}"), f"{UP}/url"),
    "a path": (url(f"https://mcp.example.com/{GITHUB}/mcp"), f"{UP}/url"),
    "a key that is declared public": (env("SETTING", GITHUB, public=["SETTING"]), f"{UP}/env/SETTING"),
    "a header of a request": (request(headers={"X-Api-Key": WORD}), f"{HTTP}/headers/X-Api-Key"),
    "a query field of a request": (request(query={"access_token": WORD}), f"{HTTP}/query/access_token"),
    "a key in a request": (request(query={"q": GITHUB}), f"{HTTP}/query/q"),
    "a key in a url": (request(url=f"https://api.example.com/x?key={GITHUB}"), f"{HTTP}/url"),
    "a key in a body": (request(body={"json": {"a": [GITHUB]}}), f"{HTTP}/body/json/a/0"),
    "a key in a form": (request(body={"form": {"a": GITHUB}}), f"{HTTP}/body/form/a"),
    "a command's argument": (command("-H", f"Authorization: Bearer {WORD}"), f"{HTTP}/argv/2"),
    "a command's flag": (command("--token", WORD), f"{HTTP}/argv/2"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_secret_is_refused_with_the_way_out_and_not_repeated(case: tuple[dict[str, Any], str]) -> None:
    source, pointer = case
    assert ("atlas.json", pointer, "literal_secret") in problems(source)
    with pytest.raises(AtlasInvalidError) as caught:
        load_atlas_text(json.dumps(source))
    said = " ".join(map(str, [*caught.value.problems, caught.value, caught.value.hint]))
    assert not any(secret in said for secret in (GITHUB, PEM, WORD, RANDOM))
    assert any(way in said for way in ("${NAME}", "keyring", "reads it itself", "name that in env"))


ORDINARY: Mapping[str, dict[str, Any]] = {
    "references": upstream(
        command="${HOME}/bin/x",
        args=["--token", "${TOKEN}", "--key=${KEY}", "-e", "TOKEN=${TOKEN:-}", "Authorization: Bearer ${TOKEN}"],
        env={
            "TOKEN": "${TOKEN}",
            "API_KEY": "${env:OTHER}",
            "DB": "postgres://${U}:${DB_PASSWORD}@db/x",
            "EMPTY_TOKEN": "",
        },
    ),
    "a header with a scheme": header("Authorization", "Bearer ${TOKEN}"),
    "a cookie of references": header("Cookie", "sid=${SID}; theme=${THEME:-dark}"),
    "an address with references": url("https://${U}:${P}@mcp.example.com/mcp?api_key=${KEY}"),
    "an address that is a reference": url("${MCP_URL}"),
    "switches": upstream(
        command="npx",
        env={
            "USE_TOKEN": "true",
            "AUTH": "none",
            "X_AUTH": "oauth2",
            "TOKEN": "0",
            "LOG_LEVEL": "debug",
            "NODE_ENV": "production",
        },
    ),
    "files that hold secrets": upstream(
        command="npx",
        args=[
            "--token-file",
            "/run/secrets/token",
            "--token",
            "/run/secrets/token",
            "--cert=./cert.pem",
            "--no-auth",
            "server.js",
        ],
        env={"GOOGLE_APPLICATION_CREDENTIALS": "/etc/gcp/key.json", "TOKEN": "~/.token", "PASSWORD": "C:\\secrets\\x"},
    ),
    "addresses of secrets": env("TOKEN", "op://vault/item/field"),
    "packages and paths": args(
        "-y",
        "@modelcontextprotocol/server-filesystem@2025.11.25",
        "/nix/store/0c5nab1xpqk3r9d8s7f6g5h4j3k2l1m0-mcp-server-1.2.3/bin/server",
        "--directory=/home/ann/.cache/uv/archive-v0/Gw3bQ9xYt2LmZ0pR8sKdV",
        "git+https://github.com/example/mcp@31df8cd2e4b6a1f09c8d7e6f5a4b3c2d1e0f9a8b",
        "ghcr.io/example/mcp@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "--port=3000",
        "--max-tokens",
        "4096",
        "--sort-key=created_at",
        "--page-token-field",
        "nextPageToken",
        "--description",
        "a basic configuration-management server",
        "--allow",
        "read,write",
        "host:port",
        "--",
        "-v",
        "/data:/data:ro",
    ),
    "ordinary variables": upstream(
        command="npx",
        env={
            "DATABASE_URL": "postgresql://localhost/mydb",
            "PROJECT_ID": "01980000-0000-7000-8000-0000000000b1",
            "SORT_KEY": "created_at",
            "PRIMARY_KEY": "id",
            "TOKENIZER": "cl100k_base",
            "MAX_TOKENS": "4096",
            "PUBLIC_KEY": "the-one-in-the-docs",
            "PASSENGER_APP": "support-desk-production-europe",
            "PATH": "/usr/bin:/bin",
            "JAVA_OPTS": "-Xmx512m -Dfile.encoding=UTF-8",
        },
    ),
    "declared public": upstream(
        command="npx", env={"CLIENT_ID": RANDOM, "AUTH_TOKEN": WORD}, public=["CLIENT_ID", "AUTH_TOKEN"]
    ),
    "declared public, over HTTP": url(
        f"https://mcp.example.com/mcp?api_key={WORD}", headers={"X-Project": RANDOM}, public=["X-Project", "api_key"]
    ),
    "a request": request(
        headers={"X-Api-Version": "2026-01-01", "X-Request-Key": "{key}"},
        query={"access_token": "{key}", "page_token": "first", "key": 5},
        secrets={"Authorization": {"env": "TOKEN", "prefix": "Bearer "}},
        body={"json": {"password": "{key}"}},
    ),
    "a request, declared public": request(query={"api_key": "demo"}, public=["api_key"]),
    "a command": command("-sS", "--oauth2-bearer-file", "/run/token", "https://api.example.com/x"),
}


@pytest.mark.parametrize("source", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_values_are_none(source: dict[str, Any]) -> None:
    assert problems(source) == []


def test_what_is_declared_public_must_be_there() -> None:
    for source in (env("A", "b", public=["B"]), request(public=["B"])):
        assert [code for _, _, code in problems(source)] == ["invalid_value"]


def test_no_atlas_with_a_secret_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    folder.mkdir()
    (folder / "atlas.json").write_text(json.dumps(env("TOKEN", WORD)))
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data")) as runtime, pytest.raises(AtlasInvalidError):
        runtime.load_atlas(folder)
    assert [
        path for path in (tmp_path / "data").rglob("*") if path.is_file() and WORD.encode() in path.read_bytes()
    ] == []


@pytest.mark.parametrize("secret", [GITHUB, PEM])
def test_no_file_with_a_key_in_it_is_kept(tmp_path: Path, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "atlas"
    (folder / "python").mkdir(parents=True)
    (folder / "atlas.json").write_text(json.dumps(manifest()))
    archive = AtlasArchive(tmp_path / "kept")
    (folder / "python" / "x.py").write_text(f"KEY = '''{secret}'''")
    digest = load_atlas(folder, keep=archive.keep).digest
    archive.keep_policy_file(".yaml", f"# {secret}".encode())
    archive.refresh([digest])
    assert archive.load(digest) is None
    assert not (tmp_path / "kept").exists()
    assert secret not in caplog.text
    assert "not kept for replay" in caplog.text
    (folder / "python" / "x.py").write_text("KEY = 1")
    digest = load_atlas(folder, keep=archive.keep).digest
    assert archive.load(digest) is not None
