"""Atlases drafted from OpenAPI documents: what is taken over, what is said not to be, and documents that mean harm."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.model import Atlas, HttpExecutor
from cra_mcp.atlas.openapi import Draft, draft_atlas
from cra_mcp.atlas.openapi_document import read_document
from cra_mcp.errors import AtlasInvalidError

TEXT = {"type": "string"}


def document(paths: object, **more: object) -> dict[str, object]:
    info = {"title": "Desk", "version": "1.0.0"}
    return {"openapi": "3.1.0", "info": info, "servers": [{"url": "https://desk.test/v1"}], "paths": paths, **more}


def draft(value: object, **options: object) -> Draft:
    return draft_atlas(read_document(json.dumps(value).encode(), "x.json"), **options)  # type: ignore[arg-type]


def load(made: Draft) -> Atlas:
    return load_atlas_text(json.dumps(made.manifest()))


def one(
    operation: object, method: str = "get", path: str = "/x", item: dict[str, object] | None = None, **more: object
):
    """The only action of a document, as JSON; and what was said."""
    made = draft(document({path: {**(item or {}), method: operation}}, **more))
    if made.actions:
        load(made)
    return (made.actions[0] if made.actions else None), [
        (found.at, found.left_out is not None) for found in made.findings
    ]


def parameter(name: str, place: str = "query", schema: object = TEXT, **more: object) -> dict[str, object]:
    return {"name": name, "in": place, "schema": schema, **more}


# --- what is taken over ------------------------------------------------------------------------------------------------


def test_each_method_has_its_risk_its_policy_and_its_idempotence() -> None:
    operations = {method: {} for method in ("get", "head", "post", "put", "patch", "delete")}
    atlas = load(draft(document({"/x": operations})))
    known = {action.executor.method: action for action in atlas.actions if isinstance(action.executor, HttpExecutor)}
    assert {name: (action.risk_tier.value, action.idempotent) for name, action in known.items()} == {
        "GET": ("low", True),
        "HEAD": ("low", True),
        "POST": ("medium", False),
        "PUT": ("medium", True),
        "PATCH": ("medium", False),
        "DELETE": ("high", True),
    }
    policies = {policy.policy_id: (policy.type, set(policy.actions)) for policy in atlas.policies}
    assert policies == {
        "reads": ("allow", {"desk.get_x", "desk.head_x"}),
        "writes": ("require_approval", {"desk.post_x", "desk.put_x", "desk.patch_x"}),
        "deletions": ("deny", {"desk.delete_x"}),
    }
    assert atlas.manifest["default_effect"] == "deny"


def test_parameters_keep_their_places_and_get_names_of_their_own() -> None:
    operation = {
        "parameters": [
            parameter("id"),
            parameter("id", "header", {"type": "integer"}),
            parameter("filter[a]", schema={"type": "array", "items": TEXT}),
            parameter("csv", schema={"type": "array", "items": TEXT}, explode=False),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {
                            "id": TEXT,
                            "n": {"type": ["integer", "null"]},
                            "made": {**TEXT, "readOnly": True},
                        },
                    }
                }
            },
        },
    }
    item = {"parameters": [parameter("id", "path", TEXT, required=True, description="Which.")]}
    action, found = one(operation, "post", "/t/{id}/x", item)
    assert found == []
    assert action["executor"] == {
        "type": "http",
        "method": "POST",
        "url": "https://desk.test/v1/t/{id}/x{?csv}",
        "query": {"id": "{query_id}", "filter[a]": "{filter_a}"},
        "headers": {"id": "{header_id}"},
        "body": {"json": {"id": "{body_id}", "n": "{n}"}},
    }
    schema = action["parameters_schema"]
    assert schema["required"] == ["id", "body_id"]
    assert schema["properties"]["id"] == {"type": "string", "description": "Which."}
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == ["id", "query_id", "filter_a", "csv", "header_id", "body_id", "n"]


def test_parameters_of_an_operation_replace_those_of_its_path() -> None:
    item = {"parameters": [parameter("a", schema={"type": "integer"}), parameter("b")]}
    action, _ = one({"parameters": [parameter("a", required=True)]}, item=item)
    assert action["parameters_schema"]["properties"] == {"a": TEXT, "b": TEXT}
    assert action["parameters_schema"]["required"] == ["a"]


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        ({"type": "array", "items": TEXT}, True),
        ({"type": "object", "properties": {"a": TEXT}, "minProperties": 1}, True),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT}, True),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, False),
        ({"oneOf": [TEXT, {"type": "integer"}]}, True),
        ({"type": "object"}, True),
    ],
)
def test_a_body_whose_members_can_not_stand_alone_is_one_parameter(schema, required) -> None:
    action, found = one(
        {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}, "post"
    )
    assert found == []
    assert action["executor"]["body"] == {"json": "{body}"}
    assert action["parameters_schema"]["properties"] == {"body": schema}
    assert action["parameters_schema"].get("required", []) == (["body"] if required else [])


def test_forms_and_kinds_of_json_are_sent_as_what_they_are() -> None:
    schema = {"type": "object", "properties": {"a b": TEXT}}
    form, _ = one({"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}, "post")
    assert form["executor"]["body"] == {"form": {"a b": "{a_b}"}}
    needed = {**schema, "required": ["a b"]}
    always, found = one({"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": needed}}}}, "post")
    assert always["parameters_schema"]["required"] == ["a_b"]
    assert len(found) == 1
    merge, _ = one({"requestBody": {"content": {"application/merge-patch+json": {"schema": schema}}}}, "patch")
    assert merge["executor"]["headers"] == {"Content-Type": "application/merge-patch+json"}


def test_references_come_along_and_circles_stay_circles() -> None:
    schemas = {
        "Node": {
            "type": "object",
            "properties": {"next": {"$ref": "#/components/schemas/Node"}, "to": {"$ref": "#/x~1y/0"}},
        },
    }
    answer = {"description": "d", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}
    value = document({"/x": {"get": {"responses": {"200": answer}}}}, components={"schemas": schemas})
    action = draft({**value, "x/y": [TEXT]}).actions[0]
    assert action["returns_schema"] == {
        "$ref": "#/$defs/Node",
        "$defs": {
            "0": TEXT,
            "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "to": {"$ref": "#/$defs/0"}}},
        },
    }


def test_members_that_never_come_back_are_not_expected() -> None:
    schema = {"type": "object", "required": ["a", "b"], "properties": {"a": TEXT, "b": {**TEXT, "writeOnly": True}}}
    operation = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"content": {"application/json": {"schema": schema}}}},
    }
    action, _ = one(operation, "put")
    assert action["returns_schema"] == {"type": "object", "required": ["a"], "properties": {"a": TEXT}}
    assert action["parameters_schema"]["properties"]["b"] == {"type": "string", "writeOnly": True}  # traces hide it


@pytest.mark.parametrize(
    "responses",
    [
        {"200": {"content": {"application/json": {"schema": TEXT}}}, "201": {"content": {}}},
        {"200": {"content": {"application/json": {"schema": TEXT}, "text/csv": {}}}},
        {"204": {"description": "nothing"}},
        {"default": {"content": {"application/json": {"schema": TEXT}}}},
        {},
    ],
)
def test_a_result_of_more_than_one_form_has_no_schema(responses) -> None:
    action, _ = one({"responses": responses})
    assert "returns_schema" not in action


def test_security_schemes_become_references_to_the_environment() -> None:
    schemes = {
        "tok": {"type": "http", "scheme": "Bearer"},
        "login": {"type": "http", "scheme": "basic"},
        "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
        "q": {"type": "apiKey", "in": "query", "name": "key"},
        "c": {"type": "apiKey", "in": "cookie", "name": "sid"},
        "o": {"type": "oauth2", "flows": {}},
        "m": {"type": "mutualTLS"},
    }

    def secrets(security: object) -> object:
        action, _ = one({"security": security}, components={"securitySchemes": schemes})
        return action["executor"].get("secrets") if action else None

    assert secrets([{"tok": []}]) == {"Authorization": {"env": "DESK_TOK", "prefix": "Bearer "}}
    assert secrets([{"login": []}]) == {"Authorization": {"env": "DESK_LOGIN", "prefix": "Basic ", "encode": "base64"}}
    assert secrets([{"key": [], "q": []}]) == {"X-Key": {"env": "DESK_KEY"}, "key": {"env": "DESK_Q", "in": "query"}}
    assert secrets([{"c": []}]) == {"Cookie": {"env": "DESK_C", "prefix": "sid="}}
    assert secrets([{}, {"o": ["a:b"]}]) == {"Authorization": {"env": "DESK_O", "prefix": "Bearer "}}
    assert secrets([{"m": []}, {"key": []}]) == {"X-Key": {"env": "DESK_KEY"}}
    assert secrets([]) is None
    assert one({"security": [{"m": []}]}, components={"securitySchemes": schemes}) == (
        None,
        [("/components/securitySchemes/m", True)],
    )


def test_what_openapi_3_0_says_in_its_own_way_is_said_in_json_schemas() -> None:
    schema = {"type": "integer", "nullable": True, "minimum": 1, "exclusiveMinimum": True, "enum": [2, 3], "example": 2}
    value = document({"/x": {"get": {"parameters": [parameter("a", schema=schema)]}}}, openapi="3.0.3")
    written = draft(value).actions[0]["parameters_schema"]["properties"]["a"]  # type: ignore[index]
    assert written == {"type": ["integer", "null"], "exclusiveMinimum": 1, "enum": [2, 3, None]}


def test_ids_are_made_of_tags_and_operations_and_never_clash() -> None:
    operations = {
        "/a": {
            "get": {"tags": ["Pet Store"], "operationId": "listAllPets"},
            "post": {"tags": ["9 lives"], "operationId": "x"},
        },
        "/b": {
            "get": {"tags": ["Pet Store"], "operationId": "list_all_pets"},
            "post": {"tags": ["cra"], "operationId": "y"},
        },
        "/c/{d}": {"get": {"parameters": [parameter("d", "path", required=True)]}, "x-a": 1},
        "/d": {"post": {"operationId": "日本"}},
    }
    made = draft(document(operations))
    load(made)
    assert [action["action_id"] for action in made.actions] == [
        "pet_store.list_all_pets",
        "api_9_lives.x",
        "pet_store.list_all_pets_2",
        "api_cra.y",
        "desk.get_c_d",
        "desk.post_d",
    ]


def test_only_what_is_included_is_drafted() -> None:
    made = draft(document({"/x": {"get": {}, "delete": {}}, "/y": {"get": {}}}), include=["*.get_*"])
    assert [action["action_id"] for action in made.actions] == ["desk.get_x", "desk.get_y"]
    assert made.findings == []


def test_servers_are_the_nearest_ones_with_their_defaults_or_the_one_that_is_said() -> None:
    near = [{"url": "https://{where}.test/{v}/", "variables": {"where": {"default": "eu"}, "v": {"default": "v2"}}}]
    assert one({"servers": near})[0]["executor"]["url"] == "https://eu.test/v2/x"
    made = draft(document({"/x": {"get": {"servers": near}}}), server="http://localhost:8080/")
    assert made.actions[0]["executor"]["url"] == "http://localhost:8080/x"  # type: ignore[index]
    for servers in (
        [{"url": "/v1"}],
        [{"url": "https://{a}.test"}],
        [],
        [{"url": "https://user@x.test"}],
        [{"url": "https://a/?b"}],
    ):
        assert one({}, servers=servers)[0] is None


def test_texts_are_made_fit_to_be_read() -> None:
    action, _ = one({"summary": "One\n\x1b[31mred\u202e", "description": "a\r\nb\x00" + "x" * 20_000})
    assert action["name"] == "One [31mred"
    assert action["description"].startswith("a\nb")
    assert len(action["description"]) == 10_000


# --- what is not -------------------------------------------------------------------------------------------------------

UNDESCRIBED = {"properties": {"a": {}}, "required": ["b"]}
AT = "/paths/~1x/get"


@pytest.mark.parametrize(
    ("operation", "at"),
    [
        ({"parameters": [parameter("a", schema={"type": "object"})]}, f"{AT}/parameters/0"),
        ({"parameters": [parameter("a", schema={"type": "array"}, style="pipeDelimited")]}, f"{AT}/parameters/0"),
        ({"parameters": [parameter("a", "cookie")]}, f"{AT}/parameters/0"),
        ({"parameters": [parameter("Host", "header")]}, f"{AT}/parameters/0"),
        ({"parameters": [parameter("a", "header", {"type": "array"})]}, f"{AT}/parameters/0"),
        ({"parameters": [{"name": "a", "in": "query", "content": {"application/json": {}}}]}, f"{AT}/parameters/0"),
        (
            {"parameters": [parameter("a", schema={"$ref": "https://evil.test/s.json"})]},
            f"{AT}/parameters/0/schema/$ref",
        ),
        ({"parameters": [parameter("a", schema={"$ref": "other.yaml#/a"})]}, f"{AT}/parameters/0/schema/$ref"),
        ({"parameters": [parameter("a", schema={"$ref": "#/nowhere"})]}, f"{AT}/parameters/0/schema/$ref"),
        ({"parameters": [{"$ref": "file:///etc/passwd"}]}, f"{AT}/parameters/0/$ref"),
        ({"parameters": [parameter("a", schema={"type": "nonsense"})]}, AT),
        ({"parameters": [parameter("a", schema={"$id": "https://x.test/"})]}, f"{AT}/parameters/0/schema/$id"),
    ],
)
def test_what_can_not_be_sent_is_said_where_it_stands(operation, at) -> None:
    optional, found = one(operation)
    assert at in [where for where, _ in found]
    for each in operation["parameters"]:
        each["required"] = True
    required, found = one(operation)
    assert required is None
    assert [left_out for _, left_out in found] == [True]
    assert optional is None or optional["parameters_schema"]["properties"] == {}


@pytest.mark.parametrize(
    ("operation", "method"),
    [
        ({"requestBody": {"required": True, "content": {"multipart/form-data": {}}}}, "post"),
        ({"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": {"type": "array"}}}}}, "post"),
        ({"requestBody": {"required": True, "content": {"application/json": {"schema": UNDESCRIBED}}}},
         "post"),
        ({}, "options"),
        ([], "get"),
    ],
)  # fmt: skip
def test_an_operation_that_can_not_be_called_is_left_out_and_named(operation, method) -> None:
    action, found = one(operation, method)
    assert action is None
    assert [left_out for _, left_out in found] == [True]


@pytest.mark.parametrize(
    "path",
    [
        "/{a}",
        "/a/../b",
        "/a//b",
        "/a b",
        "/{a",
        "/a?b=c#d",
        "x",
        ".evil.test/",
        "@evil.test/",
        ":1/",
        "/%zz",
        "/${HOME}",
    ],
)
def test_a_path_that_can_not_be_requested_is_left_out(path: str) -> None:
    assert one({}, path=path)[0] is None


def test_calls_that_come_in_are_said_to_be_no_actions() -> None:
    _, found = one({"callbacks": {"a": {}}}, webhooks={"b": {}})
    assert [at for at, _ in found] == ["/webhooks", f"{AT}/callbacks"]


def test_an_extension_of_a_document_says_nothing_for_an_atlas() -> None:
    schema = {**TEXT, "x-cra-allow-slash": True, "x-cra-sensitive": False}
    action, _ = one({"parameters": [parameter("id", "path", schema, required=True)]}, path="/{id}")
    assert action["parameters_schema"]["properties"]["id"] == TEXT


def test_a_pattern_that_could_run_on_is_taken_out_and_said() -> None:
    schema = {"type": "string", "pattern": "^(?=a)b"}
    action, found = one({"parameters": [parameter("a", schema=schema)]})
    assert action["parameters_schema"]["properties"]["a"] == TEXT
    assert found == [(AT, False)]


# --- documents that mean harm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[]", "wrong_type"),
        (b"{}", "unsupported_version"),
        (b'{"swagger": "2.0"}', "unsupported_version"),
        (b'{"openapi": "3.2.0"}', "unsupported_version"),
        (b'{"openapi": 3.1}', "unsupported_version"),
        (b'{"openapi": "3.1.0", "openapi": "3.1.0"}', "invalid_json"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": 1e999}', "invalid_json"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "invalid_json"),
        (b'{"a": ' + b"[" * 100_000, "invalid_json"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "invalid_json"),
        (b"\xff{", "invalid_yaml"),
        (b'{"\xff": 1}', "not_utf8"),
        (b"a: [", "invalid_yaml"),
        (b"x" * 10_485_761, "too_large"),
        (b'{"a": [' + b"0," * 500_001 + b"0]}", "invalid_json"),
    ],
    ids=range(16),
)
def test_what_is_no_document_is_a_located_problem(data: bytes, code: str) -> None:
    with pytest.raises(AtlasInvalidError) as caught:
        read_document(data, "x")
    assert [(problem.file, problem.code) for problem in caught.value.problems] == [("x", code)]


def test_references_that_lead_on_and_on_end() -> None:
    chain = {f"p{number}": {"$ref": f"#/components/parameters/p{number + 1}"} for number in range(100)}
    circle = {"a": {"$ref": "#/components/parameters/b"}, "b": {"$ref": "#/components/parameters/a"}}
    for name in ("p0", "a"):
        operation = {"parameters": [{"$ref": f"#/components/parameters/{name}"}]}
        assert one(operation, components={"parameters": {**chain, **circle}})[0] is None


def test_schemas_that_multiply_are_left_out() -> None:
    schemas: dict[str, object] = {"s0": TEXT}
    for number in range(1, 40):
        schemas[f"s{number}"] = {"anyOf": [{"$ref": f"#/components/schemas/s{number - 1}"}] * 2}
    operation = {"parameters": [parameter("a", schema={"$ref": "#/components/schemas/s39"}, required=True)]}
    assert one(operation, components={"schemas": schemas})[0] is None
    endless = {"a": {"allOf": [{"$ref": "#/components/schemas/a"}]}}
    operation = {"parameters": [parameter("a", schema={"$ref": "#/components/schemas/a"}, required=True)]}
    assert one(operation, components={"schemas": endless})[0] is None


def test_an_atlas_has_room_for_a_thousand_actions_and_says_what_it_has_not() -> None:
    made = draft(document({f"/{number}": {"get": {}} for number in range(1_002)}))
    load(made)
    assert len(made.actions) == 1_000
    assert [found.left_out for found in made.findings] == ["GET /1000", "GET /1001"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["#/paths", "#/x", "string", "object", "query"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "parameters requestBody content application/json schema properties $ref in name required type items "  # noqa: SIM905
                "responses 200 security servers url tags operationId allOf enum pattern default explode style".split()
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(JSON, JSON, JSON, st.sampled_from(["3.0.0", "3.1.0"]))
def test_any_document_becomes_an_atlas_that_loads_or_findings(operation, item, components, version) -> None:
    value = document(
        {"/x": {"get": operation, "post": operation}, "/{y}": item}, components=components, openapi=version
    )
    made = draft({**value, "x": item})
    if made.actions:
        load(made)
    assert len(made.actions) + sum(found.left_out is not None for found in made.findings) >= (
        2 if not made.actions else 1
    )
    for found in made.findings:
        assert not found.at or found.at.startswith("/")
