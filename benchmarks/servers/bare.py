"""A low-level SDK server with one tool that does nothing: what a governed call is measured against.

    python benchmarks/servers/bare.py [sdk|own|http [h11|httptools]]

``sdk`` speaks over the SDK's own stdio transport; ``own`` over the one of ``cra_mcp``, so that what governance costs can be
told from what the transport saves. ``http`` is the SDK's own app for Streamable HTTP on a free port, which it prints as JSON.
"""

import sys
from typing import Any

import anyio
import mcp_types as t
from mcp.server.lowlevel.server import Server

NOOP = t.Tool(name="bench_noop", description="Does nothing.", input_schema={"type": "object"})


async def list_tools(_ctx: Any, _params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
    return t.ListToolsResult(tools=[NOOP])


async def call_tool(_ctx: Any, _params: t.CallToolRequestParams) -> t.CallToolResult:
    return t.CallToolResult(content=[t.TextContent(type="text", text="ok")])


async def main(transport: str, http: str) -> None:
    server: Server[Any] = Server("bare", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    if transport == "own":
        from cra_mcp.auth.principal import Principal  # noqa: PLC0415 - the other way needs nothing of ours
        from cra_mcp.faces.mcp.front import serve  # noqa: PLC0415 - as said
        from cra_mcp.faces.mcp.wire import LineReader, LineWriter, StandardStreams  # noqa: PLC0415 - as above

        streams = StandardStreams()
        writer = LineWriter(streams.write_fd)
        await serve(server, LineReader(streams.read_fd, writer), writer, Principal("bench"))
        return
    if transport == "http":
        await over_http(server, http)
        return
    from mcp.server.stdio import stdio_server  # noqa: PLC0415 - the other way does not use it

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def over_http(server: Server[Any], http: Any) -> None:
    import json  # noqa: PLC0415 - the other ways have no use for these
    import socket  # noqa: PLC0415 - as said

    import uvicorn  # noqa: PLC0415 - as said

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        server.streamable_http_app(), http=http, log_config=None, access_log=False, timeout_keep_alive=600
    )
    print(json.dumps({"mcp": f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"}), flush=True)
    await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    anyio.run(main, *(*sys.argv[1:], *("sdk", "h11")[len(sys.argv) - 1 :]))
