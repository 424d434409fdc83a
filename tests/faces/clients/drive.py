"""Drives the server with a Python client and prints one JSON report.

``python drive.py mcp1|mcp2|fastmcp MODE TARGET...``: MODE is the protocol era, for clients that have a choice; TARGET is an URL
(one that ends in /sse is connected to with the transport of 2024) or a command. Runs in the environment of that client.
"""
# ruff: noqa: PLC0415 - no environment has all of the clients

import asyncio
import json
import os
import sys
import warnings
from contextlib import AsyncExitStack

kind, mode, *target = sys.argv[1:]
remote = target[0].startswith(("http://", "https://"))
updated = asyncio.Event()


async def mcp1(stack):
    """The SDK of the 1.x line."""
    from mcp import ClientSession, StdioServerParameters, types
    from mcp.client.sse import sse_client
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    async def approve(_context, _params):
        return types.ElicitResult(action="accept", content={"approve": True})

    async def notice(message):
        if isinstance(getattr(message, "root", None), types.ResourceUpdatedNotification):
            updated.set()

    if not remote:
        parameters = StdioServerParameters(command=target[0], args=target[1:], env=dict(os.environ))
        connection = stdio_client(parameters)
    else:
        connection = sse_client(target[0]) if target[0].endswith("/sse") else streamable_http_client(target[0])
    read, write, *_ = await stack.enter_async_context(connection)
    session = await stack.enter_async_context(
        ClientSession(read, write, elicitation_callback=approve, message_handler=notice)
    )
    await session.initialize()
    return session, session.call_tool


async def mcp2(stack):
    """The SDK of the 2.x line."""
    import mcp_types as types
    from mcp import Client, StdioServerParameters
    from mcp.client.sse import sse_client

    async def approve(_context, _params):
        return types.ElicitResult(action="accept", content={"approve": True})

    async def notice(message):
        if isinstance(message, types.ResourceUpdatedNotification):
            updated.set()

    there = StdioServerParameters(command=target[0], args=target[1:], env=dict(os.environ))
    if remote:
        there = sse_client(target[0]) if target[0].endswith("/sse") else target[0]
    client = await stack.enter_async_context(
        Client(there, mode=mode, cache=None, elicitation_callback=approve, message_handler=notice)
    )
    return client.session, client.call_tool


async def fastmcp(stack):
    """FastMCP's."""
    from fastmcp import Client
    from fastmcp.client.elicitation import ElicitResult
    from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport

    async def approve(_message, _response_type, _params, _context):
        return ElicitResult(action="accept", content={"approve": True})

    there = StdioTransport(target[0], target[1:], env=dict(os.environ))
    if remote:
        there = (SSETransport if target[0].endswith("/sse") else StreamableHttpTransport)(target[0])
    client = await stack.enter_async_context(Client(there, elicitation_handler=approve))
    return client.session, client.call_tool_mcp


async def call(call_tool, name, arguments):
    result = await call_tool(name, arguments)
    return json.loads(result.model_dump_json(by_alias=True, exclude_none=True))


async def main():
    async with AsyncExitStack() as stack:
        session, call_tool = await {"mcp1": mcp1, "mcp2": mcp2, "fastmcp": fastmcp}[kind](stack)
        report = {"tools": [tool.name for tool in (await session.list_tools()).tools]}
        report["allowed"] = await call(call_tool, "tool_add", {"a": 2, "b": 3})
        report["denied"] = await call(call_tool, "tool_delete", {})
        report["approved"] = await call(call_tool, "tool_pay", {"to": "ann"})
        receipt = report["allowed"]["_meta"]["dev.cra/receipt"]
        uri = f"cra://trace/{receipt['session_id']}"
        if mode == "legacy":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a later era has no such request
                await session.subscribe_resource(uri)
            await call(call_tool, "tool_echo", {})
            if kind != "fastmcp":
                await asyncio.wait_for(updated.wait(), 20)
        report["trace"] = (await session.read_resource(uri)).contents[0].text
    sys.stdout.write(json.dumps(report))


asyncio.run(main())
