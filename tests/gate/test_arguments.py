"""Which arguments count: the same for key, hash, record, policy, approval and executor."""

import json
from collections.abc import AsyncIterator

import pytest

from cra_mcp.atlas.declared import declared_names
from cra_mcp.canonical import digest
from cra_mcp.gate.arguments import without_nulls
from tests.gate.conftest import ATLAS, World, action, make_world

pytestmark = pytest.mark.anyio

S = {"type": "string"}


def schema(**more: object) -> dict[str, object]:
    return {"type": "object", "properties": {"to": S, "note": S, "mail": {"type": ["string", "null"]}}, **more}


OPEN = {
    **ATLAS,
    "actions": [
        action("ar.open", parameters_schema=schema(required=["to"])),
        action("ar.closed", parameters_schema=schema(additionalProperties=False)),
        action("ar.declared", parameters_schema=schema(allOf=[{"properties": {"wait_for_previous": {"type": "boolean"}}}])),
        action("ar.asked", parameters_schema=schema(), requires_confirmation=True),
    ],
    "policies": [{"policy_id": "no-notes", "type": "deny", "actions": ["ar.open"], "when": "has(args.note)"}],
}  # fmt: skip


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    made.runtime.load_atlas_from_json(json.dumps({**OPEN, "atlas_id": "com.example.arguments"}))
    async with made.runtime:
        yield made


HOST = {"wait_for_previous"}


async def test_what_a_host_adds_is_taken_out_before_anything_looks_and_recorded(world: World) -> None:
    given = {"to": "ann", "wait_for_previous": True}
    outcome = await world.runtime.execute(world.session, "ar.open", given, host_arguments=HOST)
    assert outcome.status == "success"
    assert [dict(each.parameters) for each in world.backend.done] == [{"to": "ann"}]
    (requested,) = world.payloads("action.requested")
    assert requested["parameters"] == {"to": "ann"}
    assert requested["parameters_hash"] == digest({"to": "ann"})
    assert requested["left_out"] == [{"pointer": "/wait_for_previous", "reason": "added_by_host"}]


async def test_what_the_schema_declares_is_the_callers_own(world: World) -> None:
    await world.runtime.execute(world.session, "ar.declared", {"wait_for_previous": True}, host_arguments=HOST)
    assert dict(world.backend.done[0].parameters) == {"wait_for_previous": True}
    assert "left_out" not in world.payloads("action.requested")[0]


async def test_what_no_host_is_known_to_add_is_refused_by_name_or_taken_as_the_schema_says(world: World) -> None:
    refused = await world.runtime.execute(world.session, "ar.closed", {"wait_for_previous": True, "to": "ann"})
    assert refused.fault is not None
    assert (refused.status, refused.fault.code) == ("error", "invalid_parameters")
    assert "wait_for_previous" in refused.fault.message
    taken = await world.runtime.execute(world.session, "ar.open", {"wait_for_previous": True, "to": "ann"})
    assert taken.status == "success"
    assert dict(world.backend.done[0].parameters) == {"wait_for_previous": True, "to": "ann"}
    host = await world.runtime.execute(
        world.session, "ar.closed", {"wait_for_previous": True, "x": 1}, host_arguments=HOST
    )
    assert host.fault is not None
    assert "x" in host.fault.message
    assert "wait_for_previous" not in host.fault.message


async def test_a_null_that_stands_for_nothing_counts_as_left_out_and_policy_sees_it_so(world: World) -> None:
    outcome = await world.runtime.execute(world.session, "ar.open", {"to": "ann", "note": None, "mail": None})
    assert outcome.status == "success", "a policy on the note does not see one"
    assert dict(world.backend.done[0].parameters) == {"to": "ann", "mail": None}
    assert world.payloads("action.requested")[0]["left_out"] == [{"pointer": "/note", "reason": "null"}]
    required = await world.runtime.execute(world.session, "ar.open", {"to": None})
    assert required.fault is not None
    assert required.fault.code == "invalid_parameters"


async def test_the_same_call_with_and_without_them_is_one_call_by_its_key_and_one_consent(world: World) -> None:
    runtime, session = world.runtime, world.session
    first = await runtime.execute(session, "ar.closed", {"to": "ann"}, idempotency_key="k")
    again = await runtime.execute(
        session,
        "ar.closed",
        {"to": "ann", "note": None, "wait_for_previous": 1},
        idempotency_key="k",
        host_arguments=HOST,
    )
    assert again.execution_id == first.execution_id
    assert len(world.backend.done) == 1
    waiting = await runtime.execute(session, "ar.asked", {"to": "ann", "note": None})
    assert waiting.approval is not None
    runtime.settle_approval(waiting.approval.approval_id, granted=True, by="ann", channel="cli")
    done = await runtime.execute(session, "ar.asked", {"to": "ann", "wait_for_previous": 1}, host_arguments=HOST)
    assert done.status == "success"
    assert dict(world.backend.done[-1].parameters) == {"to": "ann"}


async def test_an_explanation_is_of_the_arguments_that_count(world: World) -> None:
    explained = world.runtime.explain("ar.open", {"to": "ann", "note": None})
    assert (explained.decision.effect, explained.faults) == ("allow", ())
    assert world.runtime.explain("ar.open", {"to": "ann", "note": "x"}).decision.effect == "deny"


@pytest.mark.parametrize("given", [None, [1], "text", {"to": 1}, {}])
async def test_anything_else_stays_as_it_is(world: World, given: object) -> None:
    await world.runtime.execute(world.session, "ar.open", given, host_arguments=HOST)
    await world.runtime.execute(world.session, "no.such", {"wait_for_previous": None}, host_arguments=HOST)
    assert not any("left_out" in each for each in world.payloads("action.requested"))


NESTED = {
    "type": "object",
    "$defs": {"id": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/none"}]}, "none": {"type": "null"}, "a%b": S},
    "properties": {
        "inner": {"properties": {"s": S, "n": {"$ref": "#/$defs/id"}, "p%q": {"$ref": "#/$defs/a%25b"}, "r": S}, "required": ["r"]},
        "any": {},
        "true": True,
        "choice": {"enum": ["a", None]},
        "const": {"const": "a"},
        "types": {"type": ["string", "integer"]},
        "null": {"type": "null"},
    },
}  # fmt: skip


def test_nulls_are_looked_for_as_deep_as_properties_say_what_is_there() -> None:
    inner = {"s": None, "n": None, "p%q": None, "r": None, "x": None}
    given = {
        "inner": inner,
        "any": None,
        "true": None,
        "choice": None,
        "const": None,
        "types": None,
        "null": None,
        "un": None,
    }
    kept, nulls = without_nulls(given, NESTED)
    assert sorted(nulls) == ["/const", "/inner/p%q", "/inner/s", "/types"]
    expected = {key: value for key, value in given.items() if key not in {"const", "types"}}
    assert kept == {**expected, "inner": {"n": None, "r": None, "x": None}}
    assert without_nulls({"inner": 5, "s": [None]}, NESTED) == ({"inner": 5, "s": [None]}, [])


def test_a_recursive_schema_ends_them() -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"v": S}}
    node = schema
    for _ in range(40):
        child: dict[str, object] = {"properties": {"v": S}}
        node["properties"] |= {"c": child}  # type: ignore[operator]
        node = child
    value: dict[str, object] = {"v": None}
    for _ in range(40):
        value = {"c": value, "v": None}
    assert len(without_nulls(value, schema)[1]) == 17


def test_declared_is_what_any_part_about_the_same_object_names() -> None:
    found = declared_names(
        {
            "properties": {"a": {"properties": {"below": {}}}},
            "allOf": [{"properties": {"b": {}}}, True],
            "if": {"properties": {"c": {}}},
            "dependentSchemas": {"a": {"properties": {"d": {}}}},
            "$ref": "#/$defs/e",
            "$defs": {
                "e": {"properties": {"e": {}}, "anyOf": [{"$ref": "#/$defs/e"}, {"$ref": "#/nowhere"}]},
                "f": {"properties": {"f": {}}},
            },
        }
    )
    assert found == {"a", "b", "c", "d", "e"}
