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


def measure(result: Result, max_bytes: int) -> Measured:
    """Hash a result and cut it to ``max_bytes`` with a marker that says so."""
    form = _form(result)
    try:
        data = canonical_bytes(form)
    except CanonicalError:
        # Integers beyond 2^53-1 and the like have no canonical form; the lossy one still pins what was returned.
        data = canonical_bytes(lossy(form))
    size = len(data)
    if size <= max_bytes:
        return Measured(result, sha256_hex(data), size, cut=False)
    return Measured(_cut(result, size, max_bytes), sha256_hex(data), size, cut=True)


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


def _cut(result: Result, size: int, max_bytes: int) -> Result:
    marker = {
        "type": "text",
        "text": f"[cra: result cut: {size} bytes, the limit is {max_bytes}; ask for less at a time]",
    }
    if result.content is None:
        text = result.value if isinstance(result.value, str) else orjson.dumps(lossy(result.value)).decode()
        kept = [{"type": "text", "text": _head(text, max_bytes)}]
    else:
        kept = _blocks_within(result.content, max_bytes)
    return Result(value=None, content=(*kept, marker), is_error=result.is_error)


def _blocks_within(content: tuple[Mapping[str, object], ...], max_bytes: int) -> list[dict[str, object]]:
    """Whole blocks while they fit; the first text block that does not is cut and ends the list; others are left out."""
    kept: list[dict[str, object]] = []
    room = max_bytes
    for block in content:
        size = len(orjson.dumps(lossy(block)))
        if size <= room:
            kept.append(dict(block))
            room -= size
        elif block.get("type") == "text" and isinstance(block.get("text"), str):
            kept.append({"type": "text", "text": _head(cast("str", block["text"]), room)})
            break
    return kept


def _head(text: str, max_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")
