"""Results that are more than a JSON value: texts, images, sounds and documents, as a Python function returns them.

Source: MCP specification, "Tool result"; specs/atlas.md, "Results".
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

Block = Mapping[str, object]
_FORMS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
}
KINDS = frozenset((*_FORMS, "resource"))
"""Types of blocks whose forms are known here."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a function returns to show several things: ``Content().text("Q3").image(png, "image/png")``.

    Attributes:
        blocks: MCP content blocks in wire form.
        value: a JSON value for programs, beside them.
    """

    blocks: tuple[Block, ...] = ()
    value: object = None

    def text(self, text: str) -> "Content":
        """And a text."""
        return self._and({"type": "text", "text": text})

    def image(self, data: bytes, mime_type: str) -> "Content":
        """And an image."""
        return self._and({"type": "image", "data": _base64(data), "mimeType": mime_type})

    def audio(self, data: bytes, mime_type: str) -> "Content":
        """And a sound."""
        return self._and({"type": "audio", "data": _base64(data), "mimeType": mime_type})

    def document(self, uri: str, content: str | bytes, mime_type: str) -> "Content":
        """And a document that has a URI of its own."""
        body = {"text": content} if isinstance(content, str) else {"blob": _base64(content)}
        return self._and({"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, **body}})

    def structured(self, value: object) -> "Content":
        """With a JSON value for programs; the action's ``returns_schema`` is about it."""
        return replace(self, value=value)

    def _and(self, block: Block) -> "Content":
        return replace(self, blocks=(*self.blocks, block))


def is_block(block: Block) -> bool:
    """Whether ``block`` is one that ``Content`` makes: a function can also make a ``Content`` of blocks it has from elsewhere."""
    if block.get("type") == "resource":
        resource = block.get("resource")
        if not isinstance(resource, Mapping):
            return False
        body = cast("Block", resource)
        return _has_texts(body, ("uri", "text")) or _has_texts(body, ("uri", "blob"))
    return _has_texts(block, _FORMS.get(str(block.get("type")), ("",)))


def _has_texts(block: Block, keys: tuple[str, ...]) -> bool:
    return all(isinstance(block.get(key), str) for key in keys)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
