"""CRA: a governance runtime for AI agents.

Names are loaded when first used, so that importing the package costs nothing that isn't needed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cra_mcp.actions.content import Content as Content
    from cra_mcp.actions.context import BlockingCallContext as BlockingCallContext
    from cra_mcp.actions.context import CallContext as CallContext
    from cra_mcp.compose import CRARuntime as CRARuntime
    from cra_mcp.errors import ActionError as ActionError
    from cra_mcp.errors import AskError as AskError
    from cra_mcp.errors import CRAError as CRAError
    from cra_mcp.settings import RuntimeConfig as RuntimeConfig

__version__ = "0.1.0"

_HOMES = {
    "CRARuntime": "cra_mcp.compose",
    "RuntimeConfig": "cra_mcp.settings",
    "CRAError": "cra_mcp.errors",
    "ActionError": "cra_mcp.errors",
    "AskError": "cra_mcp.errors",
    "Content": "cra_mcp.actions.content",
    "CallContext": "cra_mcp.actions.context",
    "BlockingCallContext": "cra_mcp.actions.context",
}

__all__ = [
    "ActionError",
    "AskError",
    "BlockingCallContext",
    "CRAError",
    "CRARuntime",
    "CallContext",
    "Content",
    "RuntimeConfig",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not needed until a name is

    return getattr(import_module(home), name)
