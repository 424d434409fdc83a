"""FastMCP as a proxy over stdio to the server whose command is given: what a governed upstream call is measured against.

    python benchmarks/servers/fastmcp_proxy.py create_proxy|connected COMMAND ARGUMENT...

``create_proxy`` is what its documentation recommends. ``connected`` hands it a client that is connected already and so
is shared by all requests: the fastest form it has.
"""

import asyncio
import os
import sys

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy


async def main(form: str, command: str, *arguments: str) -> None:
    transport = StdioTransport(command, list(arguments), env=dict(os.environ))
    if form == "create_proxy":
        await create_proxy(transport, name="proxy").run_stdio_async(show_banner=False)
        return
    async with Client(transport) as client:
        await create_proxy(client, name="proxy").run_stdio_async(show_banner=False)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
