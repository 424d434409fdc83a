"""What a trace, a server or a stranger's window tries on the trace page."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from cra_mcp.faces.mcp import app
from cra_mcp.trace.event import REQUIRED_FIELDS
from tests.faces.mcp.app import made
from tests.faces.mcp.app.conftest import Serve
from tests.faces.mcp.app.harness import Shown, ask, shown

LEAK = "/leak"
ATTACKS = [
    '<img src=/leak onerror="top.pwned=1;window.pwned=1">',
    "<script>window.pwned=1;fetch('/leak')</script>",
    "</script><script>window.pwned=1</script>",
    "</style><style>*{background:url(/leak)}</style>",
    "--><svg onload=window.pwned=1><use href=/leak#x>",
    "<iframe srcdoc='<script>top.pwned=1</script>'></iframe>",
    '<a href="javascript:window.pwned=1">click</a><form action=/leak><button>go',
    "<base href=/leak><link rel=stylesheet href=/leak><meta http-equiv=refresh content='0;url=/leak'>",
    '"><input autofocus onfocus=window.pwned=1 x="',
    "'-alert(1)-'${window.pwned=1}{{constructor.constructor('window.pwned=1')()}}",
    "javascript:window.pwned=1",
    "__proto__",
    "constructor",
    "\u202egpj.exe\u2066 \u200b\u2028 \x1b[2J \x00",
    "e" + "\u0301" * 500,
    "W" * 3_000,
]
COUNTED = "script, style, link, meta, base, img, iframe, object, embed, form, a, video, audio"


def steps(attacks: list[str]) -> list[made.Step]:
    """Every type of the protocol, with each attack in every field that takes text, and as names of fields."""
    found: list[made.Step] = []
    for call, attack in enumerate(attacks):
        around = {
            "parameters": {attack: [attack, {attack: attack}]},
            "reason": attack,
            "error_message": attack,
            "by": attack,
            "summary": attack,
            attack: attack,
        }
        for event_type, names in REQUIRED_FIELDS.items():
            found.append((event_type, {**around, **dict.fromkeys(names, attack)}, call))
    odd = {"action_id": {"not": "text"}, "duration_ms": "no", "policy_id": attacks}
    return [*found, ("x.www.evil-example.com", odd, 99)]


def sane(page: Shown, before: dict[str, int]) -> None:
    assert page.harm() == []
    assert [frame.evaluate("window.pwned") for frame in page.page.frames] == [None, None]
    assert page.run(f"({COUNT})()") == before, "nothing but text was made of it"
    assert page.run("Object.keys(Object.prototype).length") == 0
    assert [path for path in page.site.asked if path not in {"/", "/view"}] == []


COUNT = f"""() => {{
  const count = {{}};
  for (const found of document.querySelectorAll("{COUNTED}")) count[found.localName] = (count[found.localName] ?? 0) + 1;
  return count;
}}"""


OPEN_ALL = """async (count) => {
  const viewport = document.getElementById("viewport");
  const press = (key) => viewport.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  press("Home");
  press("Enter");
  const seen = [];
  for (let index = 0; index < count; index += 1) {
    const body = document.getElementById("detail-body");
    while (!/computed here|Stored line/.test(body.textContent)) await new Promise((resolve) => setTimeout(resolve));
    seen.push(document.getElementById("detail-number").textContent);
    press("ArrowDown");
  }
  return seen;
}"""


@pytest.mark.parametrize("group", range(4))
def test_text_of_a_trace_stays_text(browser: Browser, serve: Serve, group: int) -> None:
    attacks = ATTACKS[group::4]
    lines = made.chain(steps(attacks))
    with shown(browser, serve(lines)) as page:
        assert page.state == "ok"
        before = page.run(f"({COUNT})()")
        assert page.run(OPEN_ALL, len(lines)) == [f"#{index}" for index in range(len(lines))]
        text = page.text("body")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u2028\x00\x1b]", text), (
            "what steers or hides is written out"
        )
        for attack in attacks:
            page.view.locator("#search").fill(attack[:40].replace("\x00", ""))
        page.view.locator("#types").select_option(index=3)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        sane(page, before)


def test_lines_that_are_no_events_stay_text(browser: Browser, serve: Serve) -> None:
    good = made.chain(made.session())
    events = [json.dumps({"event_type": attack}).encode() for attack in ATTACKS]
    lines = [good[0], *events, *(attack.encode() for attack in ATTACKS)]
    with shown(browser, serve(lines)) as page:
        assert page.state == "bad"
        before = page.run(f"({COUNT})()")
        assert page.text("#headline") == "Tampered at event 1: malformed_event"
        assert page.run(OPEN_ALL, len(lines)) == [f"#{index}" for index in range(len(lines))]
        sane(page, before)


@pytest.mark.parametrize("attack", ATTACKS[:4], ids=range(4))
def test_what_the_server_says_stays_text(browser: Browser, serve: Serve, attack: str) -> None:
    wire = serve(made.chain(made.session()))
    row = {
        "sequence": attack,
        "timestamp": attack,
        "event_type": attack,
        "action_id": attack,
        "decision": attack,
        "policy_id": attack,
        "duration_ms": attack,
    }
    result = {
        "content": [{"type": "text", "text": attack}],
        "structuredContent": {
            "session_id": attack,
            "verification": {"ok": False, "code": attack, "message": attack, "bad_index": attack, "head": attack},
            "events": [row, None, 7, attack, {**row, "decision": "__proto__"}],
        },
    }

    def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
        return {"result": result} if method == "tools/call" else {"error": {"code": -1, "message": attack}}

    with shown(browser, wire, answer=answer) as page:
        assert page.state == "unchecked"
        before = page.run(f"({COUNT})()")
        page.row(0).click()
        expect(page.view.locator("#detail")).to_be_visible()
        sane(page, before)
        for method in ("ui/notifications/tool-result", "ui/notifications/host-context-changed"):
            for params in (
                {"isError": True, "content": [{"type": "text", "text": attack}]},
                {"structuredContent": attack},
                {"theme": attack},
            ):
                page.tell({"method": method, "params": params})
        expect(page.view.locator("#app")).to_have_attribute("data-state", "failed")
        sane(page, before)


def test_messages_that_are_not_of_the_host_or_not_of_the_protocol_change_nothing(
    browser: Browser, serve: Serve
) -> None:
    wire = serve(made.chain(made.session()))
    with shown(browser, wire) as page:
        page.settled()
        before = page.run(f"({COUNT})()")
        forged = {"jsonrpc": "2.0", "method": "ui/notifications/tool-cancelled", "params": {"reason": "x"}}
        page.run("message => window.postMessage(message, '*')", forged)
        for junk in (
            None,
            7,
            "text",
            [],
            {},
            {"jsonrpc": "1.0", "method": "ui/notifications/tool-cancelled"},
            {"jsonrpc": "2.0", "id": 999},
        ):
            page.page.evaluate(
                "message => document.querySelector('iframe').contentWindow.postMessage(message, '*')", junk
            )
        page.tell({"id": 500, "method": "ping", "params": {}})
        page.page.wait_for_function("log.some((message) => message.id === 500)")
        assert page.text("#headline") == "Chain intact"
        sane(page, before)


def test_a_host_that_answers_with_junk_leaves_nothing_green(browser: Browser, serve: Serve) -> None:
    wire = serve(made.chain(made.session()))
    honest = ask(wire)
    for junk in ({}, {"contents": []}, {"contents": [{"text": 7}]}, {"contents": [{"blob": "%%%"}]}, "text"):

        def answer(method: str, params: dict[str, Any], junk: Any = junk) -> dict[str, Any]:
            # Both roads to the lines: where one gives junk, the other is taken.
            lines = method == "resources/read" or params.get("arguments", {}).get("format") == "jsonl"
            return {"result": junk} if lines else honest(method, params)

        with shown(browser, wire, answer=answer) as page:
            assert page.state == "unchecked"
            assert page.harm() == []


# --- the document itself --------------------------------------------------------------------------------------------


def test_the_document_is_the_same_every_time_and_holds_nothing_that_loads_or_runs_by_itself() -> None:
    html = app.page()
    app.page.cache_clear()
    assert app.page() == html
    assert "{{" not in html
    markup = re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.DOTALL)
    assert not re.search(r"\s(on\w+|style|src)\s*=", markup), "handlers, styles and addresses stand in no attribute"
    assert set(re.findall(r"href=\"([^\"]*)\"", markup)) == set()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    policy = re.findall(r"http-equiv=\"Content-Security-Policy\" content=\"([^\"]+)\"", html)[0]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == len(app.SCRIPTS) + 1
    assert html.count("<script>") == html.count("</script>") == len(app.SCRIPTS)


def test_the_scripts_use_nothing_that_makes_markup_or_code_of_text() -> None:
    html = app.page()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "srcdoc",
    ):
        assert word not in html
    for word in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "sendBeacon",
        "EventSource",
        "localStorage",
        "document.cookie",
        "import(",
    ):
        assert word not in html


def test_its_own_policy_stops_a_script_that_gets_into_it(browser: Browser, serve: Serve) -> None:
    with shown(browser, serve(made.chain(made.session()))) as page:
        page.settled()
        page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
        page.run(
            "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.pwned=1' }))"
        )
        page.page.wait_for_function("window.frames.length === 1")
        assert page.run("window.pwned") is None
        assert page.harm() != [], "and the test would notice a refusal"
