"""Live export to real receivers: collectors and syslog servers on loopback, files, programs; and to receivers that are dead."""

import json
import logging
import os
import socket
import socketserver
import ssl
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import SettingsError
from cra_mcp.trace.event import Head
from cra_mcp.trace.export import live, program
from cra_mcp.trace.export.delivering import DeliveryError
from cra_mcp.trace.export.live import LiveExport
from cra_mcp.trace.export.sinks import sink_of
from tests.trace.export.test_json_formats import read_logs, read_spans
from tests.trace.export.test_text_formats import _SYSLOG

PATIENCE_S = 20.0
HEAD = Head(0, "0" * 64, "")


def until(true: Callable[[], object], why: str = "") -> None:
    """Look until something is so; fails after a while."""
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, why
        time.sleep(0.01)


class Collector:
    """An OTLP/HTTP receiver; answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector.answers.pop(0) if collector.answers else 200
                if status == 200:
                    collector.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(status)
                if status == 302:
                    self.send_header("location", "http://127.0.0.1:1/")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@contextmanager
def exporting(spec: str, dead: Path, environ: dict[str, str] | None = None, **more: int) -> Iterator[LiveExport]:
    export = LiveExport(sink_of(spec, environ or {}), dead, **more)
    try:
        yield export
    finally:
        export.close()


def hashes(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["event_hash"] for line in lines]


def test_a_collector_gets_every_event_once_and_in_order(
    collector: Collector, lines: list[bytes], tmp_path: Path
) -> None:
    spec = f"otlp+http://127.0.0.1:{collector.port}"
    environ = {"CRA_EXPORT_HEADERS": "Authorization=Bearer abc, X-Team = red"}
    with exporting(spec, tmp_path / "dead", environ) as export:
        for line in lines:
            export.grown("s", HEAD, [line])
    assert (export.sent, export.dead, export.dropped, export.waiting) == (len(lines), 0, 0, 0)
    seen = []
    for path, headers, body in collector.requests:
        assert (path, headers["content-type"]) == ("/v1/logs", "application/json")
        assert (headers["authorization"], headers["x-team"]) == ("Bearer abc", "red")
        for each in read_logs(body).resource_logs[0].scope_logs[0].log_records:
            seen += [attribute.value.string_value for attribute in each.attributes if attribute.key == "cra.event.hash"]
    assert seen == hashes(lines)
    assert not (tmp_path / "dead").exists()


def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path, lines: list[bytes]) -> None:
    taken = []

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65_536)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with exporting(f"otlp+http://127.0.0.1:{server.server_port}", tmp_path / "dead") as export:
        export.grown("s", HEAD, lines[:1])
        until(lambda: export.sent == 1)
        export.grown("s", HEAD, lines[1:2])
        until(lambda: export.sent == 2, "the next answer is a new one")
    server.shutdown()
    server.server_close()
    assert len(taken) == 2


def test_a_collector_gets_spans_when_they_have_ended(collector: Collector, lines: list[bytes], tmp_path: Path) -> None:
    with exporting(f"otlp+http://127.0.0.1:{collector.port}/custom#otlp-spans", tmp_path / "dead") as export:
        export.grown("s", HEAD, lines)
    assert {path for path, _, _ in collector.requests} == {"/custom"}
    spans = [read_spans(body) for _, _, body in collector.requests]
    assert sum(len(each.resource_spans[0].scope_spans[0].spans) for each in spans) == 6


def test_what_is_refused_for_a_while_is_tried_again(
    collector: Collector, lines: list[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector.answers = [503, 429]
    with exporting(f"otlp+http://127.0.0.1:{collector.port}", tmp_path / "dead") as export:
        export.grown("s", HEAD, lines)
        until(lambda: export.sent == len(lines))
    assert len(collector.requests) == 1
    assert [record.message for record in caplog.records] == [
        "an export is not taken; it is tried again",
        "an export is taken again",
    ]


@pytest.mark.parametrize("status", [400, 401, 302])
def test_what_is_refused_for_good_is_kept_as_a_trace_of_its_own(
    collector: Collector, lines: list[bytes], tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    dead = tmp_path / "exports" / "0.dead.trace.jsonl"
    collector.answers = [status]
    with exporting(f"otlp+http://127.0.0.1:{collector.port}", dead) as export:
        export.grown("s", HEAD, lines)
        until(lambda: export.dead)
        export.grown("s", HEAD, lines[:1])
    assert dead.read_bytes() == b"".join(line + b"\n" for line in lines)
    assert stat.S_IMODE(dead.stat().st_mode) == 0o600
    assert (export.dead, export.sent, len(collector.requests)) == (len(lines), 1, 1)
    assert sum(record.events for record in caplog.records if "dead letters" in record.message) == len(lines)


def test_a_dead_receiver_costs_events_nothing_and_ends_in_time(
    lines: list[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:  # bound and never listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        dead = tmp_path / "dead.jsonl"
        export = LiveExport(sink_of(f"otlp+http://127.0.0.1:{taken.getsockname()[1]}", {}), dead, max_events=1_000)
        began = time.monotonic()
        for _ in range(200):
            export.grown("s", HEAD, lines)
        assert time.monotonic() - began < 2.0
        began = time.monotonic()
        export.close()
        assert time.monotonic() - began < live._END_S + 2.0
    offered = 200 * len(lines)
    assert export.sent == 0
    assert export.dead + export.dropped == offered, "every event is accounted for"
    assert dead.read_bytes().count(b"\n") == export.dead > 0
    told = [record for record in caplog.records if "left out" in record.message]
    assert sum(record.events for record in told) == export.dropped > 0
    export.close()


def test_a_receiver_that_never_answers_does_not_hold_up_the_end(
    lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_END_S", 0.3)
    monkeypatch.setattr(live, "TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        export = LiveExport(sink_of(f"otlp+http://127.0.0.1:{silent.getsockname()[1]}", {}), tmp_path / "dead")
        export.grown("s", HEAD, lines)
        connection, _ = silent.accept()
        export.grown("s", HEAD, lines)
        began = time.monotonic()
        export.close()
        assert time.monotonic() - began < 4.0
        assert (tmp_path / "dead").read_bytes().count(b"\n") == 2 * len(lines)
        connection.close()


def test_dead_letters_that_cant_be_kept_are_counted(lines: list[bytes], tmp_path: Path, collector: Collector) -> None:
    collector.answers = [400]
    (tmp_path / "dead").symlink_to(tmp_path / "elsewhere")
    with exporting(f"otlp+http://127.0.0.1:{collector.port}", tmp_path / "dead") as export:
        export.grown("s", HEAD, lines)
    assert (export.dead, export.dropped) == (0, len(lines))
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_is_no_event_is_set_aside_and_the_rest_goes_on(
    collector: Collector, lines: list[bytes], tmp_path: Path
) -> None:
    with exporting(f"otlp+http://127.0.0.1:{collector.port}", tmp_path / "dead") as export:
        export.grown("s", HEAD, [lines[0], b"nonsense", lines[1]])
    assert (export.sent, export.dead) == (2, 1)
    assert (tmp_path / "dead").read_bytes() == b"nonsense\n"


class Syslog(socketserver.ThreadingTCPServer):
    """A syslog server: reads octet-counted messages (RFC 6587) from each connection."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Frames)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class _Frames(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while True:
            digits = b""
            while (byte := self.rfile.read(1)) not in {b" ", b""}:
                digits += byte
            if not digits:
                return
            self.server.messages.append(self.rfile.read(int(digits)))


def test_a_syslog_server_over_tcp_gets_every_message_whole(lines: list[bytes], tmp_path: Path) -> None:
    with Syslog() as server:
        port = server.server_address[1]
        with exporting(f"syslog+tcp://127.0.0.1:{port}", tmp_path / "dead") as export:
            export.grown("s", HEAD, lines)
            until(lambda: len(server.messages) == len(lines))
            export._sink._socket.shutdown(socket.SHUT_RDWR)  # the connection breaks between two deliveries
            export.grown("s", HEAD, lines[:3])
            until(lambda: len(server.messages) == len(lines) + 3)
        server.shutdown()
    for message, event_hash in zip(server.messages, hashes([*lines, *lines[:3]]), strict=True):
        assert _SYSLOG.fullmatch(message.decode()) is not None
        assert f'hash="{event_hash}"'.encode() in message


def test_a_syslog_server_over_udp_gets_a_datagram_each(lines: list[bytes], tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE_S)
        with exporting(f"syslog://127.0.0.1:{server.getsockname()[1]}", tmp_path / "dead") as export:
            export.grown("s", HEAD, lines)
            got = [server.recv(65_536) for _ in lines]
    assert [f'hash="{each}"'.encode() in message for each, message in zip(hashes(lines), got, strict=True)] == [
        True
    ] * len(lines)


def test_a_file_is_appended_to_with_one_header_for_its_owner_only(lines: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    for _ in range(2):
        with exporting(f"file:{path}#csv", tmp_path / "dead") as export:
            export.grown("s", HEAD, lines)
    rows = path.read_bytes().count(b'"\r\n')
    assert rows == 2 * len(lines) + 1
    assert path.read_text().count('"timestamp","session_id"') == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_not_written(lines: list[bytes], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    sink = sink_of(f"file:{path}", {})
    with pytest.raises(DeliveryError):
        sink.deliver(b"x\n")
    assert not (tmp_path / "elsewhere").exists()


COPY = """
import os, sys
out = open(sys.argv[1], "ab")
for line in sys.stdin.buffer:
    out.write(line)
out.write(str("CRA_SECRET" in os.environ).encode())
"""


def test_a_program_reads_events_from_its_input_and_ends_with_the_export(
    lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRA_SECRET", "x")
    (tmp_path / "copy.py").write_text(COPY)
    out = tmp_path / "out"
    with exporting(f"command:{sys.executable} {tmp_path / 'copy.py'} '{out}'", tmp_path / "dead") as export:
        export.grown("s", HEAD, lines)
    assert out.read_bytes() == b"".join(line + b"\n" for line in lines) + b"False"


def test_a_program_that_has_ended_is_started_again(lines: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "once.py"
    script.write_text("import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.readline())")
    with exporting(f"command:{sys.executable} {script} {out}", tmp_path / "dead") as export:
        for number in range(3):
            export.grown("s", HEAD, [lines[number]])
            until(lambda number=number: out.exists() and out.read_bytes().count(b"\n") == number + 1)
            until(lambda: export._sink._process.poll() is not None)
    assert out.read_bytes() == b"".join(line + b"\n" for line in lines[:3])


def test_a_program_that_does_not_end_is_ended(
    lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_END_WAIT_S", 0.2)
    sink = sink_of(f"command:{sys.executable} -c 'import time; time.sleep(60)'", {})
    sink.deliver(b"x\n")
    process = sink._process
    sink.close()
    assert process.returncode is not None
    with pytest.raises(DeliveryError):
        sink_of("command:/does/not/exist", {}).deliver(b"x")


def test_a_program_that_does_not_read_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended with what it has started, and what it did not take is not delivered."""
    monkeypatch.setattr(program, "TIMEOUT_S", 0.5)
    script = tmp_path / "stuck.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{child.pid}}')\n"
        "time.sleep(600)\n"
    )
    sink = sink_of(f"command:{sys.executable} {script}", {})
    sink.deliver(b"x\n")  # fits the pipe
    until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    child = int((tmp_path / "pids").read_text())
    with pytest.raises(DeliveryError):
        sink.deliver(b"x" * 1_000_000)
    until(lambda: not alive(child), "what a stuck program had started lives on")
    sink.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            "ftp://x",
            "otlp+http://",
            "otlp+http://u:p@x",
            "otlp+http://x?a=b",
            "otlp+http://x:0",
            "otlp+http://x:99999",
        ),
        *(
            "otlp+http://x#csv",
            "otlp+http://x#xml",
            "syslog://x#cef",
            "file:",
            "command:",
            "command:'x",
            "syslog+tcp://[x",
        ),
    ],
)
def test_a_spec_that_cant_be_used_is_refused_at_the_start_and_shows_nothing_of_itself(spec: str) -> None:
    with pytest.raises(SettingsError) as raised:
        sink_of(spec, {})
    assert raised.value.code == "invalid_export"
    assert "u:p" not in raised.value.message


def test_credentials_go_to_another_machine_encrypted_only() -> None:
    headers = {"CRA_EXPORT_HEADERS": "authorization=Bearer abc"}
    with pytest.raises(SettingsError):
        sink_of("otlp+http://collector.example", headers)
    assert "abc" not in sink_of("otlp+https://collector.example", headers).name
    with pytest.raises(SettingsError):
        sink_of("otlp+https://collector.example", {"CRA_EXPORT_HEADERS": "a b=c\r\nd"})
    assert sink_of("otlp+https://x", {})._context.verify_mode == ssl.CERT_REQUIRED


def test_a_runtime_exports_what_it_stores_and_nothing_that_was_hidden(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.jsonl"
    caplog.set_level(logging.WARNING)
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data", export_to=(f"file:{out}",))) as runtime:
        session = runtime.create_session("agent", "Write to ann@example.com").session_id
    (trace,) = (tmp_path / "data" / "traces").glob("*.trace.jsonl")
    assert out.read_bytes() == trace.read_bytes()
    assert b"ann@example.com" not in out.read_bytes()
    assert session.encode() in out.read_bytes()
    assert runtime.exports[0].sent == out.read_bytes().count(b"\n")
    assert runtime.checkpointer is not None
    assert caplog.records == []
