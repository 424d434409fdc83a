"""What an answer of an HTTP service becomes: a JSON value, a text, an image, or an error the agent can read.

Rule: secrets are hidden before anything is cut, so that no part of one is left. Pure.
Source: specs/atlas.md, "Executor: http"; RFC 9110, 8.3; RFC 6901; RFC 6839, 3.1 (``+json``).
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import cast

from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import Result
from cra_mcp.execution.foreign_json import parse
from cra_mcp.execution.http_secrets import Mask
from cra_mcp.execution.values import NotJsonError, json_value
from cra_mcp.json_bounds import MAX_DEPTH, MAX_VALUES, JsonBoundsError

MAX_EXCERPT_CHARACTERS = 2_000
_SUCCESS = range(200, 300)
_NO_CONTENT = frozenset({204, 205})
_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "iso-8859-1": "windows-1252",  # as every reader of the web does
    "latin1": "windows-1252",
    "windows-1252": "windows-1252",
    "utf-16": "utf-16",
}
_PLAIN = frozenset({"application/xml", "application/yaml", "application/x-yaml", "application/javascript"})
_NOT_SHOWN = frozenset({"set-cookie", "set-cookie2", "authorization", "proxy-authenticate", "www-authenticate"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came, unpacked.

    Attributes:
        headers: by lower-case name; of several of one name the last.
        cut: whether the body is only the beginning.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    cut: bool = False


def to_result(answer: Answer, *, method: str, pointer: str | None, mask: Mask) -> Result:
    """The result of an action.

    Args:
        answer: to a request of ``method``.
        method: of the request that was answered.
        pointer: JSON pointer to what is wanted of a JSON answer; None means all of it.
        mask: of the secrets that were sent.

    Raises:
        ExecutionError: ``invalid_result``: it is not the JSON it says it is, or lacks what the pointer names.
    """
    if answer.status not in _SUCCESS:
        return Result(value=_refusal(answer, mask), is_error=True)
    if method == "HEAD":
        shown = {name: value for name, value in answer.headers.items() if name not in _NOT_SHOWN}
        return Result(value=mask.value({"status": answer.status, "headers": shown}))
    if answer.status in _NO_CONTENT or (not answer.body and pointer is None):
        return Result(value=None)
    kind, charset = _content_type(answer)
    if _is_json(kind):
        return Result(value=_at(mask.value(_parsed(answer.body)), pointer))
    if pointer is not None:
        raise ExecutionError(
            "invalid_result",
            "the service did not answer with JSON, so there is no result to find in it",
            hint='correct "result" in the executor, or have the service answer with JSON ("headers": {"Accept": ...})',
        )
    if kind.startswith("text/") or kind in _PLAIN or not kind:
        return Result(value=mask.text(answer.body.decode(charset, "replace")))
    return Result(content=(_block(kind, mask.data(answer.body)),))


def _refusal(answer: Answer, mask: Mask) -> dict[str, object]:
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = ""
    body = answer.body[: -mask.longest] if answer.cut and mask.longest else answer.body
    kind, charset = _content_type(answer)
    text = mask.text(body.decode(charset, "replace")) if _is_readable(kind) else ""
    value: dict[str, object] = {"error": f"HTTP {answer.status} {phrase}".rstrip(), "status": answer.status}
    if text:
        cut = answer.cut or len(text) > MAX_EXCERPT_CHARACTERS
        value["body"] = text[:MAX_EXCERPT_CHARACTERS] + (" [cut]" if cut else "")
    return value


def _content_type(answer: Answer) -> tuple[str, str]:
    """``(type/subtype in lower case, encoding to read it by)``."""
    message = Message()
    message["content-type"] = answer.headers.get("content-type", "")
    kind = message.get_content_type() if answer.headers.get("content-type") else ""
    charset = message.get_content_charset() or "utf-8"
    return kind, _CHARSETS.get(charset, "utf-8")


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _is_readable(kind: str) -> bool:
    return _is_json(kind) or kind.startswith("text/") or kind in _PLAIN or not kind


def _parsed(body: bytes) -> object:
    try:
        return json_value(parse(body))
    except JsonBoundsError as error:
        raise ExecutionError(
            "output_too_large",
            f"the answer has more than {MAX_VALUES} values, or is nested deeper than {MAX_DEPTH}",
            hint="ask for less at a time",
        ) from error
    except NotJsonError as error:
        raise ExecutionError(
            "invalid_result",
            "the service said its answer is JSON, and it is not",
            hint="call it again, or tell those who run the service",
        ) from error


def _at(value: object, pointer: str | None) -> object:
    for token in (pointer or "").split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = cast("dict[str, object]", value)[key]
        elif (
            isinstance(value, list)
            and key.isdecimal()
            and key.isascii()
            and int(key) < len(cast("list[object]", value))
        ):
            value = cast("list[object]", value)[int(key)]
        else:
            raise ExecutionError(
                "invalid_result",
                f"the answer of the service has nothing at {pointer}",
                hint='correct "result" in the executor, or tell those who run the service',
            )
    return value


def _block(kind: str, data: bytes) -> Mapping[str, object]:
    """An MCP content block in wire form."""
    text = base64.b64encode(data).decode()
    family = kind.partition("/")[0]
    if family in ("image", "audio"):
        return {"type": family, "data": text, "mimeType": kind}
    return {"type": "resource", "resource": {"uri": "cra://http/body", "mimeType": kind, "blob": text}}
