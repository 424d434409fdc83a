"""The HTTP client of Streamable HTTP upstreams: answers are bounded, and failures say whether a call was made.

Rule: redirects leave no origin (the SDK sees to that), responses are not compressed (a small one could unpack without
end), cookies are kept for nobody (they would tie the calls of different callers together), and what fails becomes a
JSON-RPC error with a code of ours instead of an exception that would end the whole connection.

Imports ``httpx2``: only ``mcp_client`` uses this, which is loaded when the first upstream is needed.
"""

from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast

import httpx2
import orjson

MAX_RESPONSE_BYTES = 67_108_864
"""What one response may hold in all; a stream of events too."""

NOT_SENT = -31_001
"""JSON-RPC error code: the request reached no server, or one that does not know our session. Nothing was done."""

LOST = -31_002
"""JSON-RPC error code: the connection broke after the request was sent."""

REFUSED = -31_003
"""JSON-RPC error code: the server answered with an HTTP error that is no JSON-RPC message."""

TOO_LARGE = "cra: response too large"
BROKE_OFF = "cra: connection broke"
"""Parts of the messages of the errors that the SDK makes of a response over the limit, and of one that breaks off."""

_READ_TIMEOUT_S = 330.0  # above the longest timeout of an action, which ends a call much earlier
_ASIDE_TIMEOUT_S = 5.0
_SESSION = "mcp-session-id"
_NOT_FOUND = 404
_BAD_REQUEST = 400
_UNAVAILABLE = 503
_NO_METHOD = 405


class BoundedClient(httpx2.AsyncClient):
    """An HTTP client for one upstream.

    Args:
        headers: sent with every request to the upstream, and never elsewhere.
        connect_timeout_s: for reaching the server.
    """

    def __init__(self, headers: Mapping[str, str], connect_timeout_s: float) -> None:
        super().__init__(
            headers={"accept-encoding": "identity", **headers},
            timeout=httpx2.Timeout(connect_timeout_s, read=_READ_TIMEOUT_S),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    async def send(self, request: httpx2.Request, **options: object) -> httpx2.Response:
        """Send a request; answers errors as JSON-RPC errors."""
        if request.method == "GET" and "last-event-id" not in request.headers:
            # The stream of messages nobody asked for: nothing here listens to them.
            return httpx2.Response(_NO_METHOD, request=request)
        if _is_aside(request):
            # A notification or the end of a session: a server that hangs must not hold up calls behind it.
            request.extensions = {**request.extensions, "timeout": httpx2.Timeout(_ASIDE_TIMEOUT_S).as_dict()}
        try:
            response = await super().send(request, **options)  # pyright: ignore[reportArgumentType] - passed on as given
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            return _error(request, NOT_SENT, "the server can't be reached")
        except httpx2.TransportError as error:
            return _error(request, LOST, f"the connection broke ({type(error).__name__})")
        return await _checked(request, response)


async def _checked(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    if response.status_code >= _BAD_REQUEST:
        if _forgot_session(request, response):
            await response.aclose()
            return _error(request, NOT_SENT, "the server does not know this session any more")
        if not response.headers.get("content-type", "").lower().startswith("application/json"):
            await response.aclose()
            return _error(request, REFUSED, f"the server answered HTTP {response.status_code}", response.status_code)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        await response.aclose()
        return _error(request, REFUSED, "the server compressed its answer although it was asked not to")
    response.stream = _Bounded(response)
    return response


class _Bounded(httpx2.AsyncByteStream):
    """A response body that ends with an error where it is too large."""

    def __init__(self, response: httpx2.Response) -> None:
        self._stream = cast("httpx2.AsyncByteStream", response.stream)
        events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        # The one the SDK makes an error of this request of; any other would end the connection with all its calls.
        self._error = httpx2.SSEError if events else httpx2.StreamError

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for part in self._stream:
                size += len(part)
                if size > MAX_RESPONSE_BYTES:
                    raise self._error(TOO_LARGE)
                yield part
        except httpx2.TransportError as error:
            raise error if isinstance(error, httpx2.SSEError) else self._error(BROKE_OFF) from error

    async def aclose(self) -> None:
        """Close the body."""
        await self._stream.aclose()


def _is_aside(request: httpx2.Request) -> bool:
    return request.method == "DELETE" or (request.method == "POST" and b'"id":' not in request.content)


def _forgot_session(request: httpx2.Request, response: httpx2.Response) -> bool:
    """Whether a call was turned away because its session is unknown (by 404, and by some servers 400)."""
    return _SESSION in request.headers and response.status_code in {_NOT_FOUND, _BAD_REQUEST}


def _error(request: httpx2.Request, code: int, message: str, status: int = _UNAVAILABLE) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(
        status, headers={"content-type": "application/json"}, content=orjson.dumps(body), request=request
    )
