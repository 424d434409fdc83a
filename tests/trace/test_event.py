import json
import re
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import CanonicalError, TraceError
from cra_mcp.trace.event import (
    EVENT_TYPES,
    GENESIS_HASH,
    REQUIRED_FIELDS,
    Draft,
    Head,
    format_timestamp,
    is_identifier,
    link,
    parse,
    split_lines,
    verify,
)

SESSION = "01980000-0000-7000-8000-00000000ab01"
SPAN = "01980000-0000-7000-8000-00000000ab02"
PARENT = "01980000-0000-7000-8000-000000000003"
TRACE = "01980000-0000-7000-8000-000000000004"
EVENT = "01980000-0000-7000-8000-000000000005"
NOW = "2026-01-02T03:04:05.000006Z"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
payloads = st.dictionaries(
    texts,
    st.recursive(
        st.one_of(
            st.none(), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False), texts
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
        max_leaves=6,
    ),
    max_size=4,
)


def linked(draft: Draft, previous: Head | None = None) -> tuple[Head, bytes]:
    return link(previous, draft, session_id=SESSION, trace_id=TRACE, event_id=EVENT, timestamp=NOW)


def complete(event_type: str) -> Draft:
    return Draft(event_type, dict.fromkeys(REQUIRED_FIELDS.get(event_type, ())), SPAN, PARENT)


# --- link ----------------------------------------------------------------------------------------------------------


@given(payloads, st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_linked_verifies_and_reads_back(payload, with_parent):
    head, first = linked(Draft("x.a", {}, SPAN))
    head, line = linked(Draft("x.a", payload, SPAN, PARENT if with_parent else None), head)
    checked = verify([first, line], session_id=SESSION)
    assert checked.ok
    assert checked.head == head
    event = parse(line)
    assert canonical_bytes(event.payload) == canonical_bytes(payload)
    assert event.compute_hash() == event.event_hash == head.event_hash
    assert canonical_bytes(event.to_dict()) == line


def test_the_first_event_is_linked_to_zeros_and_the_next_to_it():
    head, line = linked(Draft("x.a", {}, SPAN))
    assert (head.sequence, parse(line).previous_event_hash) == (0, GENESIS_HASH)
    second, line = linked(Draft("x.a", {}, SPAN), head)
    assert (second.sequence, parse(line).previous_event_hash) == (1, head.event_hash)
    assert second.timestamp == NOW


def test_a_payload_of_canonical_bytes_or_any_mapping_gives_the_same_event():
    plain = linked(Draft("x.a", {"b": 1.0, "a": "é"}, SPAN))
    assert linked(Draft("x.a", '{"a":"é","b":1}'.encode(), SPAN)) == plain
    assert linked(Draft("x.a", MappingProxyType({"a": "é", "b": 1}), SPAN)) == plain


@pytest.mark.parametrize(
    "event_type",
    ["", "action.undone", "x.", "x", "x..a", "x.A", "x.a\n", "x.é", "y.a", "x." + "a" * 63, "x" + ".a" * 9],
)
def test_an_event_type_that_is_not_of_the_protocol_must_have_the_extension_form(event_type):
    with pytest.raises(TraceError) as caught:
        linked(Draft(event_type, {}, SPAN))
    assert caught.value.code == "malformed_event"


@pytest.mark.parametrize("event_type", [*sorted(EVENT_TYPES), "x.a", "x.acme.tool_call-2"])
def test_every_event_type_links_and_verifies_with_its_required_fields(event_type):
    head, first = linked(complete("x.first"))
    _, line = linked(complete(event_type), head)
    assert verify([first, line]).ok
    assert parse(line).event_type == event_type


@pytest.mark.parametrize("bad", ["", SPAN.upper(), SPAN[:-1], SPAN + "\n", "x" * 36])
def test_a_span_that_is_no_identifier_is_refused(bad):
    for draft in (Draft("x.a", {}, bad), Draft("x.a", {}, SPAN, bad)):
        with pytest.raises(TraceError) as caught:
            linked(draft)
        assert caught.value.code == "malformed_event"


def test_a_payload_without_canonical_form_is_refused():
    with pytest.raises(CanonicalError):
        linked(Draft("x.a", {"a": float("nan")}, SPAN))


# --- timestamps and identifiers ------------------------------------------------------------------------------------


@given(st.integers(0, 253_402_300_799_999_999_999))
@settings(max_examples=300, deadline=None)
def test_timestamps_round_down_to_microseconds(ns):
    text = format_timestamp(ns)
    assert len(text) == 27
    seconds, rest = divmod(ns, 1_000_000_000)
    expected = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    assert text == f"{expected}.{rest // 1_000:06d}Z"


def test_timestamps_within_and_across_seconds_are_right_in_any_order():
    base = 1_767_323_045_999_999_999
    assert [format_timestamp(base + step) for step in (0, 1, 0, -1_000, 1_000_000_000)] == [
        "2026-01-02T03:04:05.999999Z",
        "2026-01-02T03:04:06.000000Z",
        "2026-01-02T03:04:05.999999Z",
        "2026-01-02T03:04:05.999998Z",
        "2026-01-02T03:04:06.999999Z",
    ]


@pytest.mark.parametrize("ns", [-1, 253_402_300_800_000_000_000])
def test_a_clock_before_1970_or_after_9999_is_refused(ns):
    with pytest.raises(TraceError) as caught:
        format_timestamp(ns)
    assert caught.value.code == "clock_out_of_range"


def test_identifiers_are_lower_case_uuids_of_version_seven():
    assert is_identifier(SESSION)
    for text in (
        "",
        SESSION.upper(),
        SESSION.replace("7000", "4000"),
        SESSION + "x",
        "../" + SESSION[3:],
        SESSION.replace("-", ""),
    ):
        assert not is_identifier(text)


# --- verify --------------------------------------------------------------------------------------------------------


def test_every_single_changed_byte_of_a_chain_is_found_at_its_event(chain):
    lines = chain(4)
    for index, line in enumerate(lines):
        for place in range(len(line)):
            changed = bytearray(line)
            changed[place] ^= 1
            found = verify([*lines[:index], bytes(changed), *lines[index + 1 :]])
            assert not found.ok, (index, place)
            assert found.bad_index in {index, index + 1}, (index, place)
            assert found.events == found.bad_index


def test_a_long_chain_verifies_whatever_spans_it_uses(chain):
    head, lines = None, []
    for number in range(9_000):
        span = f"01980000-0000-7000-8000-{number:012x}"
        head, line = linked(
            Draft("action.requested", {"action_id": "a.b", "parameters_hash": GENESIS_HASH}, span), head
        )
        lines.append(line)
    assert verify(lines).to_dict() == {
        "ok": True,
        "events": 9_000,
        "head": {"sequence": 8_999, "event_hash": head.event_hash, "timestamp": NOW},
        "bad_index": None,
        "code": None,
        "message": None,
    }
    lines[8_000] = lines[8_000].replace(b'"span_id":"01980000', b'"span_id":"0198000Z')
    found = verify(lines)
    assert (found.bad_index, found.code) == (8_000, "malformed_event")


def test_required_fields_are_checked_once_the_hash_holds():
    head, first = linked(complete("x.first"))
    for event_type, fields in REQUIRED_FIELDS.items():
        for missing in fields:
            payload = {name: None for name in fields if name != missing}
            _, line = linked(Draft(event_type, payload, SPAN), head)
            found = verify([first, line])
            assert (found.bad_index, found.code) == (1, "malformed_event")
            assert found.message == f"the payload of {event_type} lacks {missing}"


def test_an_event_that_is_not_the_expected_one_is_named_even_where_it_is_the_first(chain):
    lines = chain(3)
    other = Head(0, GENESIS_HASH, "")
    found = verify(lines, expect_head=other)
    assert (found.ok, found.bad_index, found.code, found.head) == (False, 0, "chain_broken", None)


def test_a_line_with_its_line_feed_is_accepted_as_another_json_form(chain):
    assert verify([line + b"\n" for line in chain(3)]).ok


def test_an_unknown_extension_name_is_found_on_the_fast_path_too(chain):
    head, first = linked(complete("x.first"))
    _, line = linked(complete("x.second"), head)
    for bad in (b"x..second", b"y.second", b"x.second."):
        found = verify([first, line.replace(b"x.second", bad)])
        assert (found.bad_index, found.code) == (1, "malformed_event")


def test_a_payload_that_is_canonical_to_one_writer_only_is_hashed_in_its_canonical_form():
    head, first = linked(complete("x.first"))
    _, line = linked(Draft("x.a", {"a": 1.0}, SPAN), head)
    assert verify([first, line.replace(b'{"a":1}', b'{"a":1.0}')]).ok
    assert verify([first, line.replace(b'{"a":1}', b'{"a":1.0000001}')]).code == "hash_mismatch"


def test_parse_names_the_first_wrong_field():
    _, line = linked(Draft("x.a", {}, SPAN))
    fields = json.loads(line)
    for change, words in (
        ({"zzz": 1}, "field 'zzz' is not known"),
        ({"span_id": None}, "span_id breaks its form"),
        ({"sequence": 2**53 - 1}, None),
        ({"sequence": 1e16}, "sequence breaks its form"),
        ({"parent_span_id": 7}, "parent_span_id breaks its form"),
    ):
        text = json.dumps({**fields, **change}).encode()
        if words is None:
            assert parse(text).sequence == 2**53 - 1
        else:
            with pytest.raises(TraceError, match=re.escape(words)):
                parse(text)
    del fields["payload"]
    with pytest.raises(TraceError, match="field 'payload' is missing"):
        parse(json.dumps(fields).encode())


def test_lines_are_split_at_line_feeds_and_the_rest_is_the_tail():
    assert split_lines(b"") == ([], b"")
    assert split_lines(b"a\nb\n") == ([b"a", b"b"], b"")
    assert split_lines(b"a\nb") == ([b"a"], b"b")
