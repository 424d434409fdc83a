"""CRA: a governance runtime for AI agents.

Names are loaded when first used, so that importing the package costs nothing that isn't needed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cra_mcp.actions.client import Client as Client
    from cra_mcp.actions.content import Content as Content
    from cra_mcp.actions.context import BlockingCallContext as BlockingCallContext
    from cra_mcp.actions.context import CallContext as CallContext
    from cra_mcp.approval.model import Approval as Approval
    from cra_mcp.approval.model import Asker as Asker
    from cra_mcp.atlas.model import Action as Action
    from cra_mcp.atlas.model import Atlas as Atlas
    from cra_mcp.atlas.model import ContextBlock as ContextBlock
    from cra_mcp.atlas.overlay import Overlay as Overlay
    from cra_mcp.atlas.registry import AtlasInfo as AtlasInfo
    from cra_mcp.auth.principal import Owner as Owner
    from cra_mcp.auth.principal import Principal as Principal
    from cra_mcp.compose import CRARuntime as CRARuntime
    from cra_mcp.errors import ActionError as ActionError
    from cra_mcp.errors import ApprovalError as ApprovalError
    from cra_mcp.errors import AskError as AskError
    from cra_mcp.errors import AtlasConflictError as AtlasConflictError
    from cra_mcp.errors import AtlasInvalidError as AtlasInvalidError
    from cra_mcp.errors import AuthenticationError as AuthenticationError
    from cra_mcp.errors import CanonicalError as CanonicalError
    from cra_mcp.errors import CRAError as CRAError
    from cra_mcp.errors import ExecutionError as ExecutionError
    from cra_mcp.errors import ForbiddenError as ForbiddenError
    from cra_mcp.errors import LimitError as LimitError
    from cra_mcp.errors import Problem as Problem
    from cra_mcp.errors import RequestError as RequestError
    from cra_mcp.errors import SettingsError as SettingsError
    from cra_mcp.errors import TraceError as TraceError
    from cra_mcp.errors import TraceLockedError as TraceLockedError
    from cra_mcp.errors import TraceUnavailableError as TraceUnavailableError
    from cra_mcp.errors import UnknownTraceError as UnknownTraceError
    from cra_mcp.gate.call import ExecutionOutcome as ExecutionOutcome
    from cra_mcp.gate.call import Fault as Fault
    from cra_mcp.gate.call import Receipt as Receipt
    from cra_mcp.gate.explaining import CallExplanation as CallExplanation
    from cra_mcp.messages import CarpRequest as CarpRequest
    from cra_mcp.policy.model import Decision as Decision
    from cra_mcp.policy.model import Facts as Facts
    from cra_mcp.policy.model import RiskTier as RiskTier
    from cra_mcp.ranking import Choice as Choice
    from cra_mcp.replay.again import Divergence as Divergence
    from cra_mcp.replay.again import Replayed as Replayed
    from cra_mcp.resolution.model import Permission as Permission
    from cra_mcp.resolution.model import Resolution as Resolution
    from cra_mcp.resolution.model import ResolutionDecision as ResolutionDecision
    from cra_mcp.session import Session as Session
    from cra_mcp.settings import RuntimeConfig as RuntimeConfig
    from cra_mcp.state.freezes import Freeze as Freeze
    from cra_mcp.trace.checkpointing import CheckpointCounts as CheckpointCounts
    from cra_mcp.trace.event import Event as Event
    from cra_mcp.trace.event import Head as Head
    from cra_mcp.trace.event import Verification as Verification
    from cra_mcp.trace.store import Recovery as Recovery
    from cra_mcp.trace.store import TraceInfo as TraceInfo

__version__ = "0.1.0"

_HOMES = {
    "cra_mcp.actions.client": ("Client",),
    "cra_mcp.actions.content": ("Content",),
    "cra_mcp.actions.context": (
        "BlockingCallContext",
        "CallContext",
    ),
    "cra_mcp.approval.model": (
        "Approval",
        "Asker",
    ),
    "cra_mcp.atlas.model": (
        "Action",
        "Atlas",
        "ContextBlock",
    ),
    "cra_mcp.atlas.overlay": ("Overlay",),
    "cra_mcp.atlas.registry": ("AtlasInfo",),
    "cra_mcp.auth.principal": ("Owner", "Principal"),
    "cra_mcp.compose": ("CRARuntime",),
    "cra_mcp.errors": (
        "ActionError",
        "ApprovalError",
        "AskError",
        "AtlasConflictError",
        "AtlasInvalidError",
        "AuthenticationError",
        "CRAError",
        "CanonicalError",
        "ExecutionError",
        "ForbiddenError",
        "LimitError",
        "Problem",
        "RequestError",
        "SettingsError",
        "TraceError",
        "TraceLockedError",
        "TraceUnavailableError",
        "UnknownTraceError",
    ),
    "cra_mcp.gate.call": (
        "ExecutionOutcome",
        "Fault",
        "Receipt",
    ),
    "cra_mcp.gate.explaining": ("CallExplanation",),
    "cra_mcp.messages": ("CarpRequest",),
    "cra_mcp.policy.model": (
        "Decision",
        "Facts",
        "RiskTier",
    ),
    "cra_mcp.ranking": ("Choice",),
    "cra_mcp.replay.again": (
        "Divergence",
        "Replayed",
    ),
    "cra_mcp.resolution.model": (
        "Permission",
        "Resolution",
        "ResolutionDecision",
    ),
    "cra_mcp.session": ("Session",),
    "cra_mcp.settings": ("RuntimeConfig",),
    "cra_mcp.state.freezes": ("Freeze",),
    "cra_mcp.trace.checkpointing": ("CheckpointCounts",),
    "cra_mcp.trace.event": (
        "Event",
        "Head",
        "Verification",
    ),
    "cra_mcp.trace.store": (
        "Recovery",
        "TraceInfo",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "ActionError",
    "Approval",
    "ApprovalError",
    "AskError",
    "Asker",
    "Atlas",
    "AtlasConflictError",
    "AtlasInfo",
    "AtlasInvalidError",
    "AuthenticationError",
    "BlockingCallContext",
    "CRAError",
    "CRARuntime",
    "CallContext",
    "CallExplanation",
    "CanonicalError",
    "CarpRequest",
    "CheckpointCounts",
    "Choice",
    "Client",
    "Content",
    "ContextBlock",
    "Decision",
    "Divergence",
    "Event",
    "ExecutionError",
    "ExecutionOutcome",
    "Facts",
    "Fault",
    "ForbiddenError",
    "Freeze",
    "Head",
    "LimitError",
    "Overlay",
    "Owner",
    "Permission",
    "Principal",
    "Problem",
    "Receipt",
    "Recovery",
    "Replayed",
    "RequestError",
    "Resolution",
    "ResolutionDecision",
    "RiskTier",
    "RuntimeConfig",
    "Session",
    "SettingsError",
    "TraceError",
    "TraceInfo",
    "TraceLockedError",
    "TraceUnavailableError",
    "UnknownTraceError",
    "Verification",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not needed until a name is

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
