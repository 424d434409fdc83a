"""Where copies of checkpoints go: a folder, an HTTP service, syslog, or a program.

Rule: a copy is worth something only where the writer of the trace can't change it afterwards; nothing is ever overwritten or taken
back from here. Each delivery is bounded in time, and says by an ``OSError`` that it failed. No shell, no redirects.
Source: specs/trace.md, "Copies"; RFC 5424 and RFC 6587 (syslog).
"""

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import orjson

from cra_mcp.authority import split_url
from cra_mcp.errors import SettingsError
from cra_mcp.trace.delivery import Sink
from cra_mcp.trace.posting import TIMEOUT_S, post

AUTHORIZATION = "CRA_CHECKPOINT_AUTHORIZATION"
"""Environment variable: the ``Authorization`` header of HTTP deliveries."""

_PRIORITY = 13 * 8 + 5  # log audit, notice
_SCHEMES = frozenset({"http", "https", "syslog+udp", "syslog+tcp"})
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class FolderSink:
    """A folder, for one that can only be added to, or that another machine collects. Each checkpoint is a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.name = f"folder {folder}"
        self._folder = folder

    def deliver(self, session_id: str, size: int, note: bytes) -> None:
        """See ``Sink``. The folder is not made: where it is missing, what should be mounted there is."""
        path = self._folder / f"{session_id}.{size:012d}.checkpoint"
        try:
            fd = os.open(path, _EXCLUSIVE, 0o644)
        except FileExistsError:
            if path.read_bytes() != note:
                raise OSError(f"{path.name} is there already and says something else") from None
            return
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(note)
                file.flush()
                os.fsync(fd)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise


class HttpSink:
    """A service that takes a POST and answers 2xx."""

    def __init__(self, url: SplitResult, authorization: str | None) -> None:
        self.name = f"{url.scheme}://{url.netloc}{url.path}"
        self._url = url
        self._headers = {"content-type": "text/plain; charset=utf-8", "user-agent": "cra-mcp"}
        if authorization:
            self._headers["authorization"] = authorization

    def deliver(self, session_id: str, size: int, note: bytes) -> None:
        """See ``Sink``. Which session and size it is stands in the note."""
        post(self._url, note, self._headers)


class SyslogSink:
    """A syslog receiver: RFC 5424 messages, the note as JSON, because line feeds don't survive syslog."""

    def __init__(self, url: SplitResult) -> None:
        self.name = f"{url.scheme}://{url.netloc}{url.path}"
        self._url = url

    def deliver(self, session_id: str, size: int, note: bytes) -> None:
        """See ``Sink``. Over UDP and to a local socket nobody answers: that it was sent is all that is known."""
        message = self._message(session_id, size, note)
        kind = self._url.scheme.partition("+")[2]
        if kind == "tcp":
            address = (self._url.hostname or "", self._url.port or 601)
            with socket.create_connection(address, TIMEOUT_S) as connection:
                connection.sendall(b"%d %s" % (len(message), message))
        elif kind == "udp":
            found = socket.getaddrinfo(self._url.hostname, self._url.port or 514, type=socket.SOCK_DGRAM)
            family, kind_of, protocol, _, place = found[0]
            with socket.socket(family, kind_of, protocol) as sender:
                sender.sendto(message, place)
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(TIMEOUT_S)
                sender.sendto(message, self._url.path)

    @staticmethod
    def _message(session_id: str, size: int, note: bytes) -> bytes:
        moment = time.time_ns() // 1_000
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment // 1_000_000))
        host = "".join(char for char in socket.gethostname() if "!" <= char <= "~")[:255] or "-"
        head = f"<{_PRIORITY}>1 {stamp}.{moment % 1_000_000:06d}Z {host} cra-mcp {os.getpid()} checkpoint - "
        body = orjson.dumps({"session_id": session_id, "size": size, "checkpoint": note.decode()})
        return head.encode() + body


class CommandSink:
    """A program that reads the note from its standard input and ends with 0."""

    def __init__(self, argv: list[str], environ: Mapping[str, str]) -> None:
        self.name = f"command {argv[0]}"
        self._argv = argv
        self._environ = dict(environ)

    def deliver(self, session_id: str, size: int, note: bytes) -> None:
        """See ``Sink``. Session and size are in ``CRA_SESSION_ID`` and ``CRA_CHECKPOINT_SIZE`` too."""
        process = subprocess.Popen(  # noqa: S603 - the operator's program, and no shell
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**self._environ, "CRA_SESSION_ID": session_id, "CRA_CHECKPOINT_SIZE": str(size)},
            start_new_session=True,
        )
        try:
            process.communicate(note, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise TimeoutError("it did not end in time") from None
        finally:
            _end(process)
        if process.returncode != 0:
            raise OSError(f"it ended with {process.returncode}")


def sink_of(text: str, environ: Mapping[str, str], *, hidden: frozenset[str] = frozenset()) -> Sink:
    """The sink a setting names.

    ``folder:PATH``, ``http(s)://…``, ``syslog+udp://HOST``, ``syslog+tcp://HOST``, ``syslog:///SOCKET``, ``command:PROGRAM``.

    Args:
        text: the setting.
        environ: what programs inherit, and where ``CRA_CHECKPOINT_AUTHORIZATION`` is.
        hidden: variables programs don't inherit: those that hold a key.

    Raises:
        SettingsError: it can't be used.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "folder" and rest:
        return FolderSink(Path(rest).expanduser().absolute())
    if scheme == "command":
        return CommandSink(
            _argv_of(rest), {key: environ[key] for key in environ if key not in {AUTHORIZATION, *hidden}}
        )
    try:
        # A local socket has a path, and no host.
        url = urlsplit(text) if text.startswith("syslog:///") else split_url(text, _SCHEMES)
    except ValueError:
        raise _unusable(text) from None
    if url.fragment:
        raise _unusable(text)
    if scheme in {"http", "https"} and url.hostname:
        authorization = environ.get(AUTHORIZATION)
        if authorization and scheme == "http" and url.hostname not in _LOCAL:
            raise SettingsError(
                f"{AUTHORIZATION} would be sent in clear text", hint="use https, or unset it if the service needs none"
            )
        return HttpSink(url, authorization)
    if (scheme in {"syslog+udp", "syslog+tcp"} and url.hostname) or (
        scheme == "syslog" and url.path and hasattr(socket, "AF_UNIX")
    ):
        return SyslogSink(url)
    raise _unusable(text)


def _argv_of(text: str) -> list[str]:
    try:
        argv = shlex.split(text)
    except ValueError:
        argv = []
    if not argv:
        raise _unusable("command:")
    return argv


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program that is still there, and what it started."""
    if process.poll() is None:
        with suppress(OSError):
            if os.name == "nt":  # pragma: no cover - no groups to signal
                process.kill()
            else:
                os.killpg(process.pid, 9)
        process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _unusable(text: str) -> SettingsError:
    return SettingsError(
        f"checkpoints can't be copied to {text.partition('@')[2] or text[:100]}",
        hint="give folder:PATH, https://HOST/PATH, syslog+udp://HOST, syslog+tcp://HOST, syslog:///dev/log or command:PROGRAM",
    )
