"""A trace as a host shows it: JSON lines, table, tool."""

import base64
import json
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal

import jsonschema
import mcp_types as t
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from cra_mcp.faces.mcp import markdown, traces
from cra_mcp.faces.mcp.trace_tool import TOOL
from cra_mcp.trace.event import Head, Verification, verify
from cra_mcp.trace.summary import Summary
from tests.faces.mcp.app import made
from tests.faces.mcp.conftest import Place, Wire, write_atlas

Mode = Literal["legacy", "2026-07-28"]
both_eras = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])

HOSTILE = [
    "a | b || c",
    "\n| 9 | forged | row |\n",
    "`code` ``more`` \\| \\",
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "[link](javascript:alert(1)) ![i](https://evil.example/x.png) https://evil.example www.evil.example a@evil.example",
    "**bold** _it_ # head\r\n- list\n> quote",
    "\u202etxt.exe\u2066\u200b\ufeff\U000e0041\x00\x1b[31m\u2028\u2029",
    "\u3164\u2800\u00a0\u115f\ufe0f",
    "e" + "\u0301" * 40,
    "  ",
    "x" * 5000,
]


def cells(line: str) -> list[str]:
    """The cells of a table row as GitHub Flavored Markdown splits it: at every pipe that has no backslash before it."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def put(place: Place, lines: list[bytes], session_id: str = made.SESSION) -> Path:
    """A trace in the folder of a server that has not started."""
    folder = place.data / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / f"{session_id}.trace.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    path.chmod(0o600)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A server whose caller reads traces as they are stored."""
    return Place(tmp_path, write_atlas(tmp_path / "atlas"), "agent,auditor")


@pytest.fixture
def agents(tmp_path: Path) -> Place:
    """One whose caller reads the view of an agent."""
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


def text_of(result: t.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, t.TextContent)
    return block.text


def structured(result: t.CallToolResult) -> dict[str, Any]:
    found = result.structured_content
    jsonschema.validate(found, TOOL.output_schema or {}, cls=jsonschema.Draft202012Validator)
    assert isinstance(found, dict)
    return found


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_leaves_its_cell_or_stays_unseen(text: str) -> None:
    row = Summary(7, "2026-01-02T03:04:05.000006Z", "x.test", text, "deny", text, 1.5)
    rendered = markdown.table([row], start=7)
    assert rendered.count("\n") == 3
    line = rendered.splitlines()[-1]
    found = cells(line)
    assert len(found) == 7
    for cell in (found[3], found[5]):
        inside = cell.removeprefix("`").removesuffix("`")
        assert cell in {"", f"`{inside}`"}, "what is not in a code span could be markup"
        assert not set(inside) & set("`|\n\r")
        assert len(inside) <= 82
        assert all(unicodedata.category(part) not in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"} for part in inside)
    assert (found[0], found[4], found[6]) == ("7", "deny", "1.5")


def test_a_backslash_is_written_so_that_it_escapes_nothing() -> None:
    assert markdown.code("a\\") == "`a\\u{5c}`"
    assert markdown.code("\u202e|`") == "`\\u{202e}\\u{7c}\\u{60}`"


def test_ordinary_text_in_any_script_stays_as_it_is() -> None:
    for text in ("customer.get", "größer", "日本語", "שלום", "नमस्ते", "é", "🙂 ok"):
        assert markdown.code(text) == f"`{text}`"


def test_the_bad_event_is_marked_and_named_in_the_table() -> None:
    lines = made.changed(made.chain(made.session()), 11, lambda event: event["payload"].update(reason="fine"))
    page = traces.Page(made.SESSION, 0, tuple(lines), more=False)
    text = traces.as_markdown(page, verify(lines), traces.summaries(page), rest=None)
    assert "**Chain broken at event 11: hash_mismatch**" in text
    rows = [cells(line) for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows if row[4].startswith("✗")] == ["11"]
    assert rows[11][4] == "✗ hash_mismatch"


def test_what_is_no_event_has_a_row_of_its_own() -> None:
    lines = made.chain(made.session())
    lines[2] = b'{"sequence": "<b>|"}'
    lines[3] = b"\xff\xfe"
    page = traces.Page(made.SESSION, 0, tuple(lines), more=False)
    text = traces.as_markdown(page, verify(lines), traces.summaries(page), rest=None)
    rows = [cells(line) for line in text.splitlines() if line.startswith("| ")][1:]
    assert [len(row) for row in rows] == [7] * len(lines)
    assert rows[2][2] == rows[3][2] == "unreadable"
    assert rows[2][4] == rows[3][4] == "✗ malformed_event"


def test_an_empty_trace_is_intact_and_has_no_table() -> None:
    page = traces.Page(made.SESSION, 0, (), more=False)
    text = traces.as_markdown(page, Verification(ok=True, events=0), [], rest=None)
    assert text == f"Trace `{made.SESSION}`. Chain intact: 0 events.\n"


def test_the_verdict_names_the_head() -> None:
    check = Verification(ok=True, events=1, head=Head(0, "a" * 64, ""))
    assert markdown.verdict(check) == f"Chain intact: 1 event, head `{'a' * 64}`."


# --- resources ------------------------------------------------------------------------------------------------------


@both_eras
@pytest.mark.anyio
async def test_a_trace_is_read_as_lines_and_as_a_table_in_pages_of_the_same_events(place: Place, mode: Mode) -> None:
    lines = made.chain(made.session())
    put(place, lines)
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        templates = {entry.uri_template: entry for entry in (await client.list_resource_templates()).resource_templates}
        assert templates["cra://trace/{session_id}/table{?after,limit}"].mime_type == "text/markdown"
        base = f"cra://trace/{made.SESSION}"
        uri: str | None = f"{base}/table?limit=20"
        numbers: list[int] = []
        while uri is not None:
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, t.TextResourceContents)
            assert content.mime_type == "text/markdown"
            assert "Chain intact: 43 events" in content.text
            numbers += [int(cells(line)[0]) for line in content.text.splitlines() if re.match(r"\| \d", line)]
            uri = (content.meta or {}).get("dev.cra/next")
            assert uri is None or f"`{uri}`" in content.text
        assert numbers == list(range(43))
        (content,) = (await client.read_resource(f"{base}?after=39")).contents
        assert isinstance(content, t.TextResourceContents)
        assert content.text.encode() == b"".join(line + b"\n" for line in lines[40:])
        assert content.mime_type == "application/vnd.cra.trace+jsonl"
        reference = t.ResourceTemplateReference(type="ref/resource", uri="cra://trace/{session_id}/table{?after,limit}")
        completed = await client.complete(reference, {"name": "session_id", "value": made.SESSION[:8]})
        assert completed.completion.values == [made.SESSION]
        for bad in (f"{base}/table?after=x", f"{base}/table?limit=0", f"{base}/tables", "cra://trace/nobody/table"):
            with pytest.raises(MCPError):
                await client.read_resource(bad)
    assert len(place.traces()) == 1, "reading starts no session"


@pytest.mark.anyio
async def test_lines_that_are_not_text_travel_as_they_are(place: Place) -> None:
    lines = made.chain(made.session())
    lines[5] = lines[5].replace(b"allow-read", b"allow-\xff\xfe")
    put(place, lines)
    async with Client(place.parameters(), mode="legacy", cache=None) as client:
        (content,) = (await client.read_resource(f"cra://trace/{made.SESSION}")).contents
        assert isinstance(content, t.BlobResourceContents)
        assert base64.b64decode(content.blob) == b"".join(line + b"\n" for line in lines)
        (one,) = (await client.read_resource(f"cra://trace/{made.SESSION}/5")).contents
        assert isinstance(one, t.BlobResourceContents)
        assert base64.b64decode(one.blob) == lines[5]
        (table,) = (await client.read_resource(f"cra://trace/{made.SESSION}/table")).contents
        assert isinstance(table, t.TextResourceContents)
        assert "**Chain broken at event 5: malformed_event**" in table.text


@pytest.mark.anyio
async def test_an_answer_stays_under_its_limit_however_large_the_events(place: Place) -> None:
    big = [("x.big", {"text": "y" * 60_000}, 0)] * 30
    lines = made.chain([made.opening(), *big])
    put(place, lines)
    async with Client(place.parameters(), mode="legacy", cache=None) as client:
        uri: str | None = f"cra://trace/{made.SESSION}"
        found: list[str] = []
        while uri is not None:
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, t.TextResourceContents)
            assert len(content.text) <= 524_288
            found += content.text.splitlines()
            uri = (content.meta or {}).get("dev.cra/next")
        assert [line.encode() for line in found] == lines


# --- the tool -------------------------------------------------------------------------------------------------------


@both_eras
@pytest.mark.anyio
async def test_the_tool_is_listed_as_reading_only_and_names_its_page(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        tool = tools["cra_trace"]
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
        assert tool.output_schema is not None
        assert (tool.meta or {})["ui"]["resourceUri"] == "ui://cra/trace"
    async with Client(place.parameters("--control-tools", "none"), mode=mode, cache=None) as client:
        assert "cra_trace" not in {tool.name for tool in (await client.list_tools()).tools}


@both_eras
@pytest.mark.anyio
async def test_the_tool_tells_of_this_session_without_recording_anything(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        nothing = await client.call_tool("cra_trace", {})
        assert nothing.is_error
        assert "no session" in text_of(nothing)
        assert place.traces() == []
        called = await client.call_tool("tool_add", {"a": 2, "b": 3})
        before = place.traces()[0].read_bytes()
        result = await client.call_tool("cra_trace", {})
        assert place.traces()[0].read_bytes() == before
        found = structured(result)
        receipt = (called.meta or {})["dev.cra/receipt"]
        assert found["session_id"] == receipt["session_id"]
        assert found["verification"]["ok"] is True
        assert found["verification"]["head"]["event_hash"] == receipt["event_hash"]
        executed = found["events"][-1]
        assert (executed["event_type"], executed["action_id"], executed["decision"]) == (
            "action.executed",
            "tool.add",
            "allow",
        )
        assert executed["duration_ms"] >= 0
        assert "Chain intact" in text_of(result)
        assert "`tool.add`" in text_of(result)


@pytest.mark.anyio
async def test_the_tool_shows_the_newest_events_and_pages_from_the_start(place: Place) -> None:
    lines = made.chain(made.session())
    put(place, lines)
    async with Client(place.parameters(), mode="legacy", cache=None) as client:
        newest = structured(await client.call_tool("cra_trace", {"session_id": made.SESSION}))
        assert [event["sequence"] for event in newest["events"]] == list(range(23, 43))
        assert newest["next"] is None
        seen: list[int] = []
        after: int | None = -1
        while after is not None:
            result = await client.call_tool("cra_trace", {"session_id": made.SESSION, "after": after, "limit": 17})
            found = structured(result)
            seen += [event["sequence"] for event in found["events"]]
            after = found["next"]
            assert (f"after {after}" in text_of(result)) == (after is not None)
        assert seen == list(range(43))
        raw = await client.call_tool(
            "cra_trace", {"session_id": made.SESSION, "format": "jsonl", "after": 9, "limit": 5}
        )
        assert text_of(raw).encode() == b"".join(line + b"\n" for line in lines[10:15])
        assert structured(raw)["next"] == 14


@pytest.mark.anyio
async def test_the_tool_reports_a_tampered_trace_and_a_foreign_id(place: Place) -> None:
    put(place, made.changed(made.chain(made.session()), 11, lambda event: event["payload"].update(reason="fine")))
    async with Client(place.parameters(), mode="legacy", cache=None) as client:
        result = await client.call_tool("cra_trace", {"session_id": made.SESSION, "after": -1})
        check = structured(result)["verification"]
        assert (check["ok"], check["bad_index"], check["code"], check["events"]) == (False, 11, "hash_mismatch", 11)
        assert "**Chain broken at event 11: hash_mismatch**" in text_of(result)
        assert result.is_error is False, "that a trace is broken is the answer, not a failure"
        for bad in (
            {"session_id": made.identifier(9)},
            {"session_id": "../../etc/passwd"},
            {"limit": 0},
            {"format": "html"},
        ):
            assert (await client.session.call_tool("cra_trace", bad)).is_error


@both_eras
@pytest.mark.anyio
async def test_an_agent_reads_a_view_in_which_hidden_calls_look_like_unknown_ones(agents: Place, mode: Mode) -> None:
    async with Client(agents.parameters(), mode=mode, cache=None) as client:
        session = structured_receipt(await client.call_tool("tool_echo", {"a": 1}))
        for name in ("tool_secret", "tool_nowhere"):
            with pytest.raises(MCPError):
                await client.session.call_tool(name, {"password": "hunter2"})
        as_table = await client.call_tool("cra_trace", {"limit": 8})
        as_lines = await client.call_tool("cra_trace", {"after": -1, "limit": 100, "format": "jsonl"})
        (read,) = (await client.read_resource(f"cra://trace/{session}")).contents
        (one,) = (await client.read_resource(f"cra://trace/{session}/3")).contents
        (table,) = (await client.read_resource(f"cra://trace/{session}/table")).contents
    assert isinstance(read, t.TextResourceContents)
    assert isinstance(one, t.TextResourceContents)
    assert isinstance(table, t.TextResourceContents)
    assert (read.mime_type, one.mime_type) == (
        "application/vnd.cra.trace-view+jsonl",
        "application/vnd.cra.trace-view+json",
    )
    assert read.text == text_of(as_lines)
    assert one.text == read.text.splitlines()[3]
    for text in (text_of(as_table), read.text, table.text):
        assert not re.search("hide|tool\\.secret|event_hash|event_id|hunter2", text)
    events = structured(as_table)["events"]
    names = [(each["event_type"], each["action_id"], each["decision"], each["policy_id"]) for each in events]
    assert [tuple(str(part).replace("secret", "nowhere") for part in each) for each in names[:4]] == [
        tuple(map(str, each)) for each in names[4:]
    ]
    assert ("action.denied", "tool_nowhere", "deny", "undeclared") in names
    shown = [json.loads(line) for line in read.text.splitlines()]
    assert [each["sequence"] for each in shown] == list(range(len(agents.events()) - 1)), "session.ended came after it"
    check = structured(as_lines)["verification"]
    assert (check["ok"], check["events"]) == (True, len(shown))


@pytest.mark.anyio
async def test_a_tampered_trace_is_told_to_an_agent_at_its_place_in_the_view(agents: Place) -> None:
    lines = made.changed(made.chain(made.session()), 11, lambda event: event["payload"].update(reason="fine"))
    lines[20] = b"\xff not json"
    put(agents, lines)
    async with Client(agents.parameters(), mode="legacy", cache=None) as client:
        result = await client.call_tool("cra_trace", {"session_id": made.SESSION, "after": -1, "limit": 100})
        check = structured(result)["verification"]
        assert (check["ok"], check["bad_index"], check["code"]) == (False, 11, "hash_mismatch")
        assert structured(result)["events"][20]["event_type"] == "unreadable"
        assert "not json" not in text_of(result)
        assert len(structured(result)["events"]) == len(lines)


def structured_receipt(result: t.CallToolResult) -> str:
    """The session a call was recorded in."""
    return (result.meta or {})["dev.cra/receipt"]["session_id"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "cra_trace", "arguments": {"session_id": made.SESSION}}),
        ("resources/read", {"uri": f"cra://trace/{made.SESSION}/table?limit=1"}),
        ("resources/read", {"uri": f"cra://chain/{made.SESSION}"}),
    ],
)
def test_a_long_trace_holds_nobody_up(wire: Wire, place: Place, method: str, params: dict[str, Any]) -> None:
    put(place, made.chain(made.session(10_000)))
    wire.initialize()
    request = {"jsonrpc": "2.0", "id": "long", "method": method, "params": params}
    wire.send(json.dumps(request).encode())
    wire.send(b'{"jsonrpc":"2.0","id":"short","method":"ping"}')
    assert [wire.read()["id"], wire.read()["id"]] == ["short", "long"]


# --- what a person can pick -----------------------------------------------------------------------------------------


@both_eras
@pytest.mark.anyio
async def test_the_current_trace_and_the_newest_ones_can_be_picked_from_the_list(agents: Place, mode: Mode) -> None:
    hostile = "Refund\u202e \x1b[31m\u2028 two\nlines " + "x" * 200
    for number in range(12):
        session_id = made.identifier(0x100 + number)
        put(
            agents,
            made.chain([made.opening(goal=hostile if number == 11 else f"Goal {number}")], session_id=session_id),
            session_id,
        )
    async with Client(agents.parameters(), mode=mode, cache=None) as client:
        listed = (await client.list_resources()).resources
        assert {"cra://trace/current", "cra://trace/current/table"} <= {each.uri for each in listed}
        newest = [each for each in listed if each.name.startswith("trace:")]
        assert [each.name for each in newest] == [f"trace:{made.identifier(0x100 + each)}" for each in range(11, 1, -1)]
        titles = [each.title or "" for each in newest]
        assert titles[1] == "Goal 10 (2026-09-21 14:13 UTC)"
        assert not any(unicodedata.category(part)[0] == "C" or part in "\u2028\u2029" for part in "".join(titles))
        assert max(map(len, titles)) < 90
        for uri, text in (("cra://trace/current", ""), ("cra://trace/current/table", "No session has begun yet")):
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, t.TextResourceContents)
            assert content.uri == uri
            assert content.text.startswith(text)
        assert len(agents.traces()) == 12, "nothing has begun"
        session = structured_receipt(await client.call_tool("tool_echo", {"n": 1}))
        for part in ("", "/table", "/2", "?after=1&limit=1"):
            (mine,) = (await client.read_resource(f"cra://trace/current{part}")).contents
            (same,) = (await client.read_resource(f"cra://trace/{session}{part}")).contents
            assert isinstance(mine, t.TextResourceContents)
            assert isinstance(same, t.TextResourceContents)
            assert (mine.text, mine.mime_type) == (same.text, same.mime_type)
            assert mine.uri == f"cra://trace/current{part}"
        again = (await client.list_resources()).resources
        assert next(each.name for each in again if each.name.startswith("trace:")) == f"trace:{session}"
        assert (await client.list_resources()).resources == again, "it stays the same while nothing begins"
        (table,) = (await client.read_resource(newest[1].uri)).contents
        assert isinstance(table, t.TextResourceContents)
        assert "Chain intact: 1 event" in table.text


# --- the page as a resource -----------------------------------------------------------------------------------------


@both_eras
@pytest.mark.anyio
async def test_the_page_is_listed_and_read_as_the_specification_wants(place: Place, mode: Mode) -> None:
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        listed = {resource.uri: resource for resource in (await client.list_resources()).resources}
        assert listed["ui://cra/trace"].mime_type == "text/html;profile=mcp-app"
        (content,) = (await client.read_resource("ui://cra/trace")).contents
        assert isinstance(content, t.TextResourceContents)
        assert content.mime_type == "text/html;profile=mcp-app"
        assert content.text.startswith("<!DOCTYPE html>")
        ui = (content.meta or {})["ui"]
        assert ui["csp"] == {"connectDomains": [], "resourceDomains": []}
        assert "permissions" not in ui


def test_the_extension_is_announced_where_the_era_has_extensions(wire: Wire) -> None:
    capabilities = wire.request("server/discover", modern=True)["result"]["capabilities"]
    assert capabilities["extensions"]["io.modelcontextprotocol/ui"] == {}


def test_a_tampered_line_never_fails_the_server(wire: Wire, place: Place) -> None:
    lines = made.chain(made.session())
    put(place, [lines[0], b"\x00\xff" * 300, b"{}", b'{"a":"\\ud800"}', b"[" * 5000, *lines[1:]])
    wire.initialize()
    for uri in (f"cra://trace/{made.SESSION}", f"cra://trace/{made.SESSION}/table", f"cra://chain/{made.SESSION}"):
        assert "result" in wire.request("resources/read", {"uri": uri})
    answer = wire.call("cra_trace", {"session_id": made.SESSION, "after": -1})["result"]
    assert answer["structuredContent"]["verification"]["bad_index"] == 1
    assert [event["event_type"] for event in answer["structuredContent"]["events"][1:5]] == ["unreadable"] * 4
