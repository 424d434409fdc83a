"""The trace page in a real browser, under a host that speaks the protocol of MCP Apps to it."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from cra_mcp.trace.event import verify
from tests.faces.mcp.app import made
from tests.faces.mcp.app.conftest import Serve
from tests.faces.mcp.app.harness import Shown, ask, shown

BAD = 11
THEMES = ("light", "dark")
_LUMINANCE = """
(selectors) => {
  const parse = (text) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)" && !colour.includes("/ 0")) return colour;
    }
    return "white";
  };
  return Object.fromEntries(selectors.map((selector) => {
    const element = document.querySelector(selector);
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(parse(behind(element)))];
    return [selector, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  }));
}
"""


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    return made.chain(made.session())


@pytest.fixture(scope="module")
def tampered(good: list[bytes]) -> list[bytes]:
    return made.changed(good, BAD, lambda event: event["payload"].update(reason="Deleting is fine."))


def is_red(colour: str) -> bool:
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])
    return red > 1.5 * green and red > 1.5 * blue


# --- the verdict ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", THEMES)
def test_a_good_trace_is_said_to_be_intact(browser: Browser, serve: Serve, good: list[bytes], theme: str) -> None:
    with shown(browser, serve(good), context={"theme": theme}) as page:
        assert page.state == "ok"
        assert page.text("#headline") == "Chain intact"
        assert "43 events" in page.text("#explanation")
        assert "kept elsewhere" not in page.text("#explanation"), "the server's head was reached"
        assert page.text("[data-decision=deny]").split() == ["Denied", "3"]
        assert page.run("getComputedStyle(document.body).colorScheme") == theme
        assert page.view.locator(".is-bad, .unproven").count() == 0
        assert page.harm() == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [1100, 400])
def test_a_tampered_event_is_red_and_named(
    browser: Browser, serve: Serve, tampered: list[bytes], theme: str, width: int
) -> None:
    with shown(browser, serve(tampered), context={"theme": theme}, width=width) as page:
        assert page.state == "bad"
        assert page.text("#headline") == f"Tampered at event {BAD}: hash_mismatch"
        assert "11 events before it hold. 31 events after it are unproven." in page.text("#explanation")
        row = page.row(BAD)
        expect(row).to_be_in_viewport()
        assert row.locator(".pill").inner_text() == "hash_mismatch", "the code stands where the decision would"
        assert is_red(row.locator(".type").evaluate("element => getComputedStyle(element).color"))
        assert is_red(row.locator(".pill").evaluate("element => getComputedStyle(element).backgroundColor"))
        assert is_red(page.view.locator("#headline").evaluate("element => getComputedStyle(element).color"))
        assert "unproven" in (page.row(BAD + 1).get_attribute("class") or "")
        assert "unproven" not in (page.row(BAD - 1).get_attribute("class") or "")
        page.view.locator("#goto-bad").click()
        expect(page.view.locator("#detail .notice")).to_contain_text("hash_mismatch")
        expect(page.view.locator("#detail .mismatch")).to_contain_text("not the same")
        expect(page.view.locator("#detail-body")).to_contain_text("Deleting is fine.")
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs out"
        assert page.harm() == []


@pytest.mark.parametrize("theme", THEMES)
def test_every_tone_can_be_read_and_told_apart_without_colour(
    browser: Browser, serve: Serve, tampered: list[bytes], theme: str
) -> None:
    with shown(browser, serve(tampered), context={"theme": theme}, height=1800) as page:
        page.settled()
        page.view.locator("#close").click()
        tones = ("allow", "deny", "bad")
        ratios = page.run(
            _LUMINANCE, [*(f".row:not(.unproven) .tone-{tone}" for tone in tones), "#headline", "#explanation"]
        )
        assert {selector: ratio for selector, ratio in ratios.items() if ratio < 4.5} == {}
        signs = page.run("[...document.querySelectorAll('.toggle use')].map((use) => use.getAttribute('href'))")
        assert len(set(signs)) == 4
        words = page.run("[...document.querySelectorAll('.toggle .word')].map((word) => word.textContent)")
        assert words == ["Allowed", "Denied", "Approval", "Error"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda lines: [*lines[:9], *lines[10:]], "chain_broken"),
        (lambda lines: [*lines[:9], lines[10], lines[9], *lines[11:]], "chain_broken"),
        (lambda lines: lines[1:], "invalid_genesis"),
        (
            lambda lines: [*lines[:9], lines[9].replace(b'"sequence":9', b'"sequence":"9"'), *lines[10:]],
            "malformed_event",
        ),
        (lambda lines: [*lines[:9], lines[9][:40] + b"\xff\xfe" + lines[9][42:], *lines[10:]], "malformed_event"),
    ],
)
def test_whatever_was_changed_the_page_names_what_the_server_names(
    browser: Browser, serve: Serve, good: list[bytes], change: Any, code: str
) -> None:
    lines = change(good)
    expected = verify(lines, session_id=made.SESSION)
    assert expected.code == code
    with shown(browser, serve(lines)) as page:
        assert page.state == "bad"
        assert page.text("#headline") == f"Tampered at event {expected.bad_index}: {code}"
        assert page.harm() == []


def test_a_tail_that_the_host_does_not_get_is_reported_from_the_server(
    browser: Browser, serve: Any, good: list[bytes]
) -> None:
    with shown(browser, serve(good, b'{"event_hash":"torn')) as page:
        assert page.state == "bad"
        assert page.text("#headline") == "The server reports truncated"


def test_events_that_are_kept_from_the_page_are_missed(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    wire = serve(good)
    honest = ask(wire)

    def cut(method: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = honest(method, params)
        if method == "resources/read":
            content = answer["result"]["contents"][0]
            content["text"] = "".join(content["text"].splitlines(keepends=True)[:-3])
        return answer

    with shown(browser, wire, answer=cut) as page:
        assert page.state == "bad"
        assert page.text("#headline") == "Cut off after 40 events: truncated"


# --- the protocol ---------------------------------------------------------------------------------------------------


def test_the_page_introduces_itself_and_says_how_high_it_wants_to_be(
    browser: Browser, serve: Serve, good: list[bytes]
) -> None:
    with shown(browser, serve(good), context={"containerDimensions": {"maxHeight": 520}}) as page:
        page.settled()
        said = page.said()
        assert all(message["jsonrpc"] == "2.0" for message in said)
        assert said[0]["method"] == "ui/initialize"
        assert said[0]["params"]["protocolVersion"] == "2026-01-26"
        assert said[0]["params"]["appInfo"]["name"] == "cra-trace"
        assert said[0]["params"]["appCapabilities"]["availableDisplayModes"] == ["inline", "fullscreen"]
        assert said[1] == {"jsonrpc": "2.0", "method": "ui/notifications/initialized", "params": {}}
        sizes = [message["params"] for message in said if message.get("method") == "ui/notifications/size-changed"]
        assert sizes[-1] == {"height": 520}
        assert page.run("innerHeight") == 520
        assert {message["method"] for message in said} == {
            "ui/initialize",
            "ui/notifications/initialized",
            "ui/notifications/size-changed",
            "resources/read",
        }


def test_a_page_that_is_written_into_its_frame_works_alike(
    browser: Browser, serve: Serve, tampered: list[bytes]
) -> None:
    with shown(browser, serve(tampered), as_document=True) as page:
        assert page.state == "bad"
        assert page.run("location.href") == "about:srcdoc"
        page.row(BAD).click()
        expect(page.view.locator("#detail .mismatch")).to_contain_text("not the same")
        assert page.run("document.querySelector('.row use').getBoundingClientRect().width") > 0, (
            "its drawings are found"
        )
        assert page.harm() == []


@pytest.mark.parametrize("roads", [{"serverResources": {}, "serverTools": {}}, {}])
def test_the_host_of_the_reference_implementation_understands_the_page(
    browser: Browser, serve: Serve, npm: Path, tampered: list[bytes], roads: dict[str, Any]
) -> None:
    context = {
        "theme": "dark",
        "containerDimensions": {"maxHeight": 500},
        "availableDisplayModes": ["inline", "fullscreen"],
    }
    with shown(browser, serve(tampered), npm=npm, capabilities=roads, context=context) as page:
        assert page.state == ("bad" if roads else "unchecked")
        assert page.run("getComputedStyle(document.body).colorScheme") == "dark"
        assert page.page.evaluate("bridge.getAppVersion().name") == "cra-trace"
        assert page.page.evaluate("bridge.getAppCapabilities().availableDisplayModes") == ["inline", "fullscreen"]
        said = page.said()
        assert [message["params"] for message in said if message["method"] == "error"] == []
        assert {"method": "size", "params": {"height": 500}} in said
        assert ("resources/read" in {message["method"] for message in said}) == bool(roads)
        page.view.locator("#expand").click()
        expect(page.view.locator("#expand")).to_be_hidden()
        page.page.evaluate("bridge.sendHostContextChange({ theme: 'light' })")
        expect(page.view.locator("html")).to_have_css("color-scheme", "light")
        assert page.page.evaluate("bridge.teardownResource({})") == {}
        assert page.harm() == []


def test_host_colours_and_theme_are_taken_up_as_they_change(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    variables = {
        "--color-background-primary": "light-dark(#fffdf5, #101820)",
        "--color-text-primary": "light-dark(#101010, #fafafa)",
        "--font-sans": "monospace",
        "--color-border-primary": "url(https://evil.example/leak)",
        "background": "red",
    }
    with shown(browser, serve(good), context={"styles": {"variables": variables}}) as page:
        page.settled()
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 253, 245)"
        page.tell({"method": "ui/notifications/host-context-changed", "params": {"theme": "dark"}})
        page.page.wait_for_function("true")
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 24, 32)"
        assert page.run("getComputedStyle(document.documentElement).getPropertyValue('--color-border-primary')") == ""
        assert page.harm() == []


def test_the_page_asks_for_more_room_only_where_there_is_some(
    browser: Browser, serve: Serve, good: list[bytes]
) -> None:
    wire = serve(good)
    with shown(browser, wire) as page:
        page.settled()
        expect(page.view.locator("#expand")).to_be_hidden()
    with shown(
        browser, wire, context={"availableDisplayModes": ["inline", "fullscreen"], "displayMode": "inline"}
    ) as page:
        page.settled()
        page.view.locator("#expand").click()
        expect(page.view.locator("#expand")).to_be_hidden()
        assert page.said()[-1]["method"] == "ui/request-display-mode"


def test_requests_of_the_host_are_answered(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    with shown(browser, serve(good)) as page:
        page.settled()
        for number, method in enumerate(("ping", "ui/resource-teardown", "tools/list"), 100):
            page.tell({"id": number, "method": method, "params": {}})
        page.page.wait_for_function("log.filter((message) => message.id >= 100).length === 3")
        answers = [message for message in page.said() if message.get("id", 0) >= 100]
        assert [("result" in answer, "error" in answer) for answer in answers] == [
            (True, False),
            (True, False),
            (False, True),
        ]


def test_the_tool_is_the_second_road_to_the_lines(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    wire = serve(good)
    honest = ask(wire)

    def jsonl(method: str, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("arguments", {}).get("format") == "jsonl":
            # This server's atlas hides something, so it gives no lines to tools: answer as one that hides nothing.
            part = good[params["arguments"]["after"] + 1 :][:20]
            text = b"".join(line + b"\n" for line in part).decode()
            return {"result": {"content": [{"type": "text", "text": text}]}}
        return honest(method, params)

    with shown(browser, wire, answer=jsonl, capabilities={"serverTools": {}}) as page:
        assert page.state == "ok"
        assert "43 events" in page.text("#explanation")


def test_where_no_lines_can_be_had_nothing_is_called_intact(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    wire = serve(good)
    honest = ask(wire)

    def refuses(method: str, params: dict[str, Any]) -> dict[str, Any]:
        refused = {"isError": True, "content": [{"type": "text", "text": "not for you"}]}
        return {"result": refused} if params.get("arguments", {}).get("format") == "jsonl" else honest(method, params)

    for capabilities in ({}, {"serverTools": {}}):  # no road at all; a road on which the server refuses
        with shown(browser, wire, answer=refuses, capabilities=capabilities) as page:
            assert page.state == "unchecked"
            assert page.text("#headline") == "Not checked"
            assert "The server says that the chain is intact." in page.text("#explanation")
            assert page.view.locator(".row").count() > 0, "the server's own rows are shown"


def test_a_page_without_web_crypto_shows_no_green(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    wire = serve(good)
    with shown(browser, wire, answer=ask(wire)) as page:
        page.settled()
        page.page.add_init_script("Object.defineProperty(Crypto.prototype, 'subtle', { value: undefined })")
        page.page.reload()
        page.page.evaluate(
            "options => show(options)",
            {
                "arguments": {"session_id": made.SESSION},
                "capabilities": {"serverResources": {}},
                "context": {"theme": "light"},
            },
        )
        assert page.state == "unchecked"
        page.row(0).click()
        expect(page.view.locator("#detail")).to_contain_text("SHA-256 is not available")


def test_a_failed_or_cancelled_call_is_said_plainly(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    with shown(browser, serve(good), arguments={"session_id": made.identifier(9)}) as page:
        assert page.state == "failed"
        assert page.text("#headline") == "No trace to show"
        page.tell({"method": "ui/notifications/tool-cancelled", "params": {"reason": "user action"}})
        expect(page.view.locator("#headline")).to_have_text("Cancelled")


# --- looking around -------------------------------------------------------------------------------------------------


def indexes(page: Shown) -> list[int]:
    return page.run("[...document.querySelectorAll('.row')].map((row) => Number(row.dataset.index))")


def test_decisions_types_and_words_narrow_the_list_down(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    with shown(browser, serve(good), height=2400, context={"containerDimensions": {"height": 2200}}) as page:
        page.settled()
        assert indexes(page) == list(range(43))
        page.view.locator("[data-decision=deny]").click()
        assert indexes(page) == [9, 10, 11]
        page.view.locator("[data-decision=error]").click()
        assert indexes(page) == [9, 10, 11, 17]
        page.view.locator("#types").select_option("action.failed")
        assert indexes(page) == [17]
        page.view.locator("#viewport").press("Escape")
        assert len(indexes(page)) == 43
        page.view.locator("#search").fill("PAYMENT service")
        expect(page.view.locator(".row")).to_have_count(1)
        page.view.locator("#search").fill("no such words anywhere")
        expect(page.view.locator("#nothing")).to_be_visible()
        page.view.locator("#clear").click()
        page.row(13).click()
        page.view.locator("#only-call").click()
        assert indexes(page) == list(range(12, 18)), "the call of the approval"


def test_everything_can_be_done_with_keys(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    with shown(browser, serve(good)) as page:
        page.settled()
        view = page.view.locator("#viewport")
        view.focus()
        chosen = page.view.locator(".row.chosen")
        for key, index in (
            ("ArrowDown", 0),
            ("ArrowDown", 1),
            ("End", 42),
            ("PageUp", None),
            ("Home", 0),
            ("n", 9),
            ("n", 10),
        ):
            page.page.keyboard.press(key)
            if index is not None:
                expect(chosen).to_have_attribute("data-index", str(index))
        assert view.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
        expect(page.view.locator("#detail")).to_be_visible()
        page.page.keyboard.press("Escape")
        expect(page.view.locator("#detail")).to_be_hidden()
        page.page.keyboard.press("ArrowUp")
        expect(page.view.locator("#detail")).to_be_hidden()
        page.page.keyboard.press("Enter")
        expect(page.view.locator("#detail-title")).to_have_text("policy.evaluated")
        page.page.keyboard.press("/")
        assert page.run("document.activeElement.id") == "search"
        page.page.keyboard.type("refund")
        expect(page.view.locator(".row").first).to_have_attribute("data-index", "0")
        page.page.keyboard.press("Enter")
        assert page.run("document.activeElement.id") == "viewport"


def test_an_event_is_shown_with_all_its_fields_and_its_hash_computed_again(
    browser: Browser, serve: Serve, good: list[bytes]
) -> None:
    with shown(browser, serve(good)) as page:
        page.settled()
        page.row(5).click()
        expect(page.view.locator("#detail .match")).to_contain_text("the same")
        text = page.text("#detail")
        for name in (
            "event_id",
            "span_id",
            "parent_span_id",
            "trace_id",
            "session_id",
            "previous_event_hash",
            "event_hash",
        ):
            assert name in text
        assert '"policy_id": "allow-read"' in text


def test_ten_thousand_events_do_not_freeze_the_page(browser: Browser, serve: Serve) -> None:
    lines = made.chain(made.session(2_500))
    wire = serve(lines)
    with shown(browser, wire) as page:
        page.run(
            """() => {
              window.longest = 0;
              let last = performance.now();
              const tick = () => {
                const now = performance.now();
                window.longest = Math.max(window.longest, now - last);
                last = now;
                setTimeout(tick);
              };
              tick();
            }"""
        )
        assert page.state == "ok"
        assert "10\u2009019 events" in page.text("#explanation")
        assert page.view.locator(".row").count() < 80, "only what is in sight exists"
        page.view.locator("#viewport").focus()
        page.page.keyboard.press("End")
        expect(page.row(len(lines) - 1)).to_be_in_viewport()
        page.view.locator("#search").fill("T-1999")
        expect(page.view.locator(".row")).to_have_count(1)
        # A step of the proof takes some 20 ms; a page that did it all at once would stand still for a second.
        assert page.run("window.longest") < 700


def test_the_verdict_is_read_out_once_it_stands(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    with shown(browser, serve(good)) as page:
        page.settled()
        verdict = page.view.locator("#verdict")
        assert (verdict.get_attribute("role"), verdict.get_attribute("aria-busy")) == ("status", "false")
        option = page.view.get_by_role("listbox", name="Events").get_by_role("option").nth(2)
        assert (option.get_attribute("aria-setsize"), option.get_attribute("aria-posinset")) == ("43", "3")


def test_a_live_trace_is_read_again_on_request(browser: Browser, serve: Serve, good: list[bytes]) -> None:
    wire = serve(good)
    wire.call("tool_echo", {"n": 1})
    with shown(browser, wire, arguments={}) as page:
        page.settled()
        before = page.text("#explanation").split(" events")[0]
        wire.call("tool_echo", {"n": 2})
        page.view.locator("#reload").click()
        page.settled()
        assert int(page.text("#explanation").split(" events")[0]) > int(before)


# --- without a host -------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(browser: Browser, serve: Serve, good: list[bytes], tmp_path: Path) -> Any:
    (content,) = serve(good).request("resources/read", {"uri": "ui://cra/trace"})["result"]["contents"]
    file = tmp_path / "trace.html"
    file.write_text(content["text"])
    own = browser.new_context()
    page = own.new_page()
    page.goto(file.as_uri())
    yield page
    own.close()


def test_opened_as_a_file_it_reads_files(alone: Any, good: list[bytes], tampered: list[bytes]) -> None:
    def choose(data: bytes) -> str:
        alone.locator("#file").set_input_files({"name": "x.jsonl", "mimeType": "text/plain", "buffer": data})
        alone.wait_for_function("['ok', 'bad'].includes(document.getElementById('app').dataset.state)")
        return alone.locator("#headline").inner_text()

    whole = b"".join(line + b"\n" for line in good)
    expect(alone.locator("#drop")).to_be_visible()
    assert choose(whole) == "Chain intact"
    expect(alone.locator("#explanation")).to_contain_text("only a head kept elsewhere can tell")
    assert json.loads(good[-1])["event_hash"] in (alone.locator(".head").text_content() or "")
    assert choose(b"".join(line + b"\n" for line in tampered)) == "Tampered at event 11: hash_mismatch"
    assert choose(whole[:-30]) == "Cut off after 42 events: truncated"
    assert choose(b"\xef\xbb\xbf" + whole) == "Tampered at event 0: malformed_event"
    assert choose(b"") == "Empty trace"


def test_opened_as_a_file_it_takes_a_pasted_trace(alone: Any, good: list[bytes]) -> None:
    alone.evaluate(
        """text => {
          const data = new DataTransfer();
          data.setData("text/plain", text);
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        b"\n".join(good).decode(),
    )
    expect(alone.locator("#headline")).to_have_text("Chain intact")


# --- the view of an agent -------------------------------------------------------------------------------------------


def test_the_view_of_an_agent_is_shown_and_never_as_verified(
    browser: Browser, serve_agent: Serve, good: list[bytes]
) -> None:
    for capabilities in ({"serverResources": {}}, {"serverTools": {}}):
        with shown(browser, serve_agent(good), capabilities=capabilities) as page:
            assert page.state == "unchecked"
            assert page.text("#headline") == "Not checked here"
            assert "The server says that the chain is intact." in page.text("#explanation")
            assert page.text("[data-decision=deny]").split() == ["Denied", "3"]
            assert "Answer ticket 17" in page.text("#facts")
            page.row(6).click()
            expect(page.view.locator("#detail-body")).to_contain_text("action_id")
            expect(page.view.locator("#detail-body")).not_to_contain_text("event_hash")
            assert page.view.locator(".is-bad, .unproven, .match, .mismatch").count() == 0
            assert page.harm() == []


def test_what_the_server_finds_wrong_is_red_in_the_view_of_an_agent(
    browser: Browser, serve_agent: Serve, tampered: list[bytes]
) -> None:
    tampered = [*tampered[:20], b"\xff", *tampered[21:]]
    with shown(browser, serve_agent(tampered)) as page:
        assert page.state == "bad"
        assert page.text("#headline") == "The server reports hash_mismatch"
        assert page.row(BAD).locator(".pill").inner_text() == "hash_mismatch"
        assert "unproven" in (page.row(BAD + 1).get_attribute("class") or "")
        assert page.row(20).locator(".type").inner_text() == "unreadable"
        assert page.harm() == []
