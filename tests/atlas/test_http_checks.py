"""Executors of type http: what is refused when an atlas is loaded, and where."""

import pytest

from cra_mcp.atlas.model import HttpBody, HttpExecutor, SecretReference
from tests.atlas.conftest import action, load, manifest, problems

PROPERTIES = {"id": {"type": "string"}, "tags": {"type": "array"}, "any": {}}
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": ["id"]}
GOOD = {
    "type": "http",
    "method": "PUT",
    "url": "https://api.example.com/v1/items/{id}{?tags*}",
    "query": {"any": "{any}", "n": 1, "flag": True, "half": 0.5},
    "headers": {"X-Id": "{id}", "Accept": "application/json"},
    "body": {"json": {"tags": "{tags}", "text": "id {id}"}},
    "secrets": {"Authorization": {"env": "TOKEN", "prefix": "Bearer "}, "key": {"keyring": "api/key", "in": "query"}},
    "result": "/data/0",
    "retries": 3,
    "max_redirects": 2,
    "allow_hosts": ["cdn.example.com", "[::1]:8443"],
    "max_response_bytes": 4096,
}


def with_executor(executor: object, **fields: object) -> dict[str, object]:
    fields = {"parameters_schema": SCHEMA, "idempotent": True, **fields}
    return manifest(actions=[action("t.web", executor=executor, **fields)])


def found(executor: object, **fields: object) -> list[tuple[str, str]]:
    prefix = "/actions/0/executor"
    return [(pointer.removeprefix(prefix), code) for _, pointer, code in problems(with_executor(executor, **fields))]


def test_every_field_reaches_the_executor() -> None:
    assert load(with_executor(GOOD)).actions[0].executor == HttpExecutor(
        method="PUT",
        url="https://api.example.com/v1/items/{id}{?tags*}",
        query={"any": "{any}", "n": 1, "flag": True, "half": 0.5},
        headers={"X-Id": "{id}", "Accept": "application/json"},
        body=HttpBody({"tags": "{tags}", "text": "id {id}"}),
        secrets=(
            SecretReference("Authorization", env="TOKEN", prefix="Bearer "),
            SecretReference("key", keyring="api/key", place="query"),
        ),
        result="/data/0",
        retries=3,
        max_redirects=2,
        allow_hosts=("cdn.example.com", "[::1]:8443"),
        max_response_bytes=4096,
    )
    form = load(with_executor({**GOOD, "body": {"form": {"a": "{id}", "b": 2}}})).actions[0].executor
    assert isinstance(form, HttpExecutor)
    assert form.body == HttpBody({"a": "{id}", "b": 2}, "form")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"url": "https://{id}.example.com/"}, ("/url", "invalid_placeholder")),
        ({"url": "https://u:p@example.com/"}, ("/url", "invalid_format")),
        ({"url": "https://${HOST}/"}, ("/url", "invalid_placeholder")),
        ({"url": "file:///etc/passwd"}, ("/url", "invalid_format")),
        ({"url": "https://example.com/{id"}, ("/url", "invalid_placeholder")),
        ({"url": "https://example.com/{nobody}"}, ("/url", "unknown_parameter")),
        ({"url": "https://example.com/{any}"}, ("/url", "invalid_placeholder")),
        ({"url": "https://example.com/{#id}"}, ("/url", "invalid_placeholder")),
        ({"url": "https://example.com/a/../b"}, ("/url", "invalid_format")),
        ({"query": {"q": "{nobody}"}}, ("/query/q", "unknown_parameter")),
        ({"query": {"q": "x{any}"}}, ("/query/q", "invalid_placeholder")),
        ({"query": {"q": "{"}}, ("/query/q", "invalid_placeholder")),
        ({"query": {"q": ["{id}"]}}, ("/query/q", "wrong_type")),
        ({"headers": {"X": "{tags}"}}, ("/headers/X", "invalid_placeholder")),
        ({"headers": {"X": "a\nb"}}, ("/headers/X", "invalid_format")),
        ({"headers": {"host": "evil"}}, ("/headers/host", "reserved_name")),
        ({"headers": {"Transfer-Encoding": "chunked"}}, ("/headers/Transfer-Encoding", "reserved_name")),
        ({"headers": {"AUTHORIZATION": "Bearer x"}}, ("/headers/AUTHORIZATION", "reserved_name")),
        ({"headers": {"Cookie": "{id}"}}, ("/headers/Cookie", "reserved_name")),
        ({"headers": {"X-A": "1", "x-a": "2"}}, ("/headers/x-a", "duplicate_id")),
        ({"headers": {"X-A": "1"}, "secrets": {"x-a": {"env": "A"}}}, ("/secrets/x-a", "duplicate_id")),
        ({"secrets": {"a": {"env": "A"}, "A": {"env": "A"}}}, ("/secrets/A", "duplicate_id")),
        ({"query": {"k": 1}, "secrets": {"k": {"env": "A", "in": "query"}}}, ("/secrets/k", "duplicate_id")),
        ({"secrets": {"Host": {"env": "A"}}}, ("/secrets/Host", "reserved_name")),
        ({"secrets": {"A": {}}}, ("/secrets/A", "invalid_value")),
        ({"secrets": {"A": {"env": "A", "keyring": "b/c"}}}, ("/secrets/A", "invalid_value")),
        ({"secrets": {"A": {"value": "hunter2"}}}, ("/secrets/A/value", "unknown_field")),
        ({"secrets": {"A": "TOKEN"}}, ("/secrets/A", "wrong_type")),
        ({"secrets": {"A": {"keyring": "noslash"}}}, ("/secrets/A/keyring", "invalid_format")),
        ({"secrets": {"A": {"env": "A", "prefix": "a\r\n"}}}, ("/secrets/A/prefix", "invalid_format")),
        ({"method": "GET"}, ("/body", "invalid_value")),
        ({"method": "TRACE"}, ("/method", "invalid_value")),
        ({"body": {}}, ("/body", "invalid_value")),
        ({"body": {"json": 1, "form": {}}}, ("/body", "invalid_value")),
        ({"body": {"json": {"a": ["{nobody}"]}}}, ("/body/json/a/0", "unknown_parameter")),
        ({"body": {"json": {"a": "x{tags}"}}}, ("/body/json/a", "invalid_placeholder")),
        ({"body": {"form": {"a": "{nobody}"}}}, ("/body/form/a", "unknown_parameter")),
        ({"result": "data"}, ("/result", "invalid_format")),
        ({"max_redirects": 0}, ("/allow_hosts", "invalid_value")),
        ({"allow_hosts": ["*.example.com"]}, ("/allow_hosts/0", "invalid_value")),
        ({"retries": 6}, ("/retries", "out_of_range")),
        ({"max_response_bytes": 0}, ("/max_response_bytes", "out_of_range")),
        ({"proxy": "http://x"}, ("/proxy", "unknown_field")),
    ],
)
def test_what_is_wrong_is_found_where_it_is(change: dict[str, object], expected: tuple[str, str]) -> None:
    assert expected in found({**GOOD, **change})


def test_what_would_have_no_effect_is_refused() -> None:
    assert found(GOOD, idempotent=False) == [("/retries", "invalid_value")]
    assert found({**GOOD, "retries": 0}, idempotent=False) == []


def test_a_parameter_of_the_path_may_have_a_default_instead() -> None:
    schema = {"type": "object", "properties": {"id": {"type": "string", "default": "x"}}}
    assert found({"type": "http", "method": "GET", "url": "https://a.test/{id}"}, parameters_schema=schema) == []


@pytest.mark.parametrize("required", ["id", [1, {}, None], {}])
def test_a_broken_schema_beside_it_does_no_harm(required: object) -> None:
    schema = {"type": "object", "properties": {"id": True}, "required": required}
    assert found({"type": "http", "method": "GET", "url": "https://a.test/{id}"}, parameters_schema=schema)
