"""The HTTP client of Streamable HTTP upstreams: answers are bounded, and failures say whether a call was made.

Rule: redirects leave no origin (the SDK sees to that), responses are not compressed (a small one could unpack without
end), cookies are kept for nobody (they would tie the calls of different callers together), and what fails becomes a
JSON-RPC error with a code of ours instead of an exception that would end the whole connection.

Imports ``httpx2``: only ``mcp_client`` uses this, which is loaded when the first upstream is needed.
"""

from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast

import httpx2
import orjson

from cra_mcp.execution import foreign_json, mcp_results
from cra_mcp.execution.mcp_events import BROKE_OFF, TOO_LARGE, Events
from cra_mcp.execution.values import NotJsonError
from cra_mcp.json_bounds import JsonBoundsError

__all__ = ["BROKE_OFF", "LOST", "NOT_SENT", "REFUSED", "TOO_LARGE", "BoundedClient"]

NOT_SENT = -31_001
"""JSON-RPC error code: the request reached no server, or one that does not know our session. Nothing was done."""

LOST = -31_002
"""JSON-RPC error code: the connection broke after the request was sent."""

REFUSED = -31_003
"""JSON-RPC error code: the server answered with an HTTP error that is no JSON-RPC message."""

_READ_TIMEOUT_S = 330.0  # above the longest timeout of an action, which ends a call much earlier
_ASIDE_TIMEOUT_S = 5.0
_SESSION = "mcp-session-id"
_NOT_FOUND = 404
_BAD_REQUEST = 400
_UNAVAILABLE = 503
_NO_METHOD = 405
_PARSE_ERROR = -32_700
_MAX_ASIDE_BYTES = 65_536
_MAX_RECONNECTS = 60
_KEPT_HEADERS = ("content-type", _SESSION)


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
        if request.method == "GET" and _asks_too_often():
            return _error(request, LOST, "the server ends its stream again and again")
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
    content_type = response.headers.get("content-type", "").lower()
    if content_type.startswith("text/event-stream"):
        response.stream = Events(response)
        return response
    if content_type.startswith("application/json"):
        return await _read(request, response)
    await (
        response.aclose()
    )  # nothing else is a message: an empty acceptance, a redirect, or what the SDK refuses by its type
    return httpx2.Response(response.status_code, headers=response.headers, request=request)


async def _read(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """A response whose body is one message, read within bounds."""
    try:
        body = await _body(response, _MAX_ASIDE_BYTES if _is_aside(request) else foreign_json.MAX_BYTES)
        found = await foreign_json.read(body)
    except JsonBoundsError:
        return _error(request, REFUSED, TOO_LARGE)
    except NotJsonError:
        return _error(request, _PARSE_ERROR, "Failed to parse the answer")
    except httpx2.TransportError as error:
        return _error(request, LOST, f"the connection broke ({type(error).__name__})")
    finally:
        await response.aclose()
    small = mcp_results.without_result(found, mcp_results.current.get())
    content = foreign_json.strict(found, body) if small is found else orjson.dumps(small)
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return httpx2.Response(response.status_code, headers=headers, content=content, request=request)


async def _body(response: httpx2.Response, max_bytes: int) -> bytes:
    kept = bytearray()
    async for part in cast("httpx2.AsyncByteStream", response.stream):
        kept += part
        if len(kept) > max_bytes:
            raise JsonBoundsError(f"more than {max_bytes} bytes")
    return bytes(kept)


def _asks_too_often() -> bool:
    """Whether the rest of one call's stream has been asked for often enough; counts."""
    slot = mcp_results.current.get()
    if slot is None:
        return False
    slot.reconnects += 1
    return slot.reconnects > _MAX_RECONNECTS


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
