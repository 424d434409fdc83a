"""Calls Python functions: synchronous ones in threads, asynchronous ones on an event loop of their own.

Rule: foreign code never runs on the event loop of the server, its import included, and its exceptions never reach the
agent as text. To tell the agent something, a function raises ``cra_mcp.errors.ActionError``; that alone is shown.
Source: specs/atlas.md, "Executor: python".
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

from cra_mcp.actions.content import Content, is_block
from cra_mcp.actions.context import BlockingCallContext, Bridge, CallContext
from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.atlas.model import Action, Atlas, PythonExecutor
from cra_mcp.errors import ActionError, AskError, ExecutionError
from cra_mcp.execution.backend import BoundAction, Invocation, Result
from cra_mcp.execution.modules import load_module
from cra_mcp.execution.values import NotJsonError, json_value, whole
from cra_mcp.execution.workers import Loops, Threads

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MAX_FAULTS = 5
_log = logging.getLogger("cra_mcp")


class PythonBackend:
    """Carries out actions of type ``python``.

    Args:
        max_threads: synchronous functions running at once; further ones wait for a thread.
    """

    executor_type: ClassVar[str] = "python"

    def __init__(self, *, max_threads: int = 32) -> None:
        self._max_threads = max_threads
        self._threads = Threads(max_threads)
        self._loops = Loops()

    def bind(self, action: Action, atlas: Atlas) -> BoundAction:
        """Tie ``action`` to its function, which is imported when it is first called."""
        executor = action.executor
        if not isinstance(executor, PythonExecutor):
            raise ExecutionError("no_executor", f"{action.action_id} has no executor of type python")
        name, _, attribute = executor.callable.partition(":")
        found: _Function | None = None

        async def run(invocation: Invocation) -> Result:
            nonlocal found
            if found is None:
                load = partial(_load, action.action_id, name, attribute, atlas)
                found = await self._threads.run(load)
            _check_taken(found, invocation.parameters, executor.context)
            if executor.context is None:
                return await self._carry_out(found, invocation.parameters)
            bridge = Bridge(
                invocation.client,
                action_id=invocation.action_id,
                session_id=invocation.session_id,
                execution_id=invocation.execution_id,
            )
            context = CallContext(bridge) if found.is_async else BlockingCallContext(bridge)
            try:
                return await self._carry_out(found, {**invocation.parameters, executor.context: context})
            finally:
                bridge.close()

        return run

    async def _carry_out(self, function: "_Function", parameters: Mapping[str, object]) -> Result:
        if function.is_async:
            return await self._loops.run(partial(_await, function, parameters))
        return await self._threads.run(partial(_call, function, parameters))

    async def aclose(self) -> None:
        """Let threads end after their work, and end the event loop of asynchronous functions."""
        old, self._threads = self._threads, Threads(self._max_threads)
        old.close()
        await self._loops.aclose()


@dataclass(frozen=True, slots=True)
class _Function:
    """A function and the action it carries out."""

    action_id: str
    call: Callable[..., object]
    is_async: bool
    signature: inspect.Signature | None


def _load(action_id: str, name: str, attribute: str, atlas: Atlas) -> _Function:
    try:
        module = load_module(name, root=atlas.root, digest=atlas.digest)
    except ExecutionError:
        raise
    except BaseException as error:  # SystemExit included
        raise ExecutionError(
            "execution_failed",
            f"{action_id} failed: its module could not be imported ({type(error).__name__})",
            hint="check the callable in the atlas, and that what the module imports is installed",
        ) from error
    function: object = getattr(module, attribute, None)
    if not callable(function):
        raise ExecutionError(
            "execution_failed",
            f"{action_id} failed: its module has no such function",
            hint="check the callable in the atlas",
        )
    method = getattr(function, "__call__", None)  # noqa: B004 - of an instance, its class may define it as async
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(method)
    return _Function(action_id, function, is_async, _signature(function))


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    """What it takes; None of some that are not written in Python, which then refuse by themselves."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _check_taken(function: _Function, parameters: Mapping[str, object], context: str | None) -> None:
    """Refuse, before it runs, what the function doesn't take, and what it can't do without.

    Raises:
        ExecutionError: ``invalid_parameters``, with each of them.
    """
    if function.signature is None:
        return
    every = function.signature.parameters.values()
    taken = {each.name: each for each in every if each.kind in _BY_NAME and each.name != context}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in every)
    unknown = [name for name in parameters if name not in taken and (not takes_any or name == context)]
    missing = [name for name, each in taken.items() if each.default is each.empty and name not in parameters]
    faults = [(pointer(name), "is no parameter of its function") for name in unknown]
    faults += [(pointer(name), "is required by its function") for name in missing]
    if faults:
        told = "; ".join(f"{at} {message}" for at, message in faults[:_MAX_FAULTS])
        raise ExecutionError(
            "invalid_parameters",
            f"{function.action_id} was not carried out: {told}",
            hint="leave out what it doesn't take; its parameters_schema should declare what the function takes, and no more",
            faults=faults[:_MAX_FAULTS],
        )


def _call(function: _Function, parameters: Mapping[str, object]) -> Result:
    try:
        value = function.call(**parameters)
    except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
        return _failure(function, error)
    return _result(function, value)


async def _await(function: _Function, parameters: Mapping[str, object]) -> Result:
    try:
        value = await cast("Awaitable[object]", function.call(**parameters))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
        return _failure(function, error)
    return _result(function, value)


def _result(function: _Function, value: object) -> Result:
    try:
        if isinstance(value, Content):
            return _several(value)
        return Result(value=json_value(value))
    except NotJsonError as error:
        if inspect.iscoroutine(value):
            value.close()
        raise ExecutionError(
            "invalid_result",
            f"{function.action_id} returned what is not JSON: {error}",
            hint="return dicts, lists, strings, finite numbers, booleans, None, or a Content of them",
        ) from error


def _several(content: Content) -> Result:
    blocks = tuple(cast("list[Mapping[str, object]]", json_value([dict(block) for block in content.blocks])))
    if not all(is_block(block) for block in blocks):
        raise NotJsonError("a block of its Content has the wrong form")
    return Result(value=json_value(content.value), content=blocks)


def _failure(function: _Function, error: BaseException) -> Result:
    """What the agent learns of an exception: its type, or what an ActionError says."""
    if isinstance(error, AskError):
        raise error
    if isinstance(error, ActionError):
        return Result(value={"error": whole(error.message)}, is_error=True)
    _log.debug("%s raised", function.action_id, exc_info=error)
    raise ExecutionError("execution_failed", f"{function.action_id} failed: {type(error).__name__}") from error
