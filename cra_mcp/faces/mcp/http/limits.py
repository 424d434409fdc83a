"""How much one caller, and all of them, can take up.

Rule: what is refused costs next to nothing, says when to come back, and is nobody else's loss. Sessions are counted where they are
kept (``sessions``), waiting for a client where its connection is (``protocol``).
"""

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from http import HTTPStatus
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cra_mcp.auth.principal import Binding
from cra_mcp.faces.mcp.connection import PRINCIPAL_SCOPE
from cra_mcp.faces.mcp.http.answers import Refusal, RefusedError
from cra_mcp.faces.mcp.http.options import Limits
from cra_mcp.json_bounds import INLINE_BYTES, MAX_DEPTH, MAX_SENT_VALUES, JsonBoundsError, check_json

_MAX_CALLERS: Final = 10_000
_CHECKS_AT_ONCE: Final = 2  # it is work for a processor, of which others need some
_checks: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_body_checks")
_BODIES_AT_ONCE: Final = 32
_DISCARDED: Final = 4
_CLOSE: Final = {"connection": "close"}
_TOO_FAST: Final = Refusal(429, "rate_limited", "you send requests too fast", "wait as long as Retry-After says")
_TOO_MANY_FAILURES: Final = Refusal(
    429,
    "too_many_failures",
    "too many credentials from your address were refused",
    "wait as long as Retry-After says, then bring a credential that is accepted",
)
_TOO_LARGE: Final = Refusal(413, "body_too_large", "the message is too large", "send less in one call")
_TOO_COMPLEX: Final = Refusal(
    413,
    "body_too_complex",
    f"a message has at most {MAX_SENT_VALUES} values, nested {MAX_DEPTH} levels deep",
    "send less in one call",
)
_TOO_SLOW: Final = Refusal(408, "body_too_slow", "the message did not arrive in time", "send it again")
_TOO_MANY_BODIES: Final = Refusal(503, "busy", "the server is taking too much in already", "try again soon")
_TOO_MANY_STREAMS: Final = Refusal(429, "too_many_streams", "you have too many streams open", "close one")
_STREAMS_FULL: Final = Refusal(503, "too_many_streams", "the server has too many streams open", "try again later")


class Buckets:
    """How much is left to each of many, the ten thousand last seen: ``burst`` at once, then ``per_second``."""

    def __init__(self, per_second: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable) -> float:
        """Seconds until one is left; 0 if one is."""
        left = self._left(key, self._clock())
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def take(self, key: Hashable) -> None:
        """Take one, on credit where none is left, which makes the wait longer."""
        now = self._clock()
        self._buckets[key] = (max(self._left(key, now) - 1, -self._burst), now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)

    def _left(self, key: Hashable, now: float) -> float:
        left, at = self._buckets.get(key, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)


class Rate:
    """Bounds the requests of a principal, over all apps: ``burst`` at once, then ``requests_per_second``."""

    def __init__(self, limits: Limits) -> None:
        self._buckets = Buckets(limits.requests_per_second, limits.burst)

    def over(self, app: ASGIApp) -> ASGIApp:
        """``app`` with this bound; it raises ``RefusedError`` where a request comes too soon."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            owner = scope[PRINCIPAL_SCOPE].binding
            wait_s = self._buckets.wait_s(owner)
            if wait_s > 0:
                raise RefusedError(_TOO_FAST, {"retry-after": str(math.ceil(wait_s))})
            self._buckets.take(owner)
            await app(scope, receive, send)

        return bounded


class Failures:
    """Bounds the guesses of an address, over all apps: whose credentials are refused too often is not looked at for a while.

    What is accepted costs nothing, so that many may share an address; while one of them guesses, all of them wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._buckets = Buckets(limits.failures_per_second, limits.failure_burst)

    def over(self, app: ASGIApp) -> ASGIApp:
        """``app``, which authenticates, with this bound before it; it raises ``RefusedError``."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            address = _address(scope)
            wait_s = self._buckets.wait_s(address)
            if wait_s > 0:
                raise RefusedError(_TOO_MANY_FAILURES, {"retry-after": str(math.ceil(wait_s))})

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] == HTTPStatus.UNAUTHORIZED:
                    self._buckets.take(address)
                await send(message)

            await app(scope, receive, watched)

        return bounded


def _address(scope: Scope) -> str:
    """Where a request comes from; of IPv6 addresses the network, since who has one address there has all of them."""
    host = scope["client"][0] if scope.get("client") else ""
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))


class LimitStreams:
    """Bounds the answers that stay open by design: GET streams, SSE connections, subscriptions."""

    def __init__(self, app: ASGIApp, limits: Limits, open_streams: Counter[Binding]) -> None:
        self._app = app
        self._max = limits.max_streams
        self._max_of_one = limits.max_streams_per_principal
        self._open = open_streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RefusedError: there are too many streams.
        """
        if not is_stream(scope):
            await self._app(scope, receive, send)
            return
        owner = scope[PRINCIPAL_SCOPE].binding
        if self._open[owner] >= self._max_of_one:
            raise RefusedError(_TOO_MANY_STREAMS, {"retry-after": "30"})
        if self._open.total() >= self._max:
            raise RefusedError(_STREAMS_FULL, {"retry-after": "30"})
        self._open[owner] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


def is_stream(scope: Scope) -> bool:
    """Whether the answer to a request stays open by design."""
    return scope["method"] == "GET" or (b"mcp-method", b"subscriptions/listen") in scope["headers"]


class LimitBody:
    """Hands requests on once their body is there, if it is small enough and comes soon enough."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._max = limits.max_body_bytes
        self._within_s = limits.receive_s
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RefusedError: the body is too large or too slow, or too many are coming in.
        """
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            with anyio.fail_after(self._within_s):
                first = await self._read(_declared(scope), receive)
        except TimeoutError:
            raise RefusedError(_TOO_SLOW, _CLOSE) from None
        await _check(first.get("body", b""))

        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return first

        await self._app(scope, replay, send)

    async def _read(self, declared: int, receive: Receive) -> Message:
        if declared > self._max * _DISCARDED:
            raise RefusedError(_TOO_LARGE, _CLOSE)
        body = bytearray()
        read = held = 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return message
                chunk = message.get("body", b"")
                read += len(chunk)
                if read > self._max * _DISCARDED:
                    break
                # What is too large is read on for a while and thrown away: a client that is still sending reads no answer.
                if read <= self._max:
                    held += len(chunk)
                    self._held += len(chunk)
                    body += chunk
                if self._held > self._max * _BODIES_AT_ONCE:
                    raise RefusedError(_TOO_MANY_BODIES, {**_CLOSE, "retry-after": "1"})
                if not message.get("more_body", False):
                    break
        finally:
            self._held -= held
        if read > self._max:
            raise RefusedError(_TOO_LARGE, _CLOSE)
        return {"type": "http.request", "body": bytes(body), "more_body": False}


async def _check(body: bytes) -> None:
    """Refuse a body that holds more than is read, before anything reads it."""
    try:
        if len(body) <= INLINE_BYTES:
            check_json(body, max_values=MAX_SENT_VALUES)
        else:
            await anyio.to_thread.run_sync(partial(check_json, body, max_values=MAX_SENT_VALUES), limiter=_limiter())
    except JsonBoundsError:
        raise RefusedError(_TOO_COMPLEX) from None


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _checks.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_CHECKS_AT_ONCE)
        _checks.set(limiter)
        return limiter


def _declared(scope: Scope) -> int:
    """The size a request says it has; 0 if it says none."""
    text = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(text) if text.isdigit() and len(text) < 20 else 0  # noqa: PLR2004 - more digits than 64 bits have
