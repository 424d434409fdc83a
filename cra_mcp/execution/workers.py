"""Threads that carry out Python actions, so that no action can stall the event loop of the server.

Rule: bounded in number, and a thread stays counted until its work has really ended: work that was abandoned at a
timeout can't pile up threads without limit. Threads are daemons: work that never ends does not keep the process
alive.

This speaks asyncio directly and not ``anyio.to_thread``: the hand-over costs a third (30 instead of 90 microseconds
where it was measured), and anyio gives the slot of an abandoned thread away while the thread still runs.
"""

import asyncio
import collections
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from cra_mcp.errors import ExecutionError

T = TypeVar("T")

CANCEL_GRACE_S = 1.0
"""How long a cancelled coroutine may clean up before its call is answered without it."""

_MAX_LOOPS = 4


class _Inbox:
    """Callbacks for an event loop from other threads; however many come before it looks, it is woken once.

    Waking a loop is a write to a pipe, and with it a change of threads: under load that cost more than the hand-over itself.
    """

    __slots__ = ("_callbacks", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: collections.deque[Callable[[], object]] = collections.deque()
        self._woken = False

    def put(self, callback: Callable[[], object]) -> None:
        """Have the loop call ``callback`` soon. From any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        # Put first, asked second; ``_call`` does it the other way round, so that none is left lying.
        self._callbacks.append(callback)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._call)
            except RuntimeError:
                self._woken = False
                raise

    def _call(self) -> None:
        self._woken = False
        while self._callbacks:
            self._loop.call_soon(self._callbacks.popleft())  # each by itself: one that fails is not the others' loss


_inbox: anyio.lowlevel.RunVar[_Inbox] = anyio.lowlevel.RunVar("cra_inbox")


def _inbox_of_loop() -> _Inbox:
    """Of the running event loop."""
    try:
        return _inbox.get()
    except LookupError:
        inbox = _Inbox(asyncio.get_running_loop())
        _inbox.set(inbox)
        return inbox


class _Handover(Generic[T]):
    """Where a task waits for an outcome made in another thread."""

    __slots__ = ("_future", "_inbox", "_loop", "settled")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox = _inbox_of_loop()
        self._future: asyncio.Future[tuple[T | None, BaseException | None]] = self._loop.create_future()
        self.settled = False

    def give(self, value: T | None, error: BaseException | None = None) -> None:
        """Hand the outcome over, from any thread."""
        with contextlib.suppress(RuntimeError):  # the waiting loop is closed: nobody is left to tell
            self._inbox.put(partial(self._settle, value, error))

    async def wait(self) -> T:
        """The outcome."""
        value, error = await self._future
        if error is not None:
            raise error
        return value  # pyright: ignore[reportReturnType] - without an error there is a value

    async def settle(self) -> None:
        """Until there is an outcome, after ``wait`` was cancelled."""
        if not self.settled:
            self._future = self._loop.create_future()
            await self._future

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        self.settled = True
        if not self._future.done():
            self._future.set_result((value, error))


class _Call(Generic[T]):
    """A function on its way through a thread. The flags are guarded by the lock of its threads."""

    __slots__ = ("abandoned", "context", "function", "handover", "running")

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.handover: _Handover[T] = _Handover()
        self.running = False
        self.abandoned = False

    def carry_out(self) -> None:
        try:
            value = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's and must not end the thread
            self.handover.give(None, error)
        else:
            self.handover.give(value)


class Threads:
    """Threads for functions that block.

    Args:
        max_threads: how many there may be; they are started when they are needed and then kept.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._queue: queue.SimpleQueue[_Call[object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        self._held = 0

    async def run(self, function: Callable[[], T]) -> T:
        """The outcome of ``function``, called in a thread with the caller's context variables.

        A cancelled caller leaves at once; the function goes on, since nothing can stop it, and holds its thread until
        it ends.

        Raises:
            ExecutionError: ``busy``: every thread is held by a function whose caller has left.
        """
        call = _Call(function)
        self._submit(call)
        try:
            return await call.handover.wait()
        except asyncio.CancelledError:
            self._abandon(call)
            raise

    def close(self) -> None:
        """Let every thread end when its work is done."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _submit(self, call: _Call[T]) -> None:
        with self._lock:
            if self._held >= self._max_threads:
                raise ExecutionError(
                    "busy",
                    f"all {self._max_threads} worker threads are held by earlier calls that timed out and still run",
                    hint="wait; if it stays like this, an action never ends and the server has to be restarted",
                )
            self._unfinished += 1
            grow = self._unfinished > self._threads and self._threads < self._max_threads
            if grow:
                self._threads += 1
        self._queue.put(call)  # pyright: ignore[reportArgumentType] - the queue holds calls of any outcome
        if grow:
            threading.Thread(target=self._work, name="cra-action", daemon=True).start()

    def _abandon(self, call: _Call[T]) -> None:
        with self._lock:
            call.abandoned = True
            if call.running:
                self._held += 1

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            with self._lock:
                call.running = wanted = not call.abandoned
            if wanted:
                call.carry_out()
            with self._lock:
                self._unfinished -= 1
                if call.running and call.abandoned:
                    self._held -= 1
                call.running = False
            del call  # what it holds must not live until the next one


class Loops:
    """An event loop in a thread of its own, for coroutines that may not behave.

    A coroutine that does not end when it is cancelled (it computes, or swallows the cancellation) may have stalled
    the loop: the next call gets a new loop, and the old one ends when its coroutines do. There may be four of them.
    """

    def __init__(self) -> None:
        self._current: _Loop | None = None
        self._left: list[_Loop] = []

    async def run(self, make: Callable[[], Coroutine[object, object, T]]) -> T:
        """The outcome of the coroutine ``make`` makes. Cancelling cancels it and waits a moment for it to end.

        Raises:
            ExecutionError: ``busy``: too many loops are stalled.
        """
        loop = self._usable()
        handover: _Handover[T] = _Handover()
        cancel = loop.start(make, handover)
        try:
            return await handover.wait()
        except asyncio.CancelledError:
            cancel()
            try:
                with anyio.move_on_after(CANCEL_GRACE_S, shield=True):
                    await handover.settle()
            finally:
                if not handover.settled and self._current is loop:
                    self._left.append(loop)
                    self._current = None
            raise

    async def aclose(self) -> None:
        """Cancel what runs and end the loops; those that are stalled are left to themselves."""
        loops, self._left, self._current = [*self._left, self._current], [], None
        for loop in loops:
            if loop is not None:
                loop.stop()
        with anyio.move_on_after(CANCEL_GRACE_S, shield=True):
            for loop in loops:
                if loop is not None:
                    await loop.ended.wait()

    def _usable(self) -> "_Loop":
        for loop in [loop for loop in self._left if not loop.tasks]:
            loop.stop()
            self._left.remove(loop)
        if self._current is None:
            if len(self._left) >= _MAX_LOOPS - 1:
                raise ExecutionError(
                    "busy",
                    "earlier calls of async functions timed out and still keep their event loops",
                    hint="wait; if it stays like this, an action never ends and the server has to be restarted",
                )
            self._current = _Loop()
        return self._current


class _Loop:
    """One such loop."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[object]] = set()
        self.ended: _Handover[None] = _Handover()
        self._loop = asyncio.new_event_loop()
        self._inbox = _Inbox(self._loop)
        self._stopping = False
        threading.Thread(target=self._run, name="cra-action-loop", daemon=True).start()

    def start(self, make: Callable[[], Coroutine[object, object, T]], handover: _Handover[T]) -> Callable[[], None]:
        """Start a coroutine; what is returned cancels it. Both can be called from another thread."""
        context = contextvars.copy_context()
        task: asyncio.Task[T] | None = None

        def done(finished: asyncio.Task[T]) -> None:
            self.tasks.discard(finished)  # pyright: ignore[reportArgumentType] - the set holds tasks of any outcome
            if finished.cancelled():
                handover.give(None, ExecutionError("execution_failed", "the function cancelled itself"))
            elif (error := finished.exception()) is not None:
                handover.give(None, error)
            else:
                handover.give(finished.result())

        def begin() -> None:
            nonlocal task
            task = self._loop.create_task(make(), context=context)
            self.tasks.add(task)  # pyright: ignore[reportArgumentType]
            task.add_done_callback(done)

        def cancel() -> None:
            if task is not None:
                task.cancel()

        self._inbox.put(begin)
        return lambda: self._tell(cancel)

    def stop(self) -> None:
        """Cancel what runs, then end the loop."""
        self._stopping = True
        self._tell(self._loop.stop)

    def _tell(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self._inbox.put(what)

    def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(BaseException):  # a task's SystemExit ends that task, not the loop
                self._loop.run_forever()
        with contextlib.suppress(BaseException):
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(
                asyncio.wait(pending, timeout=CANCEL_GRACE_S) if pending else asyncio.sleep(0)
            )
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self.ended.give(None)
