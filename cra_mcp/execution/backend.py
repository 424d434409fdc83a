"""What carries out an approved action: the obligations every back end meets.

Rule: a back end never decides and never records; only the gate calls it. ``tests/execution/test_backend_contract.py``
holds every back end to what is said here.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from cra_mcp.actions.client import Client
from cra_mcp.atlas.model import Action, Atlas

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""``(done, total or None, message or None)``; awaiting it never fails the action."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One approved call. ``parameters`` have passed the action's schema; ``client`` is whom the action may talk back to."""

    action_id: str
    session_id: str
    execution_id: str
    parameters: Mapping[str, object]
    on_progress: Progress | None = None
    client: Client | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came back.

    Attributes:
        value: the JSON value the action returned; None where only ``content`` is meaningful.
        content: MCP content blocks in wire form (camelCase keys), or None where ``value`` says it all.
        is_error: the tool itself reported failure (an MCP tool error, a command's non-zero exit); ``value`` or
            ``content`` then explain it.
        meta: ``_meta`` of a tool's result: for programs, not for models.
    """

    value: object = None
    content: tuple[Mapping[str, object], ...] | None = None
    is_error: bool = False
    meta: Mapping[str, object] | None = None


class BoundAction(Protocol):
    """An action tied to what does it."""

    async def __call__(self, invocation: Invocation) -> Result:
        """Carry the action out.

        The gate bounds this with the action's timeout by cancelling it: cancellation must end all work that can be
        ended (processes killed, upstream told) before it propagates. Must not block the event loop.

        Raises:
            ExecutionError: it could not be completed. Its text never holds foreign exception text, secrets or paths.
        """
        ...


class Backend(Protocol):
    """One kind of executor."""

    executor_type: ClassVar[str]

    def bind(self, action: Action, atlas: Atlas) -> BoundAction:
        """Tie ``action`` to its executor. Cheap and free of side effects: nothing is imported, spawned or connected."""
        ...

    async def aclose(self) -> None:
        """End everything this back end started. Safe to call twice."""
        ...


@runtime_checkable
class Retaining(Protocol):
    """A back end that keeps something running between calls."""

    def retain(self, atlases: Sequence[Atlas]) -> None:
        """End what none of these atlases, the ones now in force, has any more; what is in use, when its calls have ended.

        May be called on any thread.
        """
        ...
