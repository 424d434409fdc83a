"""JSON that other programs send: read within bounds, exactly, and off the event loop where it is long.

Rule: what a text may hold is settled before it is read (``json_bounds``): reading can't be interrupted, and a text of
some megabytes can hold what takes minutes. Integers keep every digit; half a surrogate pair, which has no UTF-8, becomes
U+FFFD. Source: specs/carp.md, "Results".
"""

import json
import math
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import orjson

from cra_mcp.execution.values import NotJsonError, whole
from cra_mcp.json_bounds import INLINE_BYTES, check_json

T = TypeVar("T")

MAX_BYTES = 16_777_216
"""One message or document, in bytes."""

_AT_ONCE = 2  # reading is work for a processor, of which others need some
_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_foreign_json")
_DIGITS = bytes.maketrans(b"0123456789", b"0" * 10)
_LONG = b"0" * 19  # digits from which on an integer may not fit 64 bits, so that the fast reader rounds it


def parse(data: bytes) -> object:
    """Read a JSON text.

    Raises:
        JsonBoundsError: it holds too much.
        NotJsonError: it is not JSON, or holds NaN or an infinity.
    """
    check_json(data)
    try:
        return _exactly(data) if _LONG in data.translate(_DIGITS) else orjson.loads(data)
    except ValueError:
        pass  # what the strict reader refuses may be half a surrogate pair
    try:
        return whole(json.loads(data.decode(errors="surrogatepass"), parse_constant=_refused, parse_float=_finite))
    except (ValueError, RecursionError) as error:
        raise NotJsonError("it is not JSON") from error


def strict(found: object, data: bytes) -> bytes:
    """A JSON text of ``found``, which was read from ``data``, that every reader takes."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return json.dumps(found).encode()
    return json.dumps(found).encode() if b"\\u" in data else data


async def read(data: bytes) -> object:
    """``parse``, off the event loop where the text is long."""
    return parse(data) if len(data) <= INLINE_BYTES else await apart(lambda: parse(data))


async def apart(work: Callable[[], T]) -> T:
    """Run work on long texts in a thread."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(work, limiter=limiter)


def _exactly(data: bytes) -> object:
    """What ``orjson`` reads, but for integers, which keep every digit."""
    value: object = json.loads(data.decode(), parse_constant=_refused, parse_float=_finite)
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _refused(text: str) -> object:
    raise ValueError(text)
