"""Writes specs/conformance/hash-chain: ``python tests/trace/generate_vectors.py [folder]``.

Shares no code with the package: chains are built here from specs/trace.md with the reference RFC 8785 writer, so that a
mistake in the package can't hide in its own vectors. Running it again gives the same bytes.
"""

import copy
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rfc8785

FOLDER = Path(__file__).parents[2] / "specs" / "conformance" / "hash-chain"
SESSION = "01980000-0000-7000-8000-000000000001"
OTHER_SESSION = "01980000-0000-7000-8000-000000000002"
TRACE = "01980000-0000-7000-8000-00000000000a"
ROOT_SPAN = "01980000-0000-7000-8000-0000000000b0"
CALL_SPAN = "01980000-0000-7000-8000-0000000000b1"
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ZEROS = "0" * 64

Event = dict[str, Any]

STEPS: list[tuple[str, str | None, dict[str, Any]]] = [
    (
        "session.started",
        None,
        {
            "agent_id": "support-bot",
            "goal": "answer ticket 17: größer, 日本",
            "atlases": [{"atlas_id": "example.support", "version": "1.0.0", "digest": HASH}],
            "policy_digest": HASH,
        },
    ),
    ("action.requested", ROOT_SPAN, {"action_id": "ticket.get", "parameters": {"id": 17}, "parameters_hash": HASH}),
    (
        "policy.evaluated",
        ROOT_SPAN,
        {"action_id": "ticket.get", "policy_id": "default", "result": "allow", "determining": []},
    ),
    ("action.approved", ROOT_SPAN, {"action_id": "ticket.get", "resolution_id": TRACE}),
    (
        "action.executed",
        ROOT_SPAN,
        {"action_id": "ticket.get", "execution_id": CALL_SPAN, "duration_ms": 12.5, "result_hash": HASH},
    ),
    ("session.ended", None, {"reason": "completed", "duration_ms": 1500.0}),
]


def hash_of(event: Event) -> str:
    text = "".join(
        [
            event["trace_version"],
            event["event_id"],
            event["trace_id"],
            event["span_id"],
            event["parent_span_id"] or "",
            event["session_id"],
            str(event["sequence"]),
            event["timestamp"],
            event["event_type"],
        ]
    )
    data = text.encode() + rfc8785.dumps(event["payload"]) + event["previous_event_hash"].encode()
    return hashlib.sha256(data).hexdigest()


def sealed(event: Event) -> Event:
    return {**event, "event_hash": hash_of(event)}


def make(sequence: int, previous: str, event_type: str, parent: str | None, payload: dict[str, Any]) -> Event:
    return sealed(
        {
            "trace_version": "1.0",
            "event_id": f"01980000-0000-7000-8000-0000000c{sequence:04x}",
            "trace_id": TRACE,
            "span_id": CALL_SPAN if parent else ROOT_SPAN,
            "parent_span_id": parent,
            "session_id": SESSION,
            "sequence": sequence,
            "timestamp": f"2026-01-02T03:04:05.{sequence:06d}Z",
            "event_type": event_type,
            "payload": payload,
            "previous_event_hash": previous,
        }
    )


def chain() -> list[Event]:
    events: list[Event] = []
    for sequence, (event_type, parent, payload) in enumerate(STEPS):
        events.append(
            make(sequence, events[-1]["event_hash"] if events else ZEROS, event_type, parent, copy.deepcopy(payload))
        )
    return events


def relinked(events: list[Event]) -> list[Event]:
    """The chain as someone who can write all of it would make it: every link and hash fits again."""
    linked: list[Event] = []
    for event in events:
        linked.append(sealed({**event, "previous_event_hash": linked[-1]["event_hash"] if linked else ZEROS}))
    return linked


def lines_of(events: list[Event]) -> list[str]:
    return [rfc8785.dumps(event).decode() for event in events]


def good(events: list[Event]) -> dict[str, Any]:
    head = events[-1]["event_hash"] if events else None
    return {"ok": True, "events": len(events), "head": head, "bad_index": None, "code": None}


def bad(events: list[Event], index: int, code: str) -> dict[str, Any]:
    """``index`` events are good; the next is bad."""
    head = events[index - 1]["event_hash"] if index else None
    return {"ok": False, "events": index, "head": head, "bad_index": index, "code": code}


VECTORS: list[tuple[str, dict[str, Any]]] = []


def add(name: str, description: str, kind: str, given: dict[str, Any], expect: dict[str, Any]) -> None:
    VECTORS.append((name, {"description": description, "kind": kind, "input": given, "expect": expect}))


def add_chain(name: str, description: str, lines: list[str], expect: dict[str, Any], **given: Any) -> None:
    add(name, description, "hash-chain", {"lines": lines, **given}, expect)


def add_changed(name: str, description: str, index: int, code: str, change: Callable[[Event], object]) -> None:
    """One event of a good chain is changed and nothing else."""
    events = chain()
    change(events[index])
    add_chain(name, description, lines_of(events), bad(chain(), index, code))


def add_rewritten(name: str, description: str, index: int, code: str, change: Callable[[Event], object]) -> None:
    """One event is changed, and it and all after it are hashed and linked again."""
    events = chain()
    change(events[index])
    add_chain(name, description, lines_of(relinked(events)), bad(chain(), index, code))


def good_chains() -> None:
    events = chain()
    add_chain("empty", "A chain without events is valid and has no head.", [], good([]))
    add_chain(
        "one-event",
        "The first event has sequence 0 and a previous hash of 64 zeros.",
        lines_of(events[:1]),
        good(events[:1]),
    )
    add_chain("whole-session", "A whole session.", lines_of(events), good(events))
    loose = [json.dumps(dict(reversed(event.items())), indent=None) for event in events]
    add_chain(
        "other-json-form",
        "Keys in another order, spaces and escapes: the hash is over the fields, not the line.",
        loose,
        good(events),
    )
    rounded = lines_of(events)
    rounded[5] = rounded[5].replace('"duration_ms":1500', '"duration_ms":1.5e3')
    add_chain(
        "other-number-form", "A number is hashed in its canonical form, whatever form is stored.", rounded, good(events)
    )
    events = [*chain()[:1], make(1, chain()[0]["event_hash"], "x.example.note", None, {})]
    add_chain(
        "extension-type",
        "An event type beginning x. is allowed and needs no payload fields.",
        lines_of(events),
        good(events),
    )
    payload = {"\U00010000": 1, "\ue000": 2, "é": -0.0, "a": [1e21, 1e-7, 0.1, None, True, "\x1f\u2028"], "b": 10.0**16}
    events = [*chain()[:1], make(1, chain()[0]["event_hash"], "x.numbers-and-keys", None, payload)]
    add_chain("hard-payload", "Key order by UTF-16, numbers as ECMAScript writes them.", lines_of(events), good(events))
    events = chain()
    for event in events:
        event["timestamp"] = events[0]["timestamp"]
    events = relinked(events)
    add_chain("equal-timestamps", "Events may share a timestamp.", lines_of(events), good(events))
    add_chain(
        "expected-session",
        "The chain is of the session it should be of.",
        lines_of(chain()),
        good(chain()),
        session_id=SESSION,
    )
    head = {"sequence": 3, "event_hash": chain()[3]["event_hash"]}
    add_chain(
        "expected-head",
        "A chain that has grown since still holds the link known from elsewhere.",
        lines_of(chain()),
        good(chain()),
        expect_head=head,
    )
    add_chain(
        "tail-cut-unnoticed",
        "Without a link known from elsewhere, a chain cut between two events is valid: a bare chain can't know its end.",
        lines_of(chain()[:4]),
        good(chain()[:4]),
    )


def tampering() -> None:
    add_changed(
        "payload-changed",
        "A changed payload.",
        1,
        "hash_mismatch",
        lambda event: event["payload"].update(action_id="ticket.delete"),
    )
    add_changed(
        "type-changed",
        "A changed event type.",
        3,
        "hash_mismatch",
        lambda event: event.update(event_type="action.denied"),
    )
    add_changed(
        "time-changed",
        "A changed timestamp.",
        4,
        "hash_mismatch",
        lambda event: event.update(timestamp="2026-01-02T03:04:06.000000Z"),
    )
    add_changed(
        "sequence-changed",
        "A changed sequence breaks the hash before it is a gap.",
        2,
        "hash_mismatch",
        lambda event: event.update(sequence=7),
    )
    add_changed(
        "parent-removed",
        "A parent span taken away.",
        1,
        "hash_mismatch",
        lambda event: event.update(parent_span_id=None),
    )
    add_changed(
        "hash-changed", "A changed event hash.", 2, "hash_mismatch", lambda event: event.update(event_hash=HASH)
    )
    add_changed(
        "previous-changed",
        "A changed previous hash.",
        2,
        "hash_mismatch",
        lambda event: event.update(previous_event_hash=HASH),
    )
    events = chain()
    events[1] = sealed({**events[1], "payload": {**events[1]["payload"], "action_id": "ticket.delete"}})
    add_chain(
        "event-rehashed",
        "A changed event with a fitting hash: the next is not linked to it.",
        lines_of(events),
        {**bad(events, 2, "chain_broken")},
    )
    events = chain()
    add_chain(
        "event-removed",
        "An event taken out of the middle.",
        lines_of(events[:2] + events[3:]),
        bad(events, 2, "chain_broken"),
    )
    add_chain(
        "event-repeated", "An event written twice.", lines_of(events[:3] + events[2:]), bad(events, 3, "chain_broken")
    )
    add_chain(
        "events-swapped",
        "Two events in each other's place.",
        lines_of([*events[:2], events[3], events[2], *events[4:]]),
        bad(events, 2, "chain_broken"),
    )
    add_chain(
        "first-removed",
        "The chain begins with its second event.",
        lines_of(events[1:]),
        bad(events, 0, "invalid_genesis"),
    )
    add_rewritten(
        "genesis-sequence",
        "A first event whose sequence is not 0, though its hash fits.",
        0,
        "invalid_genesis",
        lambda event: event.update(sequence=1),
    )
    first = sealed({**events[0], "previous_event_hash": HASH})
    add_chain(
        "genesis-previous",
        "A first event that is linked to something.",
        lines_of([first]),
        bad(events, 0, "invalid_genesis"),
    )
    add_rewritten(
        "sequence-skipped",
        "A sequence skipped, with all hashes and links fitting.",
        3,
        "sequence_gap",
        lambda event: event.update(sequence=4),
    )
    add_rewritten(
        "time-runs-back",
        "An event dated before the one it follows, with all hashes and links fitting.",
        2,
        "timestamp_regression",
        lambda event: event.update(timestamp="2026-01-02T03:04:04.999999Z"),
    )
    add_rewritten(
        "other-session-inside",
        "An event of another session, with all hashes and links fitting.",
        2,
        "session_mismatch",
        lambda event: event.update(session_id=OTHER_SESSION),
    )
    add_chain(
        "other-session",
        "A good chain, but of another session than the one asked for.",
        lines_of(events),
        bad(events, 0, "session_mismatch"),
        session_id=OTHER_SESSION,
    )
    add_rewritten(
        "required-field-missing",
        "A payload without a field its type requires, with all hashes and links fitting.",
        1,
        "malformed_event",
        lambda event: event["payload"].pop("parameters_hash"),
    )
    add_changed(
        "required-field-removed",
        "A required field taken away: the hash tells before the form does.",
        1,
        "hash_mismatch",
        lambda event: event["payload"].pop("parameters_hash"),
    )


def cuts() -> None:
    events, lines = chain(), lines_of(chain())
    add_chain(
        "cut-inside-an-event",
        "A file that ends in the middle of an event.",
        lines[:4],
        bad(events, 4, "truncated"),
        tail=lines[4][:100],
    )
    add_chain(
        "cut-before-line-feed",
        "A last line without its line feed is unfinished.",
        lines[:5],
        bad(events, 5, "truncated"),
        tail=lines[5],
    )
    head = {"sequence": 5, "event_hash": events[5]["event_hash"]}
    add_chain(
        "head-not-reached",
        "The chain ends before a link known from elsewhere.",
        lines[:4],
        bad(events, 4, "truncated"),
        expect_head=head,
    )
    rewritten = chain()
    rewritten[1]["payload"]["action_id"] = "ticket.list"
    rewritten = relinked(rewritten)
    add_chain(
        "rewritten-unnoticed",
        "A chain rewritten throughout is valid: only a link known from elsewhere shows it.",
        lines_of(rewritten),
        good(rewritten),
    )
    add_chain(
        "rewritten-noticed",
        "The same with a link known from elsewhere.",
        lines_of(rewritten),
        bad(rewritten, 5, "chain_broken"),
        expect_head=head,
    )


def malformed() -> None:
    forms: list[tuple[str, str, dict[str, Any]]] = [
        ("id-upper-case", "Identifiers are lower-case.", {"event_id": "01980000-0000-7000-8000-0000000C0001"}),
        ("id-version", "Identifiers are UUID version 7.", {"event_id": "01980000-0000-4000-8000-0000000c0001"}),
        ("id-variant", "Identifiers are of the RFC 9562 variant.", {"span_id": "01980000-0000-7000-c000-0000000c0001"}),
        (
            "timestamp-short",
            "Timestamps have exactly six fractional digits.",
            {"timestamp": "2026-01-02T03:04:05.001Z"},
        ),
        ("timestamp-offset", "Timestamps end in Z.", {"timestamp": "2026-01-02T03:04:05.000001+00:00"}),
        ("timestamp-month", "There is no month 13.", {"timestamp": "2026-13-02T03:04:05.000001Z"}),
        ("sequence-text", "The sequence is a number.", {"sequence": "1"}),
        ("sequence-negative", "The sequence is not negative.", {"sequence": -1}),
        ("sequence-fraction", "The sequence is whole.", {"sequence": 1.5}),
        ("sequence-true", "True is no number.", {"sequence": True}),
        (
            "type-unknown",
            "A type neither of the protocol nor beginning x. is refused.",
            {"event_type": "action.undone"},
        ),
        ("type-number", "The type is a string.", {"event_type": 1}),
        ("parent-empty", "No parent is null, not an empty string.", {"parent_span_id": ""}),
        ("version", "The trace version is 1.0.", {"trace_version": "1.1"}),
        ("payload-array", "The payload is an object.", {"payload": []}),
        ("hash-upper-case", "Hashes are lower-case.", {"event_hash": HASH.upper()}),
        ("field-unknown", "A field the event doesn't have.", {"note": "hello"}),
    ]
    for name, description, change in forms:
        add_changed(
            f"malformed-{name}", description, 1, "malformed_event", lambda event, change=change: event.update(change)
        )
    add_changed(
        "malformed-field-missing", "A field is missing.", 1, "malformed_event", lambda event: event.pop("span_id")
    )
    texts = [
        ("not-json", "A line that is not JSON.", "{"),
        ("blank", "A blank line.", ""),
        ("not-an-object", "A line that is not an object.", "[]"),
        (
            "duplicate-key",
            "A key given twice.",
            lines_of(chain())[1].replace('"sequence":1', '"sequence":1,"sequence":1'),
        ),
        (
            "long-integer",
            "An integer beyond 2^53-1 that no double holds.",
            lines_of(chain())[1].replace('"id":17', '"id":9007199254740993'),
        ),
        ("lone-surrogate", "A lone surrogate.", lines_of(chain())[1].replace('"id":17', '"id":"\\ud800"')),
        ("not-a-number", "NaN is not JSON.", lines_of(chain())[1].replace('"id":17', '"id":NaN')),
    ]
    for name, description, text in texts:
        lines = lines_of(chain())
        lines[1] = text
        add_chain(f"malformed-{name}", description, lines, bad(chain(), 1, "malformed_event"))


def canonical() -> None:
    accepted = [
        (
            "key-order",
            "Keys are ordered by UTF-16 code units.",
            '{"\\ue000":1,"\\ud800\\udc00":2,"é":3,"b":4,"a":5,"":6}',
        ),
        (
            "numbers",
            "Numbers are written as ECMAScript does.",
            "[1.0,-0.0,1e16,1e21,1e-6,1e-7,0.1,5e-324,1.7976931348623157e308,123456789.5,333333333.33333329]",
        ),
        (
            "strings",
            "Only what must be escaped is.",
            '["\\u0041\\/\\u007f\\u2028","\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f"]',
        ),
        (
            "nesting",
            "White space goes, at every level.",
            ' { "b" : [ ] , "a" : { "d" : null , "c" : [ true , false ] } } ',
        ),
        ("largest-integers", "Integers up to 2^53-1 stay integers.", "[9007199254740991,-9007199254740991]"),
        ("scalar", "Any JSON value has a form.", '"x"'),
        ("depth-128", "128 nested containers are allowed.", "[" * 128 + "]" * 128),
    ]
    for name, description, text in accepted:
        data = rfc8785.dumps(json.loads(text))
        expect = {"canonical": data.decode(), "sha256": hashlib.sha256(data).hexdigest()}
        add(f"canonical-{name}", description, "canonical", {"json": text}, expect)
    refused = [
        ("nan", "NaN.", '{"a":NaN}'),
        ("infinity", "Infinity.", "[-Infinity]"),
        ("number-overflow", "A number beyond the range of doubles.", "[1e400]"),
        ("long-integer", "An integer beyond 2^53-1.", "[9007199254740992]"),
        ("lone-surrogate", "A lone surrogate.", '["\\udc00"]'),
        ("lone-surrogate-key", "A lone surrogate in a key.", '{"\\ud800":1}'),
        ("duplicate-key", "A key given twice, however it is written.", '{"a":1,"\\u0061":2}'),
        ("depth-129", "129 nested containers.", "[" * 129 + "]" * 129),
        ("not-json", "Not JSON.", "{'a':1}"),
    ]
    for name, description, text in refused:
        add(f"canonical-refused-{name}", description, "canonical", {"json": text}, {"error": "not_canonical"})


def files() -> dict[str, bytes]:
    """File name to content, in order."""
    VECTORS.clear()
    for part in (good_chains, tampering, cuts, malformed, canonical):
        part()
    return numbered(VECTORS)


def numbered(vectors: list[tuple[str, dict[str, Any]]]) -> dict[str, bytes]:
    """File name to content, in order."""
    return {
        f"{number:04d}-{name}.json": (json.dumps(vector, indent=2, ensure_ascii=True) + "\n").encode()
        for number, (name, vector) in enumerate(vectors, 1)
    }


def write(made: dict[str, bytes], folder: Path) -> None:
    """Make a folder hold exactly these vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write(files(), *map(Path, sys.argv[1:2] or [FOLDER]))
