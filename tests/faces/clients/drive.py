"""Drives the server with a Python client and prints one JSON report.

``python drive.py mcp1|mcp2|fastmcp MODE MARKS TARGET...``: MODE is the protocol era, for clients that have a choice; MARKS is the
file an action marks that it began and ended in; TARGET is an URL (one that ends in /sse is connected to with the transport of
2024) or a command. Runs in the environment of that client.
"""
# ruff: noqa: PLC0415 - no environment has all of the clients

import asyncio
import json
import os
import sys
import warnings
from contextlib import AsyncExitStack

kind, mode, marks, *target = sys.argv[1:]
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


async def watch(session, call_tool, uri):
    """Be told that a trace has grown, in the way of the era."""
    if session_is_modern(session):
        from mcp.client.subscriptions import listen

        async with listen(session, resource_subscriptions=[uri]) as stream:
            await call(call_tool, "tool_echo", {})
            return str((await asyncio.wait_for(anext(stream), 20)).uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a later era has no such request
        await session.subscribe_resource(uri)
    await call(call_tool, "tool_echo", {})
    if kind != "fastmcp":  # whose client hands these messages to nobody
        await asyncio.wait_for(updated.wait(), 20)
    return uri


def session_is_modern(session):
    return getattr(session, "protocol_version", None) == "2026-07-28"


async def give_up(session):
    """Cancel a call that is under way; the session goes on."""
    request_id = getattr(session, "_request_id", None)
    task = asyncio.create_task(session.call_tool("tool_wait", {"marks": marks}))
    async with asyncio.timeout(20):
        while "began" not in marked():
            await asyncio.sleep(0.02)
        if kind == "mcp1":  # this client says nothing by itself
            from mcp import types

            params = types.CancelledNotificationParams(requestId=request_id)
            await session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        task.cancel()
        while "ended" not in marked():
            await asyncio.sleep(0.02)


def marked():
    return open(marks).read().split() if os.path.exists(marks) else []


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
        report["updated"] = await watch(session, call_tool, uri)
        steps = []

        async def progress(done, total, message):
            steps.append([done, total, message])

        result = await session.call_tool("tool_steps", {}, progress_callback=progress)
        report["steps"] = [json.loads(result.model_dump_json())["content"][0]["text"], steps]
        # The bridge hands the cancellation on as a message, which Streamable HTTP of 2026 has none for.
        report["gave_up"] = not (session_is_modern(session) and "--allow-http" in target)
        if report["gave_up"]:
            await give_up(session)
        report["trace"] = (await session.read_resource(uri)).contents[0].text
    sys.stdout.write(json.dumps(report))


asyncio.run(main())
