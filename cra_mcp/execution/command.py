"""Runs commands: a program and its arguments, never a shell.

Rule: a child gets no input, an allow-listed environment and a group of its own; when the call ends, however it ends,
the whole group is dead. Source: specs/atlas.md, "Executor: command".
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping
from typing import ClassVar

import anyio

from cra_mcp.atlas.model import Action, Atlas, CommandExecutor
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.argv import Template, TemplateError
from cra_mcp.execution.backend import BoundAction, Invocation, Result
from cra_mcp.execution.environment import child_environment, expand
from cra_mcp.execution.process import Child, find_program, start, working_folder

MAX_OUTPUT_BYTES = 67_108_864
"""What a command may write to one stream in all. Up to it, what exceeds ``max_output_bytes`` is read and dropped."""

_PIPE_GRACE_S = 0.25
_REPARSED_BY_CMD = (".bat", ".cmd")


class CommandBackend:
    """Carries out actions of type ``command``.

    Args:
        environ: where references and inherited variables are looked up; None means this process's environment, as it
            is at the time of a call.
    """

    executor_type: ClassVar[str] = "command"

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._running: set[_Capture] = set()

    def bind(self, action: Action, atlas: Atlas) -> BoundAction:
        """Tie ``action`` to its command."""
        executor = action.executor
        if not isinstance(executor, CommandExecutor):
            raise ExecutionError("no_executor", f"{action.action_id} has no executor of type command")
        try:
            template = Template(executor.argv, action.parameters_schema)
        except TemplateError as error:
            raise ExecutionError("no_executor", f"the argv of {action.action_id} can't be used: {error}") from error

        async def run(invocation: Invocation) -> Result:
            return await self._run(template, executor, atlas, invocation)

        return run

    async def aclose(self) -> None:
        """Kill every command that still runs."""
        async with anyio.create_task_group() as tasks:
            for capture in list(self._running):
                tasks.start_soon(capture.end)

    async def _run(self, template: Template, executor: CommandExecutor, atlas: Atlas, invocation: Invocation) -> Result:
        arguments = template.arguments(invocation.parameters)
        environ = child_environment(self._environ, executor.env)
        cwd = executor.cwd if executor.cwd is None else expand(executor.cwd, self._environ)
        folder = working_folder(cwd, folder=atlas.root)
        program = find_program(template.program, environ=environ, folder=atlas.root)
        if program.lower().endswith(_REPARSED_BY_CMD) and template.has_parameters:
            raise ExecutionError(
                "execution_failed",
                "batch files can't be given parameters safely: Windows parses their command line a second time",
                hint="name the program the batch file starts",
            )
        capture = _Capture(executor.max_output_bytes)
        self._running.add(capture)
        try:
            await start(
                capture,
                [program, *arguments],
                environ=environ,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            try:
                await capture.finished()
            finally:
                await capture.end()
        finally:
            self._running.discard(capture)
        return capture.result()


class _Capture(Child):
    """A child whose output is kept up to a cap, and which is killed when it writes without end."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._kept = {1: bytearray(), 2: bytearray()}
        self._written = {1: 0, 2: 0}
        self._flooded = False
        self._open_pipes = 2
        self._pipes_closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self._kept[fd]
        kept += data[: self._max_bytes - len(kept)]
        self._written[fd] += len(data)
        if self._written[fd] > MAX_OUTPUT_BYTES and not self._flooded:
            self._flooded = True
            self.kill()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open_pipes -= 1
        if self._open_pipes == 0:
            self._pipes_closed.set()

    async def finished(self) -> None:
        """Until the program has ended and its output is in; not for a background child that keeps the pipes."""
        await self.exited.wait()
        with anyio.move_on_after(_PIPE_GRACE_S):
            await self._pipes_closed.wait()

    def result(self) -> Result:
        """What became of it.

        Raises:
            ExecutionError: ``output_too_large``.
        """
        if self._flooded:
            raise ExecutionError(
                "output_too_large",
                f"the command was killed: it wrote more than {MAX_OUTPUT_BYTES} bytes",
                hint="have it write less, or to a file",
            )
        value: dict[str, object] = {
            "exit_code": self.returncode,
            "stdout": self._kept[1].decode("utf-8", "replace"),
            "stderr": self._kept[2].decode("utf-8", "replace"),
            "truncated": any(self._written[fd] > self._max_bytes for fd in (1, 2)),
        }
        return Result(value=value, is_error=self.returncode != 0)
