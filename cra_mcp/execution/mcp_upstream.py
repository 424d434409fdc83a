"""Calls tools of upstream MCP servers, which are started when they are first needed and again when they have died.

Rule: one connection an upstream, held by one task that this back end owns, for as long as an atlas in force defines the
upstream so. A call that was lost is made again only if it certainly did not arrive, or its action is idempotent; else its
outcome is said to be unknown.
Source: specs/atlas.md, "Upstreams".
"""

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self, cast

import anyio
import anyio.abc
import anyio.to_thread

from cra_mcp.atlas.model import Action, Atlas, McpExecutor, Upstream
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import BoundAction, Invocation, Result
from cra_mcp.execution.upstream import (
    CallLostError,
    Connection,
    Definition,
    Era,
    HttpTarget,
    Target,
    WrongEraError,
    definition_of,
    target_of,
)

_CLOSE_TIMEOUT_S = 6.0
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0


class McpBackend:
    """Carries out actions of type ``mcp``. Works between ``async with`` and its end, on that event loop.

    Args:
        environ: where references and inherited variables are looked up; None means this process's environment.
        connect_timeout_s: for starting or reaching an upstream, up to its first answer.
        debug_log: where programs' standard error goes; None: nowhere.
    """

    executor_type: ClassVar[str] = "mcp"

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        connect_timeout_s: float = 30.0,
        debug_log: Path | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._connect_timeout_s = connect_timeout_s
        self._debug_log = debug_log
        self._upstreams: dict[Definition, _Supervised] = {}
        self._definitions: dict[tuple[str, str], Definition] = {}
        self._named: frozenset[Definition] | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Make calls possible. Starts nothing."""
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks, self._loop = tasks, asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every upstream."""
        tasks = self._tasks
        if tasks is None:
            return
        await self.aclose()
        self._tasks = self._loop = None
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)

    def bind(self, action: Action, atlas: Atlas) -> BoundAction:
        """Tie ``action`` to a tool of its upstream."""
        executor = action.executor
        if not isinstance(executor, McpExecutor):
            raise ExecutionError("no_executor", f"{action.action_id} has no executor of type mcp")
        upstream = atlas.upstreams.get(executor.upstream)
        if upstream is None:
            raise ExecutionError("no_executor", f"the atlas of {action.action_id} has no such upstream")
        tool, definition = executor.tool, self._definition(atlas, upstream)

        async def run(invocation: Invocation) -> Result:
            supervised = self._supervised(definition, atlas.root, upstream)
            supervised.calls += 1
            try:
                return await self._run(supervised, action, tool, invocation)
            finally:
                supervised.calls -= 1
                self._let_go()

        return run

    def retain(self, atlases: Sequence[Atlas]) -> None:
        """See ``Retaining``: an upstream goes on whose definition is the same as before an edit."""
        self._named = frozenset(self._definition(atlas, spec) for atlas in atlases for spec in atlas.upstreams.values())
        digests = {atlas.digest for atlas in atlases}
        self._definitions = {key: found for key, found in self._definitions.items() if key[0] in digests}
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has been closed, and everything with it
                loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        """End what no atlas defines any more and no call uses."""
        named = self._named
        if named is None:
            return
        for definition, upstream in list(self._upstreams.items()):
            if definition not in named and not upstream.calls:
                del self._upstreams[definition]
                upstream.close()

    def _definition(self, atlas: Atlas, spec: Upstream) -> Definition:
        key = (atlas.digest, spec.name)
        found = self._definitions.get(key)
        if found is None:
            found = self._definitions[key] = definition_of(atlas, spec)
        return found

    async def aclose(self) -> None:
        """End every upstream and wait, bounded, until they have ended. Calls in flight are lost."""
        ended, self._upstreams = self._upstreams, {}
        for upstream in ended.values():
            upstream.close()
        with anyio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
            for upstream in ended.values():
                await upstream.wait_ended()

    async def _run(self, upstream: "_Supervised", action: Action, tool: str, invocation: Invocation) -> Result:
        for last in (False, True):
            connection = await upstream.connection()
            try:
                raw = await connection.call(tool, invocation.parameters, invocation.on_progress)
            except CallLostError as lost:
                if not last and (action.idempotent or not lost.sent):
                    continue
                raise _lost(upstream.name, sent=lost.sent) from lost
            except ExecutionError:
                if not connection.closed:
                    upstream.works()
                raise
            upstream.works()
            return _result(raw)
        raise AssertionError  # the last round returns or raises

    def _supervised(self, definition: Definition, root: Path | None, spec: Upstream) -> "_Supervised":
        if self._tasks is None:
            raise ExecutionError(
                "upstream_unavailable",
                f'the upstream "{spec.name}" can\'t be used before the runtime is entered',
                hint="use the runtime in an `async with` statement",
            )
        found = self._upstreams.get(definition)
        if found is None:

            def target() -> Target:
                return target_of(spec, root=root, environ=self._environ, debug_log=self._debug_log)

            found = _Supervised(spec.name, target, self._tasks, self._connect_timeout_s)
            self._upstreams[definition] = found
        return found


class _Attempt:
    """One attempt to connect, and the connection that came of it."""

    def __init__(self) -> None:
        self.settled = anyio.Event()
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.connection: Connection | None = None
        self.error: ExecutionError | None = None

    @property
    def usable(self) -> bool:
        """Whether it is under way, or its connection can be used."""
        return not self.settled.is_set() or (self.connection is not None and not self.connection.closed)

    def settle(self, connection: Connection | None, error: ExecutionError | None = None) -> None:
        """Say what came of it, once."""
        if not self.settled.is_set():
            self.connection, self.error = connection, error
            self.settled.set()

    def close(self) -> None:
        """End it: politely if it is connected."""
        if self.connection is not None:
            self.connection.give_up()
        else:
            self.scope.cancel()


class _Supervised:
    """Keeps one upstream connected while it is in use."""

    def __init__(
        self, name: str, target: Callable[[], Target], tasks: anyio.abc.TaskGroup, connect_timeout_s: float
    ) -> None:
        self.name = name
        self.calls = 0
        self._target = target
        self._tasks = tasks
        self._connect_timeout_s = connect_timeout_s
        self._current: _Attempt | None = None
        self._attempts: set[_Attempt] = set()
        self._era: Era | None = None
        self._unproven = 0  # attempts since the last answered call
        self._not_before = -math.inf

    async def connection(self) -> Connection:
        """The connection, opened if there is none.

        Raises:
            ExecutionError: ``upstream_unavailable``: it can't be opened, or not yet again; ``missing_setting``.
        """
        attempt = self._current
        if attempt is None or not attempt.usable:
            attempt = self._begin()
        if not attempt.settled.is_set():
            await attempt.settled.wait()
        if attempt.connection is None:
            error = attempt.error or _unavailable(self.name, "was closed")
            raise _unavailable(self.name, error.message, error.hint) from error
        return attempt.connection

    def works(self) -> None:
        """Note that a call was answered: the next death is not held against it."""
        self._unproven = 0
        self._not_before = -math.inf

    def close(self) -> None:
        """End every connection."""
        for attempt in self._attempts:
            attempt.close()

    async def wait_ended(self) -> None:
        """Until nothing of it is left."""
        for attempt in list(self._attempts):
            await attempt.ended.wait()

    def _begin(self) -> _Attempt:
        wait = self._not_before - anyio.current_time()
        if wait > 0:
            raise _unavailable(
                self.name, f"it failed {self._unproven} times in a row", f"it is tried again in {math.ceil(wait)} s"
            )
        try:
            target = self._target()
        except ExecutionError as error:
            if error.code == "missing_setting":
                raise
            raise _unavailable(self.name, error.message, error.hint) from error
        self._unproven += 1
        attempt = self._current = _Attempt()
        self._attempts.add(attempt)
        self._tasks.start_soon(self._hold, attempt, target)
        return attempt

    async def _hold(self, attempt: _Attempt, target: Target) -> None:
        """Open a connection and keep it until it is closed: what is entered in a task has to be left in it."""
        try:
            with attempt.scope:
                await self._open(attempt, target)
            late = attempt.scope.cancelled_caught and anyio.current_time() >= attempt.scope.deadline
            attempt.settle(
                None,
                _failure(f"it gave no answer in {self._connect_timeout_s:g} s" if late else "it was closed"),
            )
        except ExecutionError as error:
            attempt.settle(None, error)
        except Exception as error:  # noqa: BLE001 - the SDK and what is beneath it raise anything, also in groups
            attempt.settle(None, _failure(f"its connection broke ({type(error).__name__})"))
        finally:
            attempt.settle(None, _failure("it was closed"))
            if attempt.connection is not None:
                attempt.connection.give_up()
            if self._unproven > 1 and attempt is self._current:
                delay = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2 ** (self._unproven - 2))
                self._not_before = anyio.current_time() + delay
            self._attempts.discard(attempt)
            attempt.ended.set()

    async def _open(self, attempt: _Attempt, target: Target) -> None:
        connect = await anyio.to_thread.run_sync(_load_client, limiter=anyio.CapacityLimiter(1))
        attempt.scope.deadline = anyio.current_time() + self._connect_timeout_s
        for era in self._eras(target):
            try:
                async with connect(target, era, connect_timeout_s=self._connect_timeout_s) as connection:
                    attempt.scope.deadline = math.inf
                    self._era = connection.era
                    attempt.settle(connection)
                    await connection.wait_closed()
                    return
            except WrongEraError:
                continue
        raise _failure("it does not speak a known version of MCP")

    def _eras(self, target: Target) -> tuple[Era, ...]:
        """How to open a connection, in order. Over a pipe the handshake comes first: it costs less, then and later."""
        known = self._era or ("auto" if isinstance(target, HttpTarget) else "legacy")
        return ("auto",) if known == "auto" else ("legacy", "auto")


class _Connect(Protocol):
    """What ``mcp_client.connect`` is."""

    def __call__(
        self, target: Target, era: Era, *, connect_timeout_s: float
    ) -> AbstractAsyncContextManager[Connection]: ...


def _load_client() -> _Connect:
    from cra_mcp.execution.mcp_client import connect  # noqa: PLC0415 - imports mcp, which takes a second

    return connect


def _result(raw: Mapping[str, object]) -> Result:
    return Result(
        value=raw.get("structuredContent"),
        content=tuple(cast("list[Mapping[str, object]]", raw.get("content") or [])),
        is_error=raw.get("isError") is True,
        meta=cast("Mapping[str, object] | None", raw.get("_meta")),
    )


def _lost(name: str, *, sent: bool) -> ExecutionError:
    if sent:
        return ExecutionError(
            "upstream_lost",
            f'the upstream "{name}" was lost during the call: its outcome is unknown',
            hint="find out whether it took effect before calling again",
        )
    return _unavailable(name, "it was lost before the call reached it", "call again")


def _failure(message: str) -> ExecutionError:
    return ExecutionError("upstream_unavailable", message)


def _unavailable(name: str, why: str, hint: str | None = None) -> ExecutionError:
    return ExecutionError(
        "upstream_unavailable",
        f'the upstream "{name}" is not available: {why}',
        hint=hint
        or "check its entry in the atlas; what it writes to standard error goes to the debug log (CRA_DEBUG_LOG), if there is one",
    )
