"""The MCP server over HTTP: one process, one app, every protocol era.

``/mcp`` is Streamable HTTP, ``/sse`` with ``/messages/`` the transport before it. Source: specs/mcp.md, "Over HTTP".
"""
