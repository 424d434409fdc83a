"""OpenTelemetry: the real server with a real SDK that exports over OTLP, and without one."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.observability.conftest import served

pytestmark = pytest.mark.anyio

WITH_SDK = Path(__file__).parent / "with_otel_sdk.py"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
META = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector:
    """An OTLP collector: takes spans over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
        body = await reader.readexactly(int(fields["content-length"]))
        data = gzip.decompress(body) if fields.get("content-encoding") == "gzip" else body
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[Collector, int]]:
    made = Collector()
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    async with server:
        yield made, server.sockets[0].getsockname()[1]


def attributes(span: Any) -> dict[str, object]:
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in span.attributes
    }


def recorded(atlas: Path) -> list[object]:
    """What the trace says of the OpenTelemetry span of each call."""
    return [
        event["payload"].get("otel")
        for path in (atlas.parent / "data" / "traces").glob("*.trace.jsonl")
        for event in map(json.loads, path.read_text().splitlines())
        if event["event_type"] == "action.requested"
    ]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_call_is_on_the_span_of_its_request_in_the_trace_of_its_caller(atlas: Path, mode: str) -> None:
    async with (
        collector() as (spans, port),
        served(atlas, program=(str(WITH_SDK), str(port))) as server,
        Client(f"{server.url}/mcp", mode=mode, cache=None) as client,
    ):
        done = await client.call_tool("do_echo", {"text": "password=hunter2"}, meta=META)
        await client.call_tool("do_denied", {}, meta=META)
        with pytest.raises(Exception, match="Unknown tool"):
            await client.session.call_tool("do_hidden", {}, meta=META)
    receipt = (done.meta or {})["dev.cra/receipt"]
    found = {span.name: span for span in spans.spans}
    good, denied, hidden = (found[f"tools/call {name}"] for name in ("do_echo", "do_denied", "do_hidden"))
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in (good, denied, hidden)} == {(TRACE, PARENT)}
    said = attributes(good)
    assert said["cra.session.id"] == receipt["session_id"]
    assert said["cra.sequence"] == receipt["sequence"]
    assert said["cra.event.hash"] == receipt["event_hash"]
    assert (said["cra.status"], said["cra.action.id"]) == ("success", "do.echo")
    refused = attributes(denied)
    assert (refused["cra.status"], refused["cra.error.code"], refused["cra.policy.id"]) == ("denied", "denied", "no")
    assert "cra.action.id" not in attributes(hidden)
    assert "cra.policy.id" not in attributes(hidden)
    assert b"hunter2" not in b"".join(span.SerializeToString() for span in spans.spans)
    assert recorded(atlas) == [{"trace_id": TRACE, "span_id": span.span_id.hex()} for span in (good, denied, hidden)]


async def test_without_an_sdk_the_trace_of_the_caller_is_kept(atlas: Path) -> None:
    async with served(atlas) as server, Client(f"{server.url}/mcp", mode="2026-07-28", cache=None) as client:
        await client.call_tool("do_echo", {"text": "x"}, meta=META)
        await client.call_tool("do_echo", {"text": "x"}, meta={"traceparent": "00-junk"})
        await client.call_tool("do_echo", {"text": "x"})
    assert recorded(atlas) == [{"trace_id": TRACE, "span_id": PARENT}, None, None]
