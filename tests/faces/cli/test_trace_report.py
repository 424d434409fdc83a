"""``trace report``: one HTML file that tells a session truthfully, needs nothing else, and in which nothing runs."""

import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from cra_mcp import CRARuntime
from cra_mcp.faces.cli.evidence import Evidence
from cra_mcp.faces.cli.kept_atlases import KeptAtlases
from cra_mcp.faces.cli.page import page
from cra_mcp.faces.cli.verifying import Found
from cra_mcp.trace.diagnosis import diagnose
from cra_mcp.trace.event import verify
from tests.faces.cli.conftest import cra
from tests.faces.mcp.app import made
from tests.faces.mcp.app.conftest import browser as browser  # noqa: PLC0414 - a fixture
from tests.faces.mcp.conftest import Place
from tests.trace import hostile

KNOWN = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "code",
        "section",
        "strong",
        "b",
        "span",
    ),
    *("dl", "dt", "dd", "bdi", "article", "div", "a", "table", "thead", "tbody", "tr", "th", "td", "footer"),
}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "colspan"}
EMPTY = {"meta"}


class Parsed(HTMLParser):
    """A document as a parser sees it: tags in balance, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def check(self) -> None:
        """Only what a report is made of, and no reference to anything outside it."""
        assert {tag for tag, _ in self.tags} <= KNOWN
        for tag, attributes in self.tags:
            assert attributes.keys() <= ATTRIBUTES, (tag, attributes)
            if "href" in attributes:
                assert re.fullmatch(r"#e[0-9]+", attributes["href"] or "")


def reported(lines: list[bytes]) -> str:
    check = verify(lines)
    found = Found("a trace", check, diagnose(lines, check), Evidence("none"), None, lines)
    return "".join(page(found, KeptAtlases(Path("/nowhere/at/all")), made="Made by a test"))


def said(text: str) -> str:
    return " ".join(" ".join(Parsed(text).text).split())


def test_a_report_says_whether_the_chain_holds_what_happened_and_every_hash() -> None:
    lines = made.chain(made.session(calls=1))
    text = reported(lines)
    Parsed(text).check()
    told = said(text)
    assert f"Intact: {len(lines)} events" in told
    assert "support-bot" in told
    assert "denied by deny-delete: Nothing is deleted through support: open a ticket instead." in told
    assert "granted by ann over elicitation (client_elicitation)" in told
    assert all(json.loads(line)["event_hash"] in told for line in lines)
    assert "not proven" not in told
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|https?:|//", style[1])


def test_a_report_of_a_changed_trace_says_so_first_and_at_every_part_it_bears_on() -> None:
    lines = made.chain(made.session(calls=1))
    changed = made.changed(lines, 9, lambda event: event["payload"].update(result="allow"))
    told = said(reported(changed))
    assert told.index("Broken at event 9: hash_mismatch (edited)") < told.index("What happened")
    read, deleted, refunded = (told.index(f"{place} 14:13:20") for place in ("#4-7", "#8-11", "#12-17"))
    assert "not proven" not in told[:deleted]
    assert read < deleted
    assert "not proven" in told[deleted:refunded]
    assert "not proven" in told[refunded : told.index("Events")]
    text = reported(changed)
    assert (text.count('class="bad"><td class=number>'), text.count('class="unproven"')) == (1, len(lines) - 10)
    cut = said(reported([*lines[:4], b"junk", *lines[5:]]))
    assert ("Broken at event 4: malformed_event" in cut, "unreadable: " in cut) == (True, True)
    assert "Intact: 0 events" in said(reported([]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_in_a_trace_becomes_markup(seed: int) -> None:
    lines = hostile.lines(seed)
    text = reported(lines)
    Parsed(text).check()
    assert all(part.isprintable() for part in text.split("\n"))
    assert text.count("<tr") == len(lines) + 1 + (verify(lines).bad_index == len(lines))


def test_in_a_browser_a_hostile_report_runs_and_loads_nothing(browser: Browser, tmp_path: Path) -> None:
    steps: list[made.Step] = []
    for call, attack in enumerate(hostile.ATTACKS):
        steps += [made.opening(attack, attack), *made.denied(call, attack, attack), ("x.note", {"summary": attack}, 0)]
    file = tmp_path / "report.html"
    file.write_text(reported(made.chain(steps)), encoding="utf-8")
    context = browser.new_context()
    opened = context.new_page()
    asked: list[str] = []
    told: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: told.append(message.text))
    opened.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert told == [], "the policy of the report names its style, and stopped nothing"
    assert opened.evaluate("window.pwned") is None
    assert opened.evaluate("document.querySelectorAll('script, img, svg, iframe, link, form, base').length") == 0
    assert opened.evaluate("getComputedStyle(document.querySelector('table')).tableLayout") == "fixed"
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # Beyond what is escaped, the policy: what is put in by force does not run either.
    opened.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=1>')")
    opened.wait_for_function("document.images[0].complete")
    assert opened.evaluate("window.pwned") is None
    assert any("Content Security Policy" in text for text in told)
    context.close()


@pytest.fixture
def trace(place: Place, server: CRARuntime) -> Path:
    """An ended session with a call that ran."""
    session = server.create_session("ann", "Read what is there").session_id
    server.execute_blocking(session, "tool.add", {"a": 1, "b": 2})
    server.end_session(session)
    return place.data / "traces" / f"{session}.trace.jsonl"


def test_a_report_is_a_new_file_for_its_owner_and_names_the_checkpoints(place: Place, trace: Path) -> None:
    where = ("--data-dir", place.data)
    file = place.folder / "report.html"
    done = cra("trace", "report", trace.name[:36], "-o", file, *where, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert (summary["ok"], summary["output"], summary["checkpoints"]["source"]) == (True, str(file), "beside")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = said(file.read_text(encoding="utf-8"))
    assert "Checkpoints: beside the trace, signed by" in told
    assert "the end of the session is among these events" in told
    again = cra("trace", "report", "latest", "-o", file, *where)
    assert (again.returncode, "is there already" in again.stderr) == (3, True)


def test_a_broken_trace_is_reported_with_exit_code_1(place: Place, trace: Path) -> None:
    copy = place.folder / "copy.trace.jsonl"
    copy.write_bytes(trace.read_bytes().replace(b"Read what", b"Wipe what"))
    done = cra("trace", "report", copy, "--data-dir", place.data)
    assert (done.returncode, "the trace is broken" in done.stderr) == (1, True)
    assert "Broken at event 0: hash_mismatch" in said(done.stdout)
    assert cra("trace", "report", copy, "--json").returncode == 2
