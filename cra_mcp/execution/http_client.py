"""Sends requests: redirects within bounds, retries where they are safe, answers unpacked up to a limit.

Rule: a secret is sent to the origin the atlas names and to no other. Time is the caller's: whatever waits here ends with
its deadline, and what it was waiting on is closed.
Source: specs/atlas.md, "Executor: http"; RFC 9110, 10.2.3 and 15.4; RFC 1952.

Imports ``httpcore2``: loaded when the first request is made.
"""

import re
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import anyio
import httpcore2

from cra_mcp.atlas.origin import Origin, OriginError, split_url
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.http_addresses import Hosts
from cra_mcp.execution.http_request import HttpRequest
from cra_mcp.execution.http_response import Answer
from cra_mcp.execution.http_secrets import Mask, Secret

MAX_EXCERPT_BYTES = 65_536
"""What is read of an answer that is an error."""

_CONNECT_S = 30.0
_GZIP = 16 + zlib.MAX_WBITS
_MAX_MEMBERS = 1_000
_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 60.0
_RETRIED = frozenset({429, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = range(200, 300)
_TARGET = re.compile(r"/[!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~|^\"-]*")
_LOCATION = re.compile(r"[\x21-\x5b\x5d-\x7e]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ACROSS_ORIGINS = frozenset({"accept", "user-agent", "content-type"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an action lets its requests do."""

    retries: int
    max_redirects: int
    allow_hosts: Hosts
    max_response_bytes: int


class _UnreachableError(Exception):
    """Nothing was sent. The message says why."""


async def send(
    pool: httpcore2.AsyncConnectionPool, request: HttpRequest, secrets: tuple[Secret, ...], mask: Mask, bounds: Bounds
) -> tuple[Answer, str]:
    """The answer to a request, and the method of the request that was answered (a redirect may change it).

    Raises:
        ExecutionError: ``upstream_unavailable``, ``upstream_lost``, ``address_refused``, ``redirect_refused``,
            ``output_too_large`` or ``invalid_result``.
    """
    for attempt in range(bounds.retries + 1):
        last = attempt == bounds.retries
        try:
            answer, method = await _follow(pool, request, secrets, mask, bounds)
        except _UnreachableError as error:
            delay = _fitting(_FIRST_DELAY_S * 2**attempt)
            if last or delay is None:
                raise ExecutionError(
                    "upstream_unavailable", f"{request.origin.host} can't be reached: {error}", hint="try again later"
                ) from error
        else:
            delay = _fitting(_wanted_delay(answer, attempt)) if answer.status in _RETRIED else None
            if last or delay is None:
                return answer, method
        await anyio.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


async def _follow(
    pool: httpcore2.AsyncConnectionPool, first: HttpRequest, secrets: tuple[Secret, ...], mask: Mask, bounds: Bounds
) -> tuple[Answer, str]:
    in_headers = tuple(secret for secret in secrets if secret.reference.place == "header")
    base, hop = first, first.with_secrets(secrets)
    followed = 0
    while True:
        answer = await _exchange(pool, hop, bounds.max_response_bytes)
        if answer.status not in _REDIRECTS:
            return answer, hop.method
        if followed == bounds.max_redirects:
            raise _refuse_redirect(f"it answered HTTP {answer.status}, and max_redirects is {bounds.max_redirects}")
        followed += 1
        base = _redirected(base, answer, first.origin, mask, bounds.allow_hosts)
        # Once another host has had a say, secrets stay out of it: it must not choose what is done with them.
        in_headers = in_headers if base.origin == first.origin else ()
        hop = base.with_secrets(in_headers)


def _redirected(hop: HttpRequest, answer: Answer, first: Origin, mask: Mask, allowed: Hosts) -> HttpRequest:
    """The request a redirect asks for, without secrets."""
    origin, target = _destination(hop, answer.headers.get("location", ""))
    if hop.origin.scheme == "https" and origin.scheme != "https":
        raise _refuse_redirect("it leads from https to http")
    if not _is_kept(first, origin) and not allowed.has(origin.host, origin.port):
        raise _refuse_redirect("it leads to a host that allow_hosts does not name")
    if origin != first and mask.finds_in(target):
        raise _refuse_redirect("it would carry a secret to another host")
    method, body = hop.method, hop.body
    if (answer.status == 303 and method != "HEAD") or (answer.status in (301, 302) and method == "POST"):  # noqa: PLR2004
        method, body = "GET", None
    headers = {
        name: value
        for name, value in hop.headers.items()
        if (origin == hop.origin or name.lower() in _ACROSS_ORIGINS)
        and (body is not None or name.lower() != "content-type")
    }
    return HttpRequest(method, origin, target, headers, body)


def _destination(hop: HttpRequest, location: str) -> tuple[Origin, str]:
    if not _LOCATION.fullmatch(location):
        raise _refuse_redirect("it says nowhere, or somewhere that is no URL")
    try:
        absolute = location if _SCHEME.match(location) else urljoin(f"{hop.origin}{hop.target}", location)
        origin, rest = split_url(absolute)
    except (OriginError, ValueError) as error:
        raise _refuse_redirect("it leads to what is no plain http or https URL") from error
    target = rest.partition("#")[0]
    target = target if target.startswith("/") else f"/{target}"
    if not _TARGET.fullmatch(target):
        raise _refuse_redirect("it leads to what is no URL")
    return origin, target


def _is_kept(first: Origin, then: Origin) -> bool:
    """Whether a redirect stays where it was, or goes from plain HTTP to HTTPS on the usual ports."""
    return first == then or (first, then) == (Origin("http", then.host, 80), Origin("https", then.host, 443))


def _refuse_redirect(reason: str) -> ExecutionError:
    return ExecutionError(
        "redirect_refused",
        f"a redirect of the service was not followed: {reason}",
        hint='name where it leads in the url, or in "allow_hosts" with "max_redirects", of the executor',
    )


# --- one exchange ------------------------------------------------------------------------------------------------------


async def _exchange(pool: httpcore2.AsyncConnectionPool, request: HttpRequest, max_bytes: int) -> Answer:
    wire = httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(
            scheme=request.origin.scheme, host=request.origin.host, port=request.origin.port, target=request.target
        ),
        headers=list(_wire_headers(request)),
        content=request.body or b"",
        extensions={"timeout": {"connect": _CONNECT_S}},
    )
    try:
        response = await pool.handle_async_request(wire)
        try:
            return await _read(response, request.method, max_bytes)
        finally:
            await response.aclose()
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
        raise _unreachable(error, request.origin) from error
    except httpcore2.LocalProtocolError as error:
        raise ExecutionError("execution_failed", "the request can't be written as HTTP") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        raise ExecutionError(
            "upstream_lost",
            f"the connection to {request.origin.host} broke, or what came over it was not HTTP",
            hint="its effects may have happened; check before calling it again",
        ) from error


def _wire_headers(request: HttpRequest) -> Iterator[tuple[bytes, bytes]]:
    yield b"Host", request.origin.authority.encode()
    for name, value in request.headers.items():
        yield name.encode(), value.encode()
    yield b"Accept-Encoding", b"gzip"
    if request.body is not None or request.method not in ("GET", "HEAD"):
        yield b"Content-Length", str(len(request.body or b"")).encode()


def _unreachable(error: BaseException, origin: Origin) -> Exception:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return ExecutionError(
                "upstream_unavailable",
                f"no secure connection to {origin.host}: its certificate or its TLS can't be accepted",
                hint="if its authority is your own, name the file of its certificate in CRA_HTTP_CA_BUNDLE",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore2.ConnectTimeout):
        return _UnreachableError("it does not answer")
    return _UnreachableError("no connection could be made")


async def _read(response: httpcore2.Response, method: str, max_bytes: int) -> Answer:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    if method == "HEAD" or response.status in _REDIRECTS:
        return Answer(response.status, headers)
    is_error = response.status not in _OK
    body = _Body(headers, MAX_EXCERPT_BYTES if is_error else max_bytes)
    async for chunk in response.aiter_stream():
        body.feed(chunk)
        if body.is_over:
            break
    if body.is_over and not is_error:
        raise ExecutionError(
            "output_too_large",
            f"the answer has more than {max_bytes} bytes, so it was not read on",
            hint="ask for less at a time, or raise max_response_bytes in the executor",
        )
    return Answer(response.status, headers, body.finish(), cut=body.is_over)


class _Body:
    """A body that is kept up to a limit, unpacked as it comes: no more is ever unpacked than is kept.

    Raises:
        ExecutionError: ``invalid_result``: it is packed in a way that was not asked for.
    """

    def __init__(self, headers: Mapping[str, str], max_bytes: int) -> None:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip"):
            raise _unreadable("the service packed its answer in a way it was not asked to")
        self._unpack = zlib.decompressobj(_GZIP) if encoding in ("gzip", "x-gzip") else None
        self._kept = bytearray()
        self._came = 0
        self._members = 1
        self._max_bytes = max_bytes
        self.is_over = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes that came."""
        self._came += len(chunk)
        if self._unpack is None:
            self._keep(chunk)
            return
        while chunk and not self.is_over:
            if self._unpack.eof:
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise _unreadable("the service packed its answer into too many parts")
                self._unpack = zlib.decompressobj(_GZIP)  # RFC 1952: a file is a series of members
            try:
                self._keep(self._unpack.decompress(chunk, self._max_bytes - len(self._kept) + 1))
            except zlib.error as error:
                raise _unreadable("the service said its answer is gzip, and it is not") from error
            chunk = self._unpack.unconsumed_tail or self._unpack.unused_data
        # Members and blocks may be empty, without end.
        self.is_over = self.is_over or self._came > self._max_bytes + MAX_EXCERPT_BYTES

    def finish(self) -> bytes:
        """What was kept."""
        if self._unpack is not None and self._came and not self._unpack.eof and not self.is_over:
            raise _unreadable("the answer of the service ends in the middle")
        return bytes(self._kept)

    def _keep(self, data: bytes) -> None:
        room = self._max_bytes - len(self._kept)
        self._kept += data[:room]
        self.is_over = self.is_over or len(data) > room


def _unreadable(message: str) -> ExecutionError:
    return ExecutionError("invalid_result", message, hint="call it again, or tell those who run the service")


# --- retries -----------------------------------------------------------------------------------------------------------


def _wanted_delay(answer: Answer, attempt: int) -> float:
    """Seconds until the next attempt: what the service asks for, else longer each time."""
    text = answer.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return _FIRST_DELAY_S * 2**attempt


def _fitting(delay_s: float) -> float | None:
    """The delay if it ends before the caller's time does; else None."""
    left_s = anyio.current_effective_deadline() - anyio.current_time()
    return delay_s if delay_s < min(left_s, _LONGEST_DELAY_S) else None
