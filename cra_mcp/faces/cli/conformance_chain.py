"""Runs conformance vectors of the kinds ``hash-chain`` and ``canonical``.

Rule: nothing is decided here; a vector's input goes through the functions that verify traces and hash values.
Source: specs/conformance/hash-chain/README.md.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from cra_mcp.canonical import MAX_DEPTH, canonical_bytes, parse_json, sha256_hex
from cra_mcp.errors import CanonicalError
from cra_mcp.trace.event import Head, verify


def run(vector: Mapping[str, object]) -> object:
    """What the implementation makes of ``vector["input"]``, to be compared with ``vector["expect"]``."""
    given = cast("Mapping[str, object]", vector["input"])
    return _canonical(given) if vector["kind"] == "canonical" else _chain(given)


def _chain(given: Mapping[str, object]) -> dict[str, object]:
    head = cast("Mapping[str, object] | None", given.get("expect_head"))
    found = verify(
        [line.encode() for line in cast("Sequence[str]", given["lines"])],
        session_id=cast("str | None", given.get("session_id")),
        expect_head=Head(cast("int", head["sequence"]), cast("str", head["event_hash"]), "") if head else None,
        tail=cast("str", given.get("tail", "")).encode(),
    )
    return {
        "ok": found.ok,
        "events": found.events,
        "head": found.head.event_hash if found.head is not None else None,
        "bad_index": found.bad_index,
        "code": found.code,
    }


def _canonical(given: Mapping[str, object]) -> dict[str, object]:
    text = cast("str", given["json"]).encode()
    try:
        data = canonical_bytes(parse_json(text, max_bytes=len(text), max_depth=MAX_DEPTH))
    except CanonicalError as error:
        return {"error": error.code}
    return {"canonical": data.decode(), "sha256": sha256_hex(data)}
