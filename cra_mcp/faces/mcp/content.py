"""Blocks of results on their way to a caller: without keys that are ours, and in forms that every caller reads.

Rule: total. A call that was carried out is answered, whatever its blocks look like. Source: specs/mcp.md, "Tools", "Publication".
"""

import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, cast

import mcp_types as t
import orjson

from cra_mcp.canonical import lossy
from cra_mcp.faces.mcp.connection import RequestContext
from cra_mcp.words import BLANK

_META: Final = "_meta"
_OURS: Final = re.compile(r"dev\.cra(?![a-z0-9-])")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Mn", "Zl", "Zp", "Zs"})


def without_ours(value: object) -> Any:
    """A copy in which no ``_meta`` has a key that is ours, or reads like one: what they say only this server may say."""
    if isinstance(value, list | tuple):
        return [without_ours(item) for item in cast("list[object]", value)]
    if not isinstance(value, Mapping):
        return value
    kept: dict[str, Any] = {}
    for key, item in cast("Mapping[str, object]", value).items():
        if key == _META and isinstance(item, Mapping):
            meta = {name: each for name, each in cast("Mapping[str, object]", item).items() if not is_ours(name)}
            kept[key] = without_ours(meta)
        else:
            kept[key] = without_ours(item)
    return kept


_as_they_came: ContextVar[dict[str, Any] | None] = ContextVar("cra_blocks", default=None)


def pass_on(structured: object, blocks: Sequence[Mapping[str, object]] | None) -> None:
    """Let the answer to the current request have these, whatever they are: see ``as_they_came``."""
    kept = {} if blocks is None else {"content": without_ours(blocks)}
    _as_they_came.set(kept if structured is None else {**kept, "structuredContent": structured})


async def as_they_came(ctx: RequestContext, call_next: Callable[[RequestContext], Awaitable[Any]]) -> Any:
    """The answer to a request with what was passed on: the SDK would refuse a block it does not know, and copy all values."""
    token = _as_they_came.set(None)
    try:
        answer = await call_next(ctx)
        kept = _as_they_came.get() or {}
    finally:
        _as_they_came.reset(token)
    return {**answer, **{name: value for name, value in kept.items() if name in answer}} if kept else answer


def is_ours(key: str) -> bool:
    """Whether a key of ``_meta`` begins with our prefix, also in another case, width or with characters nobody sees."""
    seen = (char for char in unicodedata.normalize("NFKC", key) if char not in BLANK)
    plain = "".join(char for char in seen if unicodedata.category(char) not in _UNSEEN)
    return _OURS.match(plain.casefold()) is not None


def readable(block: Mapping[str, object]) -> dict[str, Any]:
    """A block that prompts can carry: one of an unknown or broken form as a text of its JSON."""
    plain = without_ours(block)
    try:
        t.PromptMessage.model_validate({"role": "user", "content": plain})
    except ValueError:
        return {"type": "text", "text": as_text(plain)}
    return plain


def contents(uri: str, mime_type: str, block: Mapping[str, object]) -> t.TextResourceContents | t.BlobResourceContents:
    """A block as the content of a resource: a text as it is, an image or a sound as bytes, a document without its own URI.

    The type is the one the atlas names: what an action returns doesn't choose what its resource is taken for.
    """
    inner = block.get("resource")
    body = cast("Mapping[str, object]", inner) if isinstance(inner, Mapping) else block
    text, data = body.get("text"), body.get("blob", body.get("data"))
    if not isinstance(text, str) and isinstance(data, str):
        return t.BlobResourceContents(uri=uri, mime_type=mime_type, blob=data)
    said = text if isinstance(text, str) else as_text(without_ours(block))
    return t.TextResourceContents(uri=uri, mime_type=mime_type, text=said)


def as_text(value: object) -> str:
    """A value as a text to read."""
    return value if isinstance(value, str) else orjson.dumps(lossy(value), option=orjson.OPT_INDENT_2).decode()
