"""The program that made a call, as far as the action may talk back to it while it runs.

Rule: what comes back is a claim of the client's. Whoever stands between an action and a client records what was asked and
answered. Source: specs/atlas.md, "Talking back"; MCP specification, "Elicitation", "Sampling", "Roots".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Capability = Literal["elicitation", "sampling", "roots"]
LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
Answer = Mapping[str, object]
"""What a client answered, in MCP's wire form (camelCase keys)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing asked of a client; ``params`` in MCP's wire form."""

    capability: Capability
    params: Mapping[str, object]


class Client(Protocol):
    """A client while a call of its is under way."""

    def can(self, capability: Capability) -> bool:
        """Whether it says it can be asked for this."""
        ...

    async def progress(self, done: float, total: float | None, message: str | None) -> None:
        """Tell it how far the action is; never fails the action."""
        ...

    async def log(self, level: LogLevel, data: object, logger: str | None) -> None:
        """Send it a log message, if it wants them; never fails the action."""
        ...

    async def release(self) -> None:
        """Let go of the connection the call came by, where the client can come back for the outcome."""
        ...

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """Ask several things at once. The keys are the action's own and stay the same when a call is repeated.

        Raises:
            AskError: ``ask_unsupported`` or ``ask_unanswered``.
        """
        ...
