"""Lines are checked many at a time: never with another outcome than one by one.

The same lines with a space behind each say the same in another JSON form, which only the examination field by field accepts: that
is what the outcome is compared with.
"""

from hashlib import sha256
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.canonical import canonical_bytes
from cra_mcp.trace.event import REQUIRED_FIELDS, Head, Verification, verify
from cra_mcp.trace.linked import LinkedLines
from tests.trace.test_diagnosis import TABLE, Lines, identifier
from tests.trace.test_diagnosis import chain as table_chain

SESSION = identifier(1)
LONG = 650  # over the batches in which lines are taken, and over 9 and 99
GOOD_FIELDS = {
    "version": "1.0",
    "event_id": identifier(5),
    "event_type": "x.a",
    "parent": identifier(3),
    "payload": '{"a":1}',
    "session_id": SESSION,
    "span_id": identifier(2),
    "timestamp": "2026-01-02T03:04:05.000006Z",
    "trace_id": identifier(4),
}


def written(fields: dict[str, str], number: int, previous: str) -> tuple[str, bytes]:
    """What ``link`` would write without its checks: the hash is right, whatever the fields are."""
    parent = fields["parent"]
    owner = f'"{parent}"' if parent else "null"
    hashed = (
        fields["version"] + fields["event_id"] + fields["trace_id"] + fields["span_id"] + parent + fields["session_id"]
        + fields.get("sequence", str(number)) + fields["timestamp"] + fields["event_type"] + fields["payload"] + previous
    )  # fmt: skip
    event_hash = sha256(hashed.encode()).hexdigest()
    stated = fields.get("event_hash", event_hash)
    line = (
        f'{{"event_hash":"{stated}","event_id":"{fields["event_id"]}","event_type":"{fields["event_type"]}",'
        f'"parent_span_id":{owner},"payload":{fields["payload"]},'
        f'"previous_event_hash":"{fields.get("previous", previous)}","sequence":{fields.get("sequence", str(number))},'
        f'"session_id":"{fields["session_id"]}","span_id":"{fields["span_id"]}","timestamp":"{fields["timestamp"]}",'
        f'"trace_id":"{fields["trace_id"]}","trace_version":"{fields["version"]}"}}'
    )
    return stated, line.encode()


def made(events: int, **forged: dict[str, str]) -> Lines:
    """A chain; ``forged`` says which fields of which events are others (``n12={"span_id": ...}``). All hashes hold."""
    previous, lines = "0" * 64, []
    for number in range(events):
        fields = GOOD_FIELDS | {"parent": identifier(3) if number % 2 else ""} | forged.get(f"n{number}", {})
        previous, line = written(fields, number, previous)
        lines.append(line)
    return lines


def outcome(found: Verification) -> tuple[object, ...]:
    return found.ok, found.events, found.bad_index, found.code, found.head


def one_by_one(lines: Lines, **known) -> tuple[object, ...]:
    return outcome(verify([line + b" " for line in lines], **known))


def check(lines: Lines, first: int, previous: bytes | None = None) -> object:
    """What is said of ``lines[first:]`` at once."""
    previous = previous or lines[first - 1][15:79]
    return LinkedLines(SESSION.encode()).check(lines[first:], first=first, previous=previous, timestamp=b"")


def test_what_link_writes_is_accepted_at_once():
    lines = table_chain(LONG)
    for first, last in ((1, 10), (10, 100), (100, LONG), (7, 8)):
        hashes, timestamp = check(lines[:last], first)
        assert list(hashes) == [line[15:79] for line in lines[first:last]]
        assert timestamp == b"2025-10-09T08:53:20.%06dZ" % (last - 1)


@pytest.mark.parametrize("event_type", [*sorted(REQUIRED_FIELDS), "x.a", "x.acme.tool_call-2"])
def test_every_event_type_is_accepted_with_the_fields_it_requires_and_not_without(event_type):
    required = REQUIRED_FIELDS.get(event_type, ())
    whole = {"event_type": event_type, "payload": canonical_bytes(dict.fromkeys(required)).decode()}
    assert check(made(3, n1=whole), 1)
    for missing in required:
        payload = canonical_bytes({name: 0 for name in required if name != missing}).decode()
        lines = made(3, n1={"event_type": event_type, "payload": payload})
        assert not check(lines, 1)
        assert outcome(verify(lines)) == one_by_one(lines)


GOOD_PAYLOADS = (
    "{}",
    '{"":null,"a":[true,false,null,[],{}],"b":-0.5,"c":"\\n\\u0000\\\\\\""}',
    '{"a":9007199254740991,"b":1e-7,"c":1e+21,"d":0.000001,"e":5e-324}',
    '{"é":"ü","\U0001f600":1,"\ufb33":2}',
    '{"a":"\U0001f600"}',
    '{"payload":{"a":",\\"payload\\":"}}',
    '{"a":' * 127 + "{}" + "}" * 127,
)
BAD_PAYLOADS = (
    '{"a":1.0}',
    '{"a":-0}',
    '{"a":-0.0}',
    '{"a":1e5}',
    '{"a":0.00001}{}',
    '{"a":1e-6}',
    '{"a":1e16}',
    '{"a":9007199254740992}',
    '{"a":9007199254740993}',
    '{"a":18446744073709551616}',
    '{"a":1,"a":1}',
    '{"b":1,"a":1}',
    '{"a": 1}',
    ' {"a":1}',
    '{"a":1} ',
    '{"a":"\\u0041"}',
    '{"a":"\\/"}',
    '{"a":"\\ud800"}',
    '{"a":"\x7f\t"}',
    '{"\ufb33":2,"\U0001f600":1}',
    '{"a":NaN}',
    '{"a":1}\n',
    "[]",
    "1",
    '{"a":[{}',
    "null",
    "",
    '{"a":' * 128 + "{}" + "}" * 128,
    '{"a":' + "[" * 127 + "[]" + "]" * 127 + "}",
)
OTHER_FIELDS = tuple(
    (name, value)
    for name, values in {
        "event_id": (identifier(5).upper(), identifier(5)[:-1] + "g", identifier(5).replace("-7", "-4"), identifier(5)[:-1],
                     "0" * 36, identifier(5).replace("-8000", "-c000"), "0198-0000000-7000-8000-00000000000", identifier(5) + "0"),
        "span_id": (identifier(2).replace("-7", "-6"), "z" * 36, "", identifier(2) + "0"),
        "trace_id": (identifier(4).replace("-7", "-6"), "z" * 36, "", identifier(44)),
        "parent": (identifier(3).replace("-7", "-6"), "z" * 36, identifier(33), "x"),
        "session_id": (identifier(11), "z" * 36),
        "event_type": ("y.a", "x..a", "x.", "x.A", "", "x.a\n", "action.undone", "x." + "a" * 63, "x.a.b", 'x.a","b":"'),
        "timestamp": ("2026-13-02T03:04:05.000006Z", "2026-00-02T03:04:05.000006Z", "2026-01-32T03:04:05.000006Z",
                      "2026-01-00T03:04:05.000006Z", "2026-01-02T24:04:05.000006Z", "2026-01-02T03:60:05.000006Z",
                      "2026-01-02T03:04:60.000006Z", "2026-01-02T03:04:05.00000aZ", "2026-01-02 03:04:05.000006Z",
                      "2026-01-02T03:04:05.000006z", "2026-01-02T03:04:05.000005Z", "2025-01-02T03:04:05.000006Z", "",
                      "2026-01-02T03:04:05.0000060Z", "+026-01-02T03:04:05.000006Z"),
        "sequence": ("0", "007", "7.0", "8", "+7", " 7", "9007199254740992", ""),
        "version": ("1.1", ""),
        "previous": ("0" * 64, ""),
        "event_hash": ("0" * 64, "A" * 64, ""),
        "payload": BAD_PAYLOADS,
    }.items()
    for value in values
)  # fmt: skip


@pytest.mark.parametrize("payload", GOOD_PAYLOADS)
def test_a_canonical_payload_is_accepted_at_once(payload):
    assert check(made(20, n13={"payload": payload}), 10)


@pytest.mark.parametrize(("name", "value"), OTHER_FIELDS)
def test_a_field_out_of_form_is_never_accepted_although_its_hash_holds(name, value):
    """Some are good in another way: another trace or parent, a number in another form. Those are found good one by one."""
    lines = made(30, n17={name: value})
    found = outcome(verify(lines, session_id=SESSION))
    assert found == one_by_one(lines, session_id=SESSION)
    assert found[0] or check(lines, 10) is None


@pytest.mark.parametrize("row", TABLE, ids=[row.attack for row in TABLE])
def test_every_attack_of_the_table_is_found_as_it_is_one_by_one(row):
    lines = row.do(table_chain())
    assert outcome(verify(lines, session_id=SESSION)) == one_by_one(lines, session_id=SESSION)


@given(
    st.dictionaries(
        st.integers(0, LONG - 1).map("n{}".format),
        st.sampled_from(OTHER_FIELDS).map(lambda each: dict([each])),
        max_size=3,
    ),
    st.integers(0, LONG + 5),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_chains_forged_anywhere_have_the_outcome_they_have_one_by_one(forged, place, truly):
    lines = made(LONG, **forged)
    true_hash = lines[place][15:79].decode() if place < LONG else "0" * 64
    expect = Head(place, true_hash if truly else "1" * 64, "")
    assert outcome(verify(iter(lines), expect_head=expect)) == one_by_one(lines, expect_head=expect)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_chains_with_bytes_changed_put_in_or_left_out_have_the_outcome_they_have_one_by_one(data):
    lines = made(12)
    number = data.draw(st.integers(0, 11))
    line = lines[number]
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, min(len(line), start + 3)))
    lines[number] = line[:start] + data.draw(st.binary(max_size=3)) + line[end:]
    assert outcome(verify(lines)) == one_by_one(lines)


def test_two_texts_that_are_good_only_together_are_not_accepted():
    halves = {"n17": {"payload": '{"a":[{}'}, "n18": {"payload": '{}]},{"b":1}'}}
    assert check(made(30, **halves), 10) is None


def test_lines_longer_than_one_and_shorter_than_the_next_make_no_whole():
    lines = made(30)
    moved = [*lines[:17], lines[17] + lines[18][:1], lines[18][1:], *lines[19:]]
    assert check(moved, 10) is None
    assert check([*lines[:17], b"", *lines[18:]], 10) is None


def test_more_kinds_of_events_than_are_remembered_are_accepted_all_the_same():
    events = (
        5_800  # lines that are taken in at once have sequences of equally many digits: the first thousand is left out
    )
    lines = made(events, **{f"n{number}": {"parent": identifier(number)} for number in range(events)})
    checker, previous, rest = LinkedLines(SESSION.encode()), lines[999][15:79], iter(lines[1_000:])
    first = 1_000
    while batch := list(islice(rest, 400)):
        hashes, _ = checker.check(batch, first=first, previous=previous, timestamp=b"")
        first, previous = first + len(batch), hashes[-1]
    assert first == events
