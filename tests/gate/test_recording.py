"""What traces keep of parameters, and how results are measured and cut."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cra_mcp.canonical import digest
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.gate.results import measure, recorded_result
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.redact import REDACTED, redactor_for
from tests.gate.conftest import make_world

pytestmark = pytest.mark.anyio

GIVEN = {"n": 1, "secret": "hunter2"}


@pytest.mark.parametrize(
    ("mode", "kept", "said"),
    [
        ("none", None, "none"),
        ("hash", None, "hash"),
        ("redacted", {"n": 1, "secret": REDACTED}, "redacted"),
        ("full", GIVEN, "full"),
    ],
)
async def test_a_trace_keeps_what_it_is_set_to(mode: str, kept: object, said: str) -> None:
    world = make_world(recording=mode)
    async with world.runtime:
        await world.runtime.execute(world.session, "do.number", GIVEN)
        (payload,) = world.payloads("action.requested")
        assert (payload["parameters"], payload["recording"]) == (kept, said)
        assert payload["parameters_hash"] == digest(GIVEN)


async def test_large_parameters_are_kept_as_a_hash() -> None:
    world = make_world(max_recorded_bytes=100)
    async with world.runtime:
        await world.runtime.execute(world.session, "do.plain", {"text": "x" * 200})
        (payload,) = world.payloads("action.requested")
        assert (payload["parameters"], payload["recording"], payload["parameters_bytes"]) == (None, "hash", 211)


CONTENT = ({"type": "text", "text": "seven"},)


@pytest.mark.parametrize(
    ("mode", "result", "kept"),
    [
        ("none", Result({"x": 1}), None),
        ("hash", Result({"x": 1}), None),
        ("redacted", Result({"x": 1, "code": "seven"}), {"x": 1, "code": REDACTED}),
        ("full", Result({"x": 1, "code": "seven"}), {"x": 1, "code": "seven"}),
        ("redacted", Result({"x": 1}, CONTENT), {"content": None, "structured": {"x": 1}}),
        ("full", Result({"x": 1}, CONTENT), {"content": [dict(CONTENT[0])], "structured": {"x": 1}}),
        ("full", Result({"x": "y" * 300}), None),
    ],
)
async def test_a_trace_keeps_of_results_what_it_is_set_to(mode: str, result: Result, kept: object) -> None:
    schema = {"type": "object", "properties": {"code": {"writeOnly": True}}}
    config = RuntimeConfig(result_recording=mode, max_recorded_bytes=200)
    payload = recorded_result(measure(result, 1_000, 1_000), redactor_for(schema), config)
    assert payload == ({} if kept is None else {"result": kept, "recording": mode})


async def test_results_of_both_outcomes_are_kept_where_that_is_set() -> None:
    async def fail(_: Invocation) -> Result:
        return Result({"why": "no"}, is_error=True)

    world = make_world(result_recording="redacted")
    async with world.runtime:
        await world.runtime.execute(world.session, "do.plain")
        world.backend.behaviour["do.plain"] = fail
        await world.runtime.execute(world.session, "do.plain")
        assert world.payloads("action.executed")[0]["result"] == {"ok": True}
        assert world.payloads("action.failed")[0]["result"] == {"why": "no"}


async def test_faults_of_an_action_with_secrets_show_no_value() -> None:
    world = make_world()
    async with world.runtime:
        outcome = await world.runtime.execute(world.session, "do.number", {"n": 1, "secret": ["hunter2"]})
        assert outcome.fault is not None
        assert "hunter2" not in outcome.fault.message
        assert "/secret" in outcome.fault.message
        assert all(b"hunter2" not in line for line in world.runtime.read_trace(world.session))


TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "token": {"type": "string", "writeOnly": True},
        "children": {"type": "array", "items": {"$ref": "#"}},
        "either": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/key"}]},
        "pair": {"prefixItems": [{}, {"format": "password"}]},
        "options": {"additionalProperties": {"x-cra-sensitive": True}, "properties": {"open": {}}},
        "patterned": {"patternProperties": {"^k": {"writeOnly": True}}},
        "when": {"if": {"properties": {"k": {"writeOnly": True}}}},
        "dependent": {"dependentSchemas": {"a": {"properties": {"k": {"writeOnly": True}}}}},
    },
    "$defs": {"key": {"type": "string", "format": "password"}, "list": [{"writeOnly": True}]},
}


def tree(depth: int) -> dict:
    return {"name": "n", "token": "SECRET", "children": [tree(depth - 1)] if depth else []}


def test_marks_are_found_wherever_a_schema_puts_them() -> None:
    redactor = redactor_for(TREE)
    assert redactor is not None
    value = {
        **tree(5),
        "either": "SECRET",
        "pair": ["SECRET", "SECRET"],
        "options": {"a": "SECRET", "open": "shown"},
        "patterned": {"k1": "SECRET"},
        "when": {"k": "SECRET"},
        "dependent": {"k": "SECRET"},
        "unknown": "shown",
    }
    shown = repr(redactor.apply(value))
    assert "SECRET" not in shown
    assert shown.count("shown") == 2


def test_a_schema_without_marks_costs_nothing() -> None:
    assert redactor_for({"type": "object"}) is None
    assert redactor_for(True) is None


def test_local_references_into_lists_and_nowhere_are_followed_safely() -> None:
    listed = redactor_for({"$ref": "#/$defs/list/0", "$defs": TREE["$defs"]})
    assert listed is not None
    assert listed.apply("SECRET") == REDACTED
    for reference in ("#/$defs/list/9", "#/$defs/list/x", "#/$defs/key/type/x"):
        nowhere = redactor_for({"$ref": reference, "$defs": TREE["$defs"]})
        assert nowhere is not None
        assert nowhere.apply("shown") == "shown"


def test_values_nested_beyond_any_reason_are_hidden() -> None:
    redactor = redactor_for(TREE)
    assert redactor is not None
    value: object = "SECRET"
    for _ in range(300):
        value = {"children": [value]}
    assert "SECRET" not in repr(redactor.apply(value))


@given(
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
)
def test_a_marked_value_never_survives(inside: object) -> None:
    assume("SECRET" not in repr(inside))  # a key is as likely to be this as anything in the source
    redactor = redactor_for(TREE)
    assert redactor is not None
    marked = {"children": [{"token": {"deep": ["SECRET", inside]}, "name": inside}]}
    assert "SECRET" not in repr(redactor.apply(marked))


def test_a_result_within_the_cap_is_handed_on_as_it_is() -> None:
    result = Result(value={"a": 1})
    measured = measure(result, 100, 100)
    assert (measured.result, measured.cut, measured.size, measured.hash) == (result, False, 7, digest({"a": 1}))


def test_a_result_with_integers_that_have_no_canonical_form_is_still_hashed() -> None:
    measured = measure(Result(value={"n": 2**60}), 100, 100)
    assert measured.hash == digest({"n": str(2**60)})
    assert measured.result.value == {"n": 2**60}


def test_a_long_text_is_cut_at_a_character() -> None:
    measured = measure(Result(value="é" * 1_000), 101, 0)
    assert measured.result.content is not None
    text = str(measured.result.content[0]["text"])
    assert text == "é" * 50
    assert "result cut" in str(measured.result.content[1]["text"])


def test_content_is_kept_block_by_block_while_it_fits() -> None:
    image = {"type": "image", "data": "A" * 500, "mimeType": "image/png"}
    small = {"type": "text", "text": "small"}
    long = {"type": "text", "text": "x" * 500}
    measured = measure(Result(content=(small, image, long, small), is_error=True), 300, 300)
    assert measured.result.content is not None
    assert measured.result.is_error
    kept = measured.result.content
    assert kept[0] == small
    assert kept[1]["text"] == "[cra: image cut: 375 bytes, 300 of 300 were left]"
    assert str(kept[2]["text"]).startswith("xxx")
    assert len(kept) == 4
    assert "result cut" in str(kept[3]["text"])


def test_binary_blocks_have_a_cap_of_their_own_together() -> None:
    image = {"type": "image", "data": "A" * 4_000, "mimeType": "image/png"}
    document = {"type": "resource", "resource": {"uri": "x://y", "mimeType": "a/b", "blob": "A" * 4_000}}
    small = {"type": "text", "text": "small"}
    assert not measure(Result(content=(image, document, small)), 300, 6_000).cut
    measured = measure(Result(content=(image, document, small)), 300, 5_999)
    kept = measured.result.content or ()
    assert kept[0] == image
    assert kept[1]["text"] == "[cra: resource cut: 3000 bytes, 2999 of 5999 were left]"
    assert kept[2] == small
    assert "result cut" in str(kept[3]["text"])
    assert measured.hash == digest({"content": [image, document, small], "structured": None})


def test_a_block_that_does_not_fit_and_is_no_text_is_left_out() -> None:
    large = {"type": "resource", "resource": {"uri": "x://y", "text": "x" * 400}}
    small = {"type": "text", "text": "small"}
    kept = measure(Result(content=(large, small)), 300, 0).result.content or ()
    assert kept[0] == small
    assert "result cut" in str(kept[1]["text"])


def test_more_blocks_than_are_handed_on_are_cut() -> None:
    blocks = tuple({"type": "text", "text": str(number)} for number in range(1_001))
    measured = measure(Result(content=blocks), 1_000_000, 0)
    assert measured.cut
    assert measured.result.content is not None
    assert [*measured.result.content[:-1]] == [*blocks[:1_000]]
    assert not measure(Result(content=blocks[:1_000]), 1_000_000, 0).cut


def test_the_meta_of_a_result_is_part_of_its_hash() -> None:
    measured = measure(Result(content=(), value=1, meta={"a": 1}), 1_000, 0)
    assert measured.hash == digest({"content": [], "structured": 1, "_meta": {"a": 1}})


def test_content_that_fits_beside_a_value_that_does_not_is_kept() -> None:
    measured = measure(Result(value="x" * 1_000, content=({"type": "text", "text": "short"},)), 200, 0)
    assert measured.result.content is not None
    assert measured.result.content[0]["text"] == "short"
    assert measured.result.value is None
