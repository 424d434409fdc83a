"""Results as they are handed on: measured, hashed, and cut where they are too large.

Source: specs/carp.md, "Results".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import orjson

from cra_mcp.canonical import canonical_bytes, lossy, sha256_hex
from cra_mcp.errors import CanonicalError
from cra_mcp.execution.backend import Result
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.redact import Redactor

MAX_BLOCKS = 1_000
"""Blocks of one result that are handed on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A result ready to be handed on.

    Attributes:
        hash: lower-case hex SHA-256 of the canonical form of the whole result, before any cut.
        size: bytes of that form.
        cut: whether ``result`` is less than the whole.
    """

    result: Result
    hash: str
    size: int
    cut: bool


def measure(result: Result, max_bytes: int, max_binary_bytes: int) -> Measured:
    """Hash a result and cut it with a marker that says so: what is binary to ``max_binary_bytes``, the rest to ``max_bytes``."""
    form = _form(result)
    try:
        data = canonical_bytes(form)
    except CanonicalError:
        # Integers beyond 2^53-1 and the like have no canonical form; the lossy one still pins what was returned.
        data = canonical_bytes(lossy(form))
    size = len(data)
    binary = [_binary(block) for block in result.content or ()]
    fits = size - sum(binary) <= max_bytes and _decoded(sum(binary)) <= max_binary_bytes and len(binary) <= MAX_BLOCKS
    if fits:
        return Measured(result, sha256_hex(data), size, cut=False)
    return Measured(_cut(result, size, max_bytes, max_binary_bytes), sha256_hex(data), size, cut=True)


def _form(result: Result) -> object:
    if result.content is None:
        return result.value
    form = {"content": list(result.content), "structured": result.value}
    return form if result.meta is None else {**form, "_meta": result.meta}


def recorded_result(measured: Measured, redactor: Redactor | None, config: RuntimeConfig) -> dict[str, object]:
    """What the event of an outcome keeps of a result besides hash and size: by default nothing.

    ``redactor`` hides what the action's schema marks; the detectors see the event on its way into the store. ``recording`` in
    what is returned tells how ``result`` was kept: ``redacted`` or ``full``.
    """
    mode = config.result_recording
    if mode in {"none", "hash"} or measured.size > config.max_recorded_bytes or measured.cut:
        return {}
    result = measured.result
    value = lossy(result.value)
    hidden = redactor if mode == "redacted" else None
    if hidden is not None:
        value = hidden.apply(value)
    if result.content is None:
        return {"result": value, "recording": mode}
    # Content says the same in words, where a schema can't reach: of an action that marks something it is left out.
    content = lossy(list(result.content)) if hidden is None else None
    return {"result": {"content": content, "structured": value}, "recording": mode}


def _cut(result: Result, size: int, max_bytes: int, max_binary_bytes: int) -> Result:
    if result.content is None:
        text = result.value if isinstance(result.value, str) else orjson.dumps(lossy(result.value)).decode()
        kept = [_text(_head(text, max_bytes))]
    else:
        kept = _blocks_within(result.content, max_bytes, max_binary_bytes)
    limits = f"{max_bytes}, for images and the like {max_binary_bytes} and for blocks {MAX_BLOCKS}"
    marker = _text(f"[cra: result cut: {size} bytes, the limit is {limits}; ask for less at a time]")
    return Result(value=None, content=(*kept, marker), is_error=result.is_error)


def _blocks_within(
    content: tuple[Mapping[str, object], ...], max_bytes: int, max_binary_bytes: int
) -> list[Mapping[str, object]]:
    """Whole blocks while they fit; a text that does not is cut and ends the list, for what is binary a text says so."""
    kept: list[Mapping[str, object]] = []
    room, binary_room = max_bytes, max_binary_bytes
    for block in content[:MAX_BLOCKS]:
        binary = _binary(block)
        if _decoded(binary) > binary_room:
            kind = lossy(block["type"])
            kept.append(
                _text(f"[cra: {kind} cut: {_decoded(binary)} bytes, {binary_room} of {max_binary_bytes} were left]")
            )
            continue
        size = len(orjson.dumps(lossy(block))) - binary
        if size <= room:
            kept.append(dict(block))
            room, binary_room = room - size, binary_room - _decoded(binary)
        elif block.get("type") == "text" and isinstance(block.get("text"), str):
            kept.append(_text(_head(cast("str", block["text"]), room)))
            break
    return kept


def _binary(block: Mapping[str, object]) -> int:
    """Characters of base64 in a block."""
    inner = block.get("resource")
    data = cast("Mapping[str, object]", inner).get("blob") if isinstance(inner, Mapping) else block.get("data")
    return len(data) if isinstance(data, str) else 0


def _decoded(characters: int) -> int:
    return characters * 3 // 4


def _text(text: str) -> Mapping[str, object]:
    return {"type": "text", "text": text}


def _head(text: str, max_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")
