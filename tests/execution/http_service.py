"""A real HTTP service on loopback, in threads, that answers as a test says and remembers what it was asked."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """A request as it came. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Service"

    def log_message(self, *_: object) -> None: ...

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked = Asked(self.command, self.path, headers, body, id(self.connection))
        self.server.asked.append(self.asked)
        self.server.answer(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815 - the names http.server looks for

    def reply(self, status: int = 200, data: bytes = b"", **headers: str) -> None:
        """Answer; underscores in names of headers stand for hyphens."""
        self.send_response(status)
        for name, value in {"content_length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def json(self, value: object, status: int = 200, **headers: str) -> None:
        self.reply(status, json.dumps(value).encode(), content_type="application/json", **headers)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are and end the connection."""
        self.wfile.write(data)
        self.close_connection = True

    def closed_by_client(self, timeout_s: float = 10.0) -> bool:
        """Whether the client ends the connection within the time."""
        self.connection.settimeout(timeout_s)
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


class Service(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Asked] = []
        self.answer: Callable[[Handler], None] = lambda handler: handler.json({"ok": True})
        self.connections = 0
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def at(self, host: str) -> str:
        """The same place under a name."""
        return f"{self.scheme}://{host}:{self.port}"

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.connections += 1
        return connection, address

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Service]:
    service = Service(context)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        thread.join()
        service.server_close()
