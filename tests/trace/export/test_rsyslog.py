"""Syslog, CEF and checkpoints as a real rsyslogd reads them: what it took apart is compared with the events."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cra_mcp.trace.checkpoint import Checkpoint, SignerKey
from cra_mcp.trace.event import Event, Head
from cra_mcp.trace.export import cef
from cra_mcp.trace.export.live import LiveExport
from cra_mcp.trace.export.record import Record
from cra_mcp.trace.export.sinks import sink_of
from cra_mcp.trace.sinks import sink_of as checkpoint_sink_of
from tests.clients.debian import program
from tests.trace.export.conftest import EVIL, identifier

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rsyslog is a program of Linux")
PATIENCE_S = 30.0
_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k" net.enableDNS="off" defaultNetstreamDriver="ptcp")
module(load="imtcp")
module(load="mmpstrucdata")
module(load="mmnormalize")
input(type="imtcp" port="0" address="127.0.0.1" listenPortFileName="{folder}/port")
template(name="taken" type="list" option.jsonf="on") {{
    property(outname="facility" name="syslogfacility-text" format="jsonf")
    property(outname="severity" name="syslogseverity" format="jsonf")
    property(outname="version" name="protocol-version" format="jsonf")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="process" name="procid" format="jsonf")
    property(outname="kind" name="msgid" format="jsonf")
    property(outname="data" name="$!rfc5424-sd" format="jsonf")
    property(outname="cef" name="$!cef" format="jsonf")
    property(outname="text" name="msg" format="jsonf")
}}
action(type="mmpstrucdata")
if $msg startswith "CEF:" then {{
    action(type="mmnormalize" rule=["rule=:%cef:cef%"])
}}
action(type="omfile" file="{folder}/taken" template="taken")
"""


class Rsyslog:
    """A receiver over TCP that writes what it took apart, a JSON object a message."""

    def __init__(self, folder: Path) -> None:
        found = program("rsyslogd")
        self.folder = folder
        (folder / "rsyslog.conf").write_text(_CONFIGURATION.format(folder=folder))
        modules = ["-M", str(found.modules)] if found.modules is not None else []
        argv = [str(found.path), "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid"), *modules]
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            argv, env={**os.environ, **found.environment}, stdout=self.log, stderr=subprocess.STDOUT
        )
        self.until(lambda: (folder / "port").exists() and (folder / "port").read_text().strip())
        self.port = int((folder / "port").read_text())
        self.read = 0

    def until(self, holds) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < ends, (self.folder / "log").read_text()
            time.sleep(0.01)

    def taken(self, count: int) -> list[dict]:
        """The next so many messages."""
        file = self.folder / "taken"
        self.until(lambda: file.exists() and file.read_bytes().count(b"\n") >= self.read + count)
        lines = file.read_bytes().split(b"\n")[self.read : -1]
        self.read += len(lines)
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.log.close()


@pytest.fixture(scope="module")
def rsyslog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rsyslog]:
    made = Rsyslog(tmp_path_factory.mktemp("rsyslog"))
    yield made
    made.close()


def as_shown(value: object, instead: str = "?") -> object:
    """A value of a payload without what can't be shown and JSON does not escape."""
    if isinstance(value, dict):
        return {as_shown(key, instead): as_shown(each, instead) for key, each in value.items()}
    if isinstance(value, list):
        return [as_shown(each, instead) for each in value]
    if isinstance(value, str):
        return "".join(part if part.isprintable() or part < " " else instead for part in value)
    return value


def printable(text: str) -> str:
    return "".join(part if part.isprintable() else "?" for part in text)


def test_every_event_arrives_over_tcp_and_is_taken_apart_as_it_was_meant(
    rsyslog: Rsyslog, lines: list[bytes], parsed: list[Event], tmp_path: Path
) -> None:
    export = LiveExport(sink_of(f"syslog+tcp://127.0.0.1:{rsyslog.port}", {}), tmp_path / "dead")
    export.grown("s", Head(0, "0" * 64, ""), lines)
    export.close()
    assert export.sent == len(lines)
    for taken, event in zip(rsyslog.taken(len(lines)), parsed, strict=True):
        assert (taken["facility"], taken["version"], taken["app"], taken["process"]) == ("audit", "1", "cra-mcp", "-")
        assert (taken["time"], taken["kind"]) == (event.timestamp, event.event_type[:32])
        (data,) = json.loads(taken["data"]).items()
        name, pairs = data
        assert (name, pairs["session"], pairs["sequence"]) == ("cra@32473", event.session_id, str(event.sequence))
        assert (pairs["hash"], pairs["event"], pairs["span"]) == (event.event_hash, event.event_id, event.span_id)
        assert (pairs["agent"], pairs["tenant"], pairs["subject"]) == (printable(EVIL), "-2+3", "@SUM(1)")
        assert pairs.get("action") == event.payload.get("action_id")
        assert json.loads(taken["text"].removeprefix("\ufeff")) == as_shown(event.payload)


def test_a_checkpoint_arrives_whole(rsyslog: Rsyslog) -> None:
    session_id = identifier(100)
    note = SignerKey("example.com/agents", bytes(32)).sign(Checkpoint(f"example.com/agents/{session_id}", 7, bytes(32)))
    checkpoint_sink_of(f"syslog+tcp://127.0.0.1:{rsyslog.port}", {}).deliver(session_id, 7, note)
    (taken,) = rsyslog.taken(1)
    assert (taken["facility"], taken["kind"], taken["process"]) == ("audit", "checkpoint", str(os.getpid()))
    assert json.loads(taken["text"]) == {"session_id": session_id, "size": 7, "checkpoint": note.decode()}


def test_cef_is_taken_apart_by_a_parser_of_others(rsyslog: Rsyslog, records: list[Record], parsed: list[Event]) -> None:
    with socket.create_connection(("127.0.0.1", rsyslog.port), PATIENCE_S) as connection:
        for record in records:
            message = b"<109>1 2026-01-01T00:00:00Z host app - - - " + cef.line(record)
            connection.sendall(b"%d %s" % (len(message), message))
    for taken, event in zip(rsyslog.taken(len(records)), parsed, strict=True):
        found = json.loads(taken["cef"])
        assert (found["DeviceVendor"], found["DeviceProduct"], found["DeviceVersion"]) == ("CRA", "cra-mcp", "1.0")
        assert found["SignatureID"] == event.event_type
        assert 0 <= int(found["Severity"]) <= 10
        fields = found["Extensions"]
        assert fields["t"].isdecimal(), "the parser takes the first letter of the first name, which is rt, for a blank"
        assert (fields["externalId"], fields["cn1"], fields["cs4"]) == (
            event.event_id,
            str(event.sequence),
            event.event_hash,
        )
        assert (fields["suser"], fields["cs5"]) == ("@SUM(1)", "-2+3")
        assert fields["suid"] == "".join(
            part if part.isprintable() or part == "\n" else " " for part in EVIL.replace("\r\n", "\n")
        )
        assert fields.get("act") == event.payload.get("action_id")
        assert json.loads(fields["cs6"]) == as_shown(event.payload, instead=" ")
        assert {name for name in fields if name.endswith("Label")} == {
            f"{name}Label" for name in fields if name[:2] in {"cs", "cn", "cf", "fl"} and not name.endswith("Label")
        }
