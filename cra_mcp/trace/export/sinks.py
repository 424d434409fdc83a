"""Where exported records go while they are made: a collector, a syslog server, a file, a program.

Rule: a sink makes payloads of records once and delivers each until it arrives or can't; it never follows a redirect, and what it
says of itself has no credential. Source: specs/export.md, "Live export"; OTLP 1.5 (OTLP/HTTP); RFC 5426, RFC 6587.
"""

import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from cra_mcp.authority import split_url
from cra_mcp.trace.export import otlp, syslog
from cra_mcp.trace.export.delivering import TIMEOUT_S, DeliveryError, Sink, invalid_export, joined
from cra_mcp.trace.export.format import FORMATS, format_of
from cra_mcp.trace.export.otlp_spans import Spans, request_of_spans
from cra_mcp.trace.export.program import CommandSink
from cra_mcp.trace.export.record import PRODUCT, Record
from cra_mcp.trace.posting import read_answer

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from ssl import SSLContext

_MAX_DATAGRAM = 8_192
_PORTS = {"syslog": 514, "syslog+tcp": 601, "syslog+tls": 6514, "otlp+http": 4318, "otlp+https": 4318}
_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_OK = range(200, 300)
_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


def sink_of(spec: str, environ: Mapping[str, str]) -> Sink:
    """The sink of ``SPEC[#FORMAT]``; headers for a collector are in ``CRA_EXPORT_HEADERS`` (``name=value,…``), never in the spec.

    Raises:
        SettingsError: ``invalid_export``.
    """
    where, form = _split(spec)
    scheme = where.partition(":")[0]
    if scheme in {"otlp+http", "otlp+https"}:
        return OtlpSink(_address(where), form or "otlp-logs", _headers(environ.get("CRA_EXPORT_HEADERS", "")))
    if scheme in {"syslog", "syslog+udp", "syslog+tcp", "syslog+tls"}:
        if form not in {None, "syslog"}:
            raise invalid_export("syslog has a format of its own")
        return SyslogSink(_address(where))
    if scheme == "file":
        return FileSink(_path(where), form or "jsonl")
    if scheme == "command":
        return CommandSink(where.partition(":")[2], form or "jsonl")
    raise invalid_export(
        "it begins with none of otlp+http:, otlp+https:, syslog:, syslog+tcp:, syslog+tls:, file:, command:"
    )


_MAX_ANSWER_BYTES = 65_536


class OtlpSink:
    """A collector, over OTLP/HTTP with JSON."""

    def __init__(self, address: SplitResult, form: str, headers: Mapping[str, str]) -> None:
        if form not in {"otlp-logs", "otlp-spans"}:
            raise invalid_export("a collector takes otlp-logs or otlp-spans")
        self._host, self._port = address.hostname or "", address.port or _PORTS[address.scheme]
        signal = "logs" if form == "otlp-logs" else "traces"
        self._path = address.path if address.path not in {"", "/"} else f"/v1/{signal}"
        self._spans = Spans() if form == "otlp-spans" else None
        self._headers = {"content-type": "application/json", "user-agent": PRODUCT, **headers}
        self._context = _tls() if address.scheme == "otlp+https" else None
        if headers and self._context is None and self._host not in _LOCAL:
            raise invalid_export("headers of CRA_EXPORT_HEADERS go to another machine over otlp+https only")
        self._connection: HTTPConnection | None = None
        self.name = f"{address.scheme}://{self._host}:{self._port}"

    def payloads(self, records: Sequence[Record]) -> Iterable[bytes]:
        """See ``Sink.payloads``."""
        if self._spans is None:
            return [otlp.request_of_logs(records)]
        spans = [span for record in records for span in self._spans.spans(record)]
        return [request_of_spans(spans)] if spans else []

    def rest(self) -> Iterable[bytes]:
        """See ``Sink.rest``."""
        spans = list(self._spans.rest()) if self._spans is not None else []
        return [request_of_spans(spans)] if spans else []

    def deliver(self, payload: bytes) -> None:
        """See ``Sink.deliver``."""
        from http.client import HTTPException  # noqa: PLC0415 - only where there is a collector

        try:
            connection = self._connection = self._connection or self._connect()
            connection.request("POST", self._path, payload, self._headers)
            answer = connection.getresponse()
        except (OSError, HTTPException) as error:
            self.close()
            raise DeliveryError(type(error).__name__) from None
        try:
            read_answer(answer, _MAX_ANSWER_BYTES)
        except (OSError, HTTPException):
            self.close()  # its status says what became of the events; what follows must not pass for the next answer
        if answer.status not in _OK:
            raise DeliveryError(f"status {answer.status}", lasting=answer.status not in _RETRIED)

    def close(self) -> None:
        """See ``Sink.close``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - as above

        if self._context is None:
            return HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        return HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._context)


class SyslogSink:
    """A syslog server, over UDP, TCP or TLS."""

    def __init__(self, address: SplitResult) -> None:
        scheme = address.scheme.removesuffix("+udp")
        self._host, self._port = address.hostname or "", address.port or _PORTS[scheme]
        self._datagrams = scheme == "syslog"
        self._context = _tls() if scheme == "syslog+tls" else None
        self._socket: socket.socket | None = None
        self.name = f"{address.scheme}://{self._host}:{self._port}"

    def payloads(self, records: Sequence[Record]) -> Iterable[bytes]:
        """See ``Sink.payloads``: a datagram each, or all together with their lengths before them."""
        if self._datagrams:
            return [syslog.message(record, max_bytes=_MAX_DATAGRAM) for record in records]
        messages = [syslog.message(record) for record in records]
        return [b"".join(b"%d %b" % (len(message), message) for message in messages)]

    def rest(self) -> Iterable[bytes]:
        """See ``Sink.rest``; nothing waits."""
        return ()

    def deliver(self, payload: bytes) -> None:
        """See ``Sink.deliver``. Over UDP nobody says whether it arrived."""
        try:
            connection = self._socket = self._socket or self._connect()
            if not self._datagrams and _has_ended(connection):
                raise ConnectionResetError
            connection.sendall(payload)
        except OSError as error:
            self.close()
            raise DeliveryError(type(error).__name__) from None

    def close(self) -> None:
        """See ``Sink.close``."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        if self._datagrams:
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            made = socket.socket(family, kind, protocol)
            made.connect(address)
            return made
        made = socket.create_connection((self._host, self._port), timeout=TIMEOUT_S)
        return made if self._context is None else self._context.wrap_socket(made, server_hostname=self._host)


class FileSink:
    """A file that is appended to; made for its owner only."""

    def __init__(self, path: Path, form: str) -> None:
        self._path = path
        self._format = format_of(form)
        self._fd: int | None = None
        self.name = f"file:{path.name}"

    def payloads(self, records: Sequence[Record]) -> Iterable[bytes]:
        """See ``Sink.payloads``."""
        return joined(self._format, records)

    def rest(self) -> Iterable[bytes]:
        """See ``Sink.rest``."""
        return [b"".join(self._format.finish())]

    def deliver(self, payload: bytes) -> None:
        """See ``Sink.deliver``: all of it, or nothing."""
        try:
            fd = self._fd = self._open() if self._fd is None else self._fd
            size = os.fstat(fd).st_size
            data = payload if size else self._format.begin() + payload
            if os.write(fd, data) != len(data):
                os.ftruncate(fd, size)
                raise DeliveryError("the disk is full")
        except OSError as error:
            self.close()
            raise DeliveryError(error.strerror or type(error).__name__) from None

    def close(self) -> None:
        """See ``Sink.close``."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        fd = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(0, "not a regular file")
        return fd


def _has_ended(connection: socket.socket) -> bool:
    """Whether the other side has closed: the first write after that would be lost without an error."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except (BlockingIOError, OSError) as error:
        return not _would_block(error)
    finally:
        connection.settimeout(TIMEOUT_S)


def _would_block(error: OSError) -> bool:
    import ssl  # noqa: PLC0415 - takes long to import

    return isinstance(error, BlockingIOError | ssl.SSLWantReadError)


def _tls() -> "SSLContext":
    import ssl  # noqa: PLC0415 - as above

    return ssl.create_default_context()


def _split(spec: str) -> tuple[str, str | None]:
    where, mark, form = spec.rpartition("#")
    if mark and form in FORMATS:
        return where, form
    if mark and not spec.startswith(("command:", "file:")):
        raise invalid_export(f"there is no format {form[:40]!r}; there are {', '.join(FORMATS)}")
    return spec, None


def _address(where: str) -> SplitResult:
    try:
        parts = split_url(where, {where.partition(":")[0].lower()})
        good = not parts.query and not parts.fragment
    except ValueError:
        good, parts = False, urlsplit("")
    if not good:
        raise invalid_export("it must be SCHEME://HOST:PORT, without user, password or query")
    return parts


def _path(where: str) -> Path:
    path = Path(where.removeprefix("file:").removeprefix("//")).expanduser()
    if not path.name:
        raise invalid_export("the file has no name")
    return path


def _headers(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    for name, value in headers.items():
        if not name.replace("-", "").isalnum() or not name.isascii() or not value.isprintable():
            raise invalid_export("CRA_EXPORT_HEADERS must be name=value pairs between commas")
    return headers
