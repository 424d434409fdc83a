"""Copies of checkpoints: each kind of sink against a real receiver, and what happens where one fails or hangs."""

import json
import logging
import os
import socket
import stat
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cra_mcp.errors import SettingsError
from cra_mcp.trace import delivery, sinks
from cra_mcp.trace.delivery import Delivery
from cra_mcp.trace.sinks import AUTHORIZATION, sink_of

SESSION = "01980000-0000-7000-8000-00000000ab01"
NOTE = "origin\n7\nAAAA=\n\n\u2014 name AAAA\n".encode()
PATIENCE_S = 20


def until(holds) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


class Service:
    """An HTTP service that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                service.go_on.wait(PATIENCE_S)
                service.got.append((self.path, {key.lower(): self.headers[key] for key in self.headers}, body))
                self.send_response(service.status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/checkpoints?tenant=a"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service():
    made = Service()
    yield made
    made.close()


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.WARNING, "cra_mcp.trace")
    return caplog


def test_a_folder_gets_a_file_for_each_and_none_is_ever_changed(tmp_path):
    sink = sink_of(f"folder:{tmp_path}", {})
    sink.deliver(SESSION, 7, NOTE)
    sink.deliver(SESSION, 7, NOTE)  # again, after an answer that was lost
    sink.deliver(SESSION, 12, NOTE)
    with pytest.raises(OSError, match="something else"):
        sink.deliver(SESSION, 7, NOTE + b"x")
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == [f"{SESSION}.000000000007.checkpoint", f"{SESSION}.000000000012.checkpoint"]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {NOTE}


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path):
    sink = sink_of(f"folder:{tmp_path / 'mount'}", {})
    with pytest.raises(OSError, match="No such file"):
        sink.deliver(SESSION, 7, NOTE)
    assert not (tmp_path / "mount").exists()


def test_a_service_gets_the_note_and_the_authorization(service):
    sink = sink_of(service.url, {AUTHORIZATION: "Bearer s3cret"})
    sink.deliver(SESSION, 7, NOTE)
    path, headers, body = service.got[0]
    assert (path, body) == ("/checkpoints?tenant=a", NOTE)
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert "s3cret" not in sink.name
    assert "tenant" not in sink.name


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_2xx_is_an_acceptance(service, status):
    service.status = status
    sink_of(service.url, {}).deliver(SESSION, 7, NOTE)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 500, 503])
def test_anything_else_is_none_and_redirects_are_not_followed(service, status):
    service.status = status
    with pytest.raises(OSError, match=str(status)):
        sink_of(service.url, {}).deliver(SESSION, 7, NOTE)
    assert len(service.got) == 1


def test_what_is_no_http_is_none():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"junk\n")

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(OSError, match=r"no HTTP answer|reset"):
            sink_of(f"http://127.0.0.1:{listener.getsockname()[1]}/", {}).deliver(SESSION, 7, NOTE)
        answering.join()


def checked(message: bytes) -> None:
    head, _, body = message.partition(b" - {")
    priority, stamp, _host, program, pid, kind = head.decode().split(" ")
    assert priority == "<109>1"
    assert stamp.endswith("Z")
    assert len(stamp) == 27
    assert (program, pid, kind) == ("cra-mcp", str(os.getpid()), "checkpoint")
    assert json.loads(b"{" + body) == {"session_id": SESSION, "size": 7, "checkpoint": NOTE.decode()}
    assert b"\n" not in message


def test_syslog_over_udp_gets_one_message_of_rfc_5424():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_S)
        sink_of(f"syslog+udp://127.0.0.1:{receiver.getsockname()[1]}", {}).deliver(SESSION, 7, NOTE)
        checked(receiver.recv(65_536))


def test_syslog_over_tcp_gets_its_length_first():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        sink = sink_of(f"syslog+tcp://127.0.0.1:{listener.getsockname()[1]}", {})
        sending = threading.Thread(target=sink.deliver, args=(SESSION, 7, NOTE))
        sending.start()
        connection, _ = listener.accept()
        with connection:
            data = b"".join(iter(lambda: connection.recv(4096), b""))
        sending.join()
    length, _, message = data.partition(b" ")
    assert int(length) == len(message)
    checked(message)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no local syslog socket")
def test_syslog_over_a_local_socket(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(PATIENCE_S)
        sink_of(f"syslog://{tmp_path / 'log'}", {}).deliver(SESSION, 7, NOTE)
        checked(receiver.recv(65_536))


def script(folder: Path, text: str) -> Path:
    path = folder / "take"
    path.write_text(f"#!{sys.executable}\nimport os, sys, pathlib\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="no scripts with a first line there")
def test_a_program_reads_the_note_and_no_shell_reads_its_arguments(tmp_path):
    out = tmp_path / "out"
    program = script(
        tmp_path,
        "pathlib.Path(sys.argv[1]).write_text(repr((sys.argv[2:], sys.stdin.read(), os.environ['CRA_SESSION_ID'],\n"
        "    os.environ['CRA_CHECKPOINT_SIZE'], os.environ.get('THE_KEY'), os.environ.get('CRA_CHECKPOINT_AUTHORIZATION'))))",
    )
    environ = {**os.environ, "THE_KEY": "x", AUTHORIZATION: "x"}
    sink = sink_of(f"command:{program} {out} '$HOME; ls' \"a b\"", environ, hidden=frozenset({"THE_KEY"}))
    sink.deliver(SESSION, 7, NOTE)
    assert out.read_text() == repr((["$HOME; ls", "a b"], NOTE.decode(), SESSION, "7", None, None))
    assert str(out) not in sink.name


@pytest.mark.skipif(sys.platform == "win32", reason="no scripts with a first line there")
def test_a_program_that_fails_hangs_or_is_missing_has_not_taken_it(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="ended with 3"):
        sink_of(f"command:{script(tmp_path, 'sys.exit(3)')}", os.environ).deliver(SESSION, 7, NOTE)
    with pytest.raises(FileNotFoundError):
        sink_of(f"command:{tmp_path / 'none'}", os.environ).deliver(SESSION, 7, NOTE)
    monkeypatch.setattr(sinks, "TIMEOUT_S", 0.3)
    mark = tmp_path / "pid"
    hanging = script(
        tmp_path, f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\nimport time; time.sleep(600)"
    )
    with pytest.raises(TimeoutError):
        sink_of(f"command:{hanging}", os.environ).deliver(SESSION, 7, NOTE)
    if mark.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)


@pytest.mark.parametrize(
    "text",
    [
        "", "folder:", "ftp://host/", "http://", "https://user:secret@host/", "http://host:0/", "http://host:99999/",
        "https://host/#part", "syslog+udp://", "syslog://", "command:", "command:'open", "/a/path", "http://[bad/",
    ],
)  # fmt: skip
def test_a_target_that_is_none_is_refused_without_showing_a_password(text):
    with pytest.raises(SettingsError) as caught:
        sink_of(text, {})
    assert "secret" not in caught.value.message


def test_the_authorization_is_never_sent_in_clear_text_to_another_machine():
    with pytest.raises(SettingsError, match="clear text"):
        sink_of("http://audit.example/", {AUTHORIZATION: "Bearer s3cret"})
    sink_of("http://audit.example/", {})
    sink_of("https://audit.example/", {AUTHORIZATION: "Bearer s3cret"})


def test_deliveries_are_in_order_and_tried_again_until_they_succeed(service, errors, monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_S", 0.01)
    service.status = 503
    queue = Delivery(sink_of(service.url, {}))
    for size in (1, 2, 3):
        queue.offer(SESSION, size, b"%d" % size)
    until(lambda: queue.counts().failures > 2)
    assert queue.counts().delivered == 0
    service.status = 200
    until(lambda: queue.counts().delivered == 3)
    queue.close(time.monotonic() + PATIENCE_S)
    assert [body for _, _, body in service.got][-3:] == [b"1", b"2", b"3"]
    assert queue.counts().waiting == 0
    said = [record.getMessage() for record in errors.records]
    assert sum("do not reach" in text and "answered 503" in text for text in said) == 1  # not once for every attempt
    assert sum("again" in text and "reach" in text for text in said[1:]) == 1


def test_a_sink_that_hangs_holds_up_nobody_and_what_is_left_is_told(service, errors, monkeypatch):
    monkeypatch.setattr(delivery, "_MAX_WAITING", 4)
    service.go_on.clear()
    queue = Delivery(sink_of(service.url, {}))
    began = time.monotonic()
    for size in range(1, 11):
        queue.offer(SESSION, size, b"%d" % size)
    assert time.monotonic() - began < 1
    counts = queue.counts()
    assert counts.waiting == 4
    assert counts.dropped == 6
    queue.close(time.monotonic() + 0.05)
    assert "4 checkpoints did not reach" in errors.text


def test_what_is_waiting_when_the_process_ends_is_still_delivered(service):
    queue = Delivery(sink_of(service.url, {}))
    for size in range(1, 6):
        queue.offer(SESSION, size, b"%d" % size)
    queue.close(time.monotonic() + PATIENCE_S)
    assert queue.counts().delivered == 5


def test_a_sink_with_a_mistake_in_it_is_a_sink_that_fails(errors):
    class Mistaken:
        name = "mistaken"

        def deliver(self, session_id, size, note):
            raise ZeroDivisionError

    queue = Delivery(Mistaken())
    queue.offer(SESSION, 1, NOTE)
    until(lambda: queue.counts().failures)
    queue.close(time.monotonic() + PATIENCE_S)
    assert "do not reach mistaken: ZeroDivisionError" in errors.text
