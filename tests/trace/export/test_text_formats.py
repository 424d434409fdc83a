"""CSV, CEF, LEEF and syslog, each read by a reader that knows the format and nothing of how it was written."""

import csv
import io
import json
import re

import pytest

from cra_mcp.errors import SettingsError, TraceError
from cra_mcp.trace.event import Event, verify
from cra_mcp.trace.export import cef, csv_rows, leef, syslog
from cra_mcp.trace.export.format import FORMATS, format_of
from cra_mcp.trace.export.record import Record, Recorder
from tests.trace.export.conftest import EVIL


def exported(name: str, records: list[Record]) -> bytes:
    form = format_of(name)
    return form.begin() + b"".join(piece for record in records for piece in form.feed(record)) + b"".join(form.finish())


def test_jsonl_is_the_stored_trace_byte_for_byte(lines: list[bytes], records: list[Record]) -> None:
    whole = exported("jsonl", records)
    assert whole == b"".join(line + b"\n" for line in lines)
    assert verify(whole.splitlines()).ok


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in {"csv"}])
def test_every_piece_is_whole_lines_and_no_event_can_begin_another(name: str, records: list[Record]) -> None:
    whole = exported(name, records)
    assert whole.endswith(b"\n")
    assert len(whole.decode().split("\n")) - 1 == (len(records) if name != "otlp-spans" else 6)
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", whole)


def test_a_format_that_does_not_exist_is_named() -> None:
    with pytest.raises(SettingsError) as raised:
        format_of("xml")
    assert raised.value.code == "unknown_format"


def read_rfc_4180(text: str) -> list[list[str]]:
    """By the grammar of RFC 4180, section 2, and nothing else: every record must be all escaped fields, and a line end."""
    field = r'"(?:[^"]|"")*"'
    record = re.compile(rf"{field}(?:,{field})*\r\n")
    rows, position = [], 0
    while position < len(text):
        found = record.match(text, position)
        assert found is not None, text[position : position + 80]
        rows.append([cell[1:-1].replace('""', '"') for cell in re.findall(field, found[0])])
        position = found.end()
    return rows


def test_csv_is_read_back_by_two_readers_and_runs_nothing(records: list[Record], parsed: list[Event]) -> None:
    whole = exported("csv", records).decode()
    rows = list(csv.DictReader(io.StringIO(whole, newline=""), strict=True))
    names, *others = read_rfc_4180(whole)
    assert names == list(csv_rows.COLUMNS)
    assert rows == [dict(zip(names, cells, strict=True)) for cells in others]
    for row, event in zip(rows, parsed, strict=True):
        assert (row["sequence"], row["event_hash"]) == (str(event.sequence), event.event_hash)
        assert json.loads(row["payload"]) == event.payload
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))
    assert rows[0]["agent_id"] == "'" + EVIL.replace("\x00", "")
    assert rows[0]["subject"] == "'@SUM(1)"
    assert rows[0]["tenant"] == "'-2+3"
    assert exported("csv", records).count(b"\r\n") >= len(records) + 1


@pytest.mark.parametrize(
    "text", ["=1", " =1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "\uff1d1", "\0=1", "%0A", "|x"]
)
def test_no_text_begins_as_a_formula(text: str) -> None:
    assert csv_rows._cell(text).startswith("\"'")
    assert csv_rows._cell(-5) == '"-5"', "our own numbers are numbers"


# RFC 5424, section 6, from its ABNF; UTF-8 text only with its mark.
_PRINT = r"[!-~]"
_PARAM = r"[!#-<>-\\^-~]{1,32}"
_VALUE = r'(?:[^"\\\]]|\\.)*'
_ELEMENT = rf'\[{_PARAM}(?: {_PARAM}="{_VALUE}")*\]'
_SYSLOG = re.compile(
    rf"<(?P<pri>[0-9]{{1,3}})>1 (?P<time>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9:]{{8}}\.[0-9]{{1,6}}Z) (?P<host>{_PRINT}{{1,255}}) "
    rf"(?P<app>{_PRINT}{{1,48}}) (?P<proc>{_PRINT}{{1,128}}) (?P<msgid>{_PRINT}{{1,32}}) (?P<sd>-|(?:{_ELEMENT})+)"
    r"(?: \ufeff(?P<msg>.*))?",
    re.DOTALL,
)


def test_syslog_meets_the_grammar_and_keeps_what_it_says(records: list[Record], parsed: list[Event]) -> None:
    for record, event in zip(records, parsed, strict=True):
        message = syslog.message(record, "host.example").decode()
        found = _SYSLOG.fullmatch(message)
        assert found is not None, message
        assert 13 * 8 <= int(found["pri"]) < 14 * 8
        assert (found["host"], found["app"], found["time"]) == ("host.example", "cra-mcp", event.timestamp)
        pairs = dict(re.findall(rf'({_PARAM})="({_VALUE})"', found["sd"]))
        assert pairs["hash"] == event.event_hash
        assert found["sd"].startswith("[cra@32473 ")
        unescaped = re.sub(r"\\(.)", r"\1", pairs["agent"])
        assert unescaped == "".join(part if part.isprintable() else "?" for part in EVIL)
    assert json.loads(_SYSLOG.fullmatch(syslog.message(records[1], "h").decode())["msg"]) == parsed[1].payload


def test_a_syslog_message_that_is_too_long_is_cut_between_characters(records: list[Record]) -> None:
    for size in range(700, 760):
        cut = syslog.message(records[0], "host", size)
        assert size - 3 <= len(cut) <= size
        cut.decode()
    assert syslog.message(records[0], "host", 100_000) == syslog.message(records[0], "host")
    assert re.fullmatch(r"[!-~]{1,255}", syslog.host_name())


def read_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """As the guide says: seven bars not escaped, then ``key=value`` with escapes for backslash, equals sign and line ends."""
    header = re.match(r"CEF:0(?:\|(?:[^|\\]|\\[|\\])*){6}\|", line)
    assert header is not None
    heads = re.findall(r"(?:^|(?<=\|))((?:[^|\\]|\\[|\\])*)\|", header[0])
    extension = line[header.end() :]
    starts = [(found.start(), found.end()) for found in re.finditer(r"(?:^|(?<= ))[A-Za-z0-9]+(?==)", extension)]
    pairs: dict[str, str] = {}
    for (start, end), following in zip(starts, [*starts[1:], (len(extension) + 1, 0)], strict=True):
        raw = extension[end + 1 : following[0] - 1]
        assert not re.search(r"(?<!\\)(?:\\\\)*=", raw), "an equals sign that is not escaped"
        pairs[extension[start:end]] = re.sub(
            r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), raw
        )
    return heads, pairs


def test_cef_is_read_back_field_by_field(records: list[Record], parsed: list[Event]) -> None:
    for record, event in zip(records, parsed, strict=True):
        heads, pairs = read_cef(cef.line(record).decode())
        assert heads[:4] == ["CEF:0", "CRA", "cra-mcp", "1.0"]
        assert heads[4] == event.event_type
        assert 0 <= int(heads[6]) <= 10
        assert pairs["externalId"] == event.event_id
        assert (pairs["cs4Label"], pairs["cs4"]) == ("eventHash", event.event_hash)
        assert (pairs["cn1Label"], pairs["cn1"]) == ("sequence", str(event.sequence))
        assert pairs["suser"] == "@SUM(1)"
        for name, value in pairs.items():
            if name.endswith("Label"):
                assert name.removesuffix("Label") in pairs, value
    assert read_cef(cef.line(records[9]).decode())[1]["msg"].startswith("action.denied do.delete by no (=cmd|")
    assert json.loads(read_cef(cef.line(records[3]).decode())[1]["cs6"])["action_id"] == "do.read"


def test_leef_is_read_back_attribute_by_attribute(records: list[Record], parsed: list[Event]) -> None:
    for record, event in zip(records, parsed, strict=True):
        version, vendor, product, _, event_id, delimiter, rest = leef.line(record).decode().split("|", 6)
        assert (version, vendor, product, event_id) == ("LEEF:2.0", "CRA", "cra-mcp", event.event_type)
        assert delimiter == "x09"
        pairs = dict(attribute.split("=", 1) for attribute in rest.split("\t"))
        assert pairs["eventHash"] == event.event_hash
        assert pairs["usrName"] == "@SUM(1)"
        assert 1 <= int(pairs["sev"]) <= 10
        assert pairs["devTime"].isdecimal()
        assert json.loads(pairs["payload"]).keys() == {leef.clean(key) for key in event.payload}


def test_what_is_said_of_an_event_is_the_same_in_all_formats(records: list[Record]) -> None:
    by_type = {record.event.event_type: record for record in records}
    assert (by_type["action.executed"].outcome, by_type["action.executed"].severity) == ("success", "informational")
    assert (by_type["action.denied"].outcome, by_type["action.denied"].severity) == ("failure", "medium")
    assert (by_type["policy.violated"].severity, by_type["action.failed"].severity) == ("high", "low")
    assert by_type["approval.requested"].outcome == "unknown"
    assert all(record.message.isprintable() and len(record.message) <= 500 for record in records)
    assert by_type["session.ended"].time_ns - by_type["session.started"].time_ns == 15_000_000


def test_what_is_no_event_or_no_time_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(TraceError):
        Recorder().record(b"{}")
    with pytest.raises(TraceError) as raised:
        Recorder().record(lines[0].replace(b'"timestamp":"2025-10-09', b'"timestamp":"2025-02-31'))
    assert raised.value.code == "malformed_event"


def test_events_whose_session_was_not_seen_from_its_start_have_no_agent(lines: list[bytes]) -> None:
    record = Recorder().record(lines[-1])
    assert record.origin.agent_id is None
    for name in FORMATS:
        assert exported(name, [record])
