"""Arguments that some hosts add to every call, whatever the schema of the tool says.

Rule: a name of a client is believed only as far as this: what is taken out for it is taken out for policy and executor alike.
Source: specs/mcp.md, "Tools"; the hosts themselves.
"""

from collections.abc import Mapping
from typing import Final

from cra_mcp.faces.mcp.connection import RequestContext

ADDED: Final[Mapping[str, frozenset[str]]] = {
    "gemini-cli": frozenset({"wait_for_previous"}),
    "cline": frozenset({"task_progress"}),
    "cursor": frozenset({"random_string"}),
}
"""By how ``clientInfo.name`` begins, in lower case."""


def host_arguments(ctx: RequestContext) -> frozenset[str]:
    """What the client of a request is known to add."""
    known = ctx.session.client_params
    info = known.client_info if known is not None else None
    name = info.name.casefold() if info is not None else ""
    for prefix, names in ADDED.items():
        if name.startswith(prefix):
            return names
    return frozenset()
