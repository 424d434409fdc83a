"""What a scrape of /metrics says, of the real server."""

from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.conftest import served

pytestmark = pytest.mark.anyio

Sample = tuple[str, tuple[tuple[str, str], ...]]


async def scrape(url: str) -> dict[Sample, float]:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def calls(samples: dict[Sample, float]) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["status"], dict(labels)["code"]): value
        for (name, labels), value in samples.items()
        if name == "cra_calls_total"
    }


async def test_calls_are_counted_by_outcome_and_timed(atlas: Path) -> None:
    async with served(atlas, "--metrics") as server:
        async with Client(f"{server.url}/mcp", cache=None) as client:
            for _ in range(3):
                await client.call_tool("do_echo", {"text": "a secret"})
            await client.call_tool("do_echo", {})
            await client.call_tool("do_fail", {})
            await client.call_tool("do_denied", {})
            await client.call_tool("do_asked", {})
            for name in ("do_hidden", "made_up_1", "made_up_2"):
                with pytest.raises(Exception, match="Unknown tool"):
                    await client.session.call_tool(name, {})
        after = await scrape(server.url)
    assert calls(after) == {
        ("success", ""): 3,
        ("error", "invalid_parameters"): 1,
        ("error", "tool_error"): 1,
        ("denied", "denied"): 1,
        ("denied", "unknown_action"): 3,
        ("pending_approval", "approval_pending"): 1,
    }
    assert after["cra_call_duration_seconds_count", (("status", "success"),)] == 3
    assert 0 < after["cra_call_duration_seconds_sum", (("status", "success"),)] < 30
    assert after["cra_approvals_pending", ()] == 1
    assert after["cra_sessions_active", ()] == 1
    assert after["cra_actions", ()] == 5
    assert after["cra_atlases", ()] == 1
    assert after["cra_store_traces", ()] == 1
    assert after["cra_store_bytes", ()] > 500
    labels = {value for _, pairs in after for _, value in pairs}
    assert not {label for label in labels if "secret" in label or "made_up" in label or "do_" in label}


async def test_checkpoints_and_their_copies_are_counted(atlas: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    targets = ("--checkpoint-to", f"folder:{copies}", "--checkpoint-to", f"folder:{tmp_path / 'missing'}")
    targets += ("--timestamp-authority", "http://127.0.0.1:1/")  # where nobody answers
    async with served(atlas, "--metrics", "--checkpoint-every", "1", *targets) as server:
        async with Client(f"{server.url}/mcp", cache=None) as client:
            await client.call_tool("do_echo", {"text": "x"})
        with anyio.fail_after(20):
            while True:
                found = {name: value for (name, _), value in (await scrape(server.url)).items()}
                failed = found["cra_checkpoint_copies_failed"] and found["cra_checkpoint_timestamps_failed"]
                if found["cra_checkpoint_copies_delivered"] and failed:
                    break
                await anyio.sleep(0.05)
    assert found["cra_checkpoints_signed"] >= 1
    assert found["cra_checkpoints_failed"] == 0
    assert found["cra_checkpoint_copies_waiting"] >= 1
    assert found["cra_checkpoint_copies_dropped"] == 0
    assert (found["cra_checkpoint_timestamps"], found["cra_checkpoint_timestamps_waiting"]) == (0, 1)


async def test_exports_are_counted_by_what_became_of_their_events(atlas: Path, tmp_path: Path) -> None:
    async with served(atlas, "--metrics", "--export", f"file:{tmp_path / 'out.jsonl'}") as server:
        async with Client(f"{server.url}/mcp", cache=None) as client:
            await client.call_tool("do_echo", {"text": "x"})
        sent = ("cra_export_events_total", (("result", "sent"), ("sink", "0:file")))
        with anyio.fail_after(20):
            while (after := await scrape(server.url)).get(sent, 0) < 6:
                await anyio.sleep(0.05)
    assert after[("cra_export_events_total", (("result", "dropped"), ("sink", "0:file")))] == 0
    assert after[("cra_export_events_total", (("result", "dead_letter"), ("sink", "0:file")))] == 0
    assert after[("cra_export_waiting", (("sink", "0:file"),))] == 0
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert lines[-1].count(b'"event_type":"session.ended"') == 1, "what ends with the server is exported too"


async def test_there_are_no_metrics_unless_they_are_wanted(atlas: Path) -> None:
    async with served(atlas) as server, httpx2.AsyncClient() as client:
        assert (await client.get(f"{server.url}/metrics")).status_code == 404


async def test_a_scrape_passes_the_checks_that_mcp_passes(atlas: Path) -> None:
    async with served(atlas, "--metrics") as server, httpx2.AsyncClient() as client:
        assert (await client.get(f"{server.url}/metrics")).status_code == 200
        assert (await client.post(f"{server.url}/metrics")).status_code == 405
        answer = await client.get(f"{server.url}/metrics", headers={"host": "evil.example.com"})
        assert answer.status_code == 421
        assert "cra_" not in answer.text
