"""Clients of a Streamable HTTP server in bytes: many at once, each on a connection of its own, one call at a time.

An SDK on the client's side would use more of the machine than the servers that are measured.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HANDLE = "dev.cra/session"


@dataclass
class HttpClient:
    """One client: a connection, and in the 2025 era an MCP session."""

    port: int
    modern: bool
    handle: str | None = None
    session: str | None = None
    number: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def open(self, *, governed: bool) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        if self.modern:
            if governed:
                result = await self.request("tools/call", {"name": "cra_start_session", "arguments": {"goal": "bench"}})
                self.handle = result["_meta"][_HANDLE]
            return
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        await self.request("initialize", client)
        self.session = self.headers["mcp-session-id"]

    async def call(self, tool: str) -> dict[str, Any]:
        return await self.request("tools/call", {"name": tool, "arguments": {}})

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        head = [
            "POST /mcp HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
        ]
        if self.modern:
            meta = {**_ENVELOPE, _HANDLE: self.handle} if self.handle is not None else _ENVELOPE
            params = {**params, "_meta": meta}
            head += ["MCP-Protocol-Version: 2026-07-28", f"Mcp-Method: {method}"]
            if "name" in params:
                head.append(f"Mcp-Name: {params['name']}")
        elif self.session is not None:
            head += ["MCP-Protocol-Version: 2025-11-25", f"Mcp-Session-Id: {self.session}"]
        body = json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}).encode()
        head += [f"Content-Length: {len(body)}", "", ""]
        self._writer.write("\r\n".join(head).encode() + body)
        answer = _message(await self._answer())
        assert answer.get("id") == self.number, answer
        return answer["result"]

    async def _answer(self) -> bytes:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if head[0].split()[1] != "200":
            raise AssertionError(head)
        if "content-length" in self.headers:
            return await self._reader.readexactly(int(self.headers["content-length"]))
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return body


def _message(body: bytes) -> dict[str, Any]:
    if body.startswith(b"{"):
        return json.loads(body)
    return next(json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data:"))


@dataclass
class Load:
    """What a server was asked, in turns."""

    clients: list[HttpClient]
    tool: str
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    async def turn(self, calls: int) -> float:
        """``calls`` calls, by all clients at once; calls a second."""
        share = iter(range(calls))

        async def one(client: HttpClient) -> None:
            for _ in share:
                began = time.perf_counter()
                result = await client.call(self.tool)
                self.latencies_s.append(time.perf_counter() - began)
                self.results.append(result)

        began = time.perf_counter()
        await asyncio.gather(*(one(client) for client in self.clients))
        took = time.perf_counter() - began
        self.seconds += took
        return calls / took
