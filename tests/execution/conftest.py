"""Shared by the tests of back ends: atlases made of plain values, calls, and what is known of processes."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from cra_mcp.atlas.model import Action, Atlas, Executor, Upstream
from cra_mcp.execution.backend import Backend, Invocation, Progress, Result
from cra_mcp.policy.engine import compile_policies
from tests.clients import install
from tests.execution.http_service import Service, serving

HERE = Path(__file__).parent
SERVER = HERE / "upstreams" / "server.py"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Kit:
    """Makes atlases and calls their actions on a back end. ``folder`` is a scratch folder and the root of the atlases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digest = sha256(str(folder).encode()).hexdigest()

    def action(self, executor: Executor | None, schema: Mapping[str, object] | None = None, **fields: object) -> Action:
        base = Action(
            action_id="test.action",
            name="Test",
            description="",
            parameters_schema=schema or {"type": "object"},
            executor=executor,
        )
        return replace(base, **fields)  # type: ignore[arg-type]

    def atlas(self, *upstreams: Upstream, root: bool = True) -> Atlas:
        return Atlas(
            atlas_id="test.atlas",
            version="1.0.0",
            name="Test",
            description="",
            digest=self.digest,
            actions=(),
            policies=(),
            policy_set=compile_policies([], [], "allow"),
            upstreams={upstream.name: upstream for upstream in upstreams},
            root=self.folder if root else None,
        )

    def server(self, mode: str, *arguments: str, name: str = "up", **fields: object) -> Upstream:
        """An upstream that is a small script speaking raw JSON-RPC (upstreams/server.py)."""
        args = ("-S", str(SERVER), mode, str(self.folder), *arguments)
        return replace(Upstream(name, command=sys.executable, args=args), **fields)  # type: ignore[arg-type]

    async def call(
        self,
        backend: Backend,
        action: Action,
        atlas: Atlas | None = None,
        parameters: Mapping[str, object] | None = None,
        on_progress: Progress | None = None,
    ) -> Result:
        bound = backend.bind(action, atlas or self.atlas())
        return await bound(self.invocation(parameters, on_progress))

    def invocation(
        self, parameters: Mapping[str, object] | None = None, on_progress: Progress | None = None
    ) -> Invocation:
        return Invocation("test.action", "session", "execution", parameters or {}, on_progress)

    def python(self, source: str, name: str = "tool") -> None:
        """Write a module into the ``python/`` folder of the atlas."""
        path = self.folder / "python" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Until ``condition`` holds; fails if it never does."""
        with anyio.fail_after(timeout_s):
            while not condition():
                await anyio.sleep(0.005)

    async def text_of(self, name: str) -> str:
        """What another process or thread writes into a file of the scratch folder, when it is there."""
        path = self.folder / name
        await self.until(lambda: path.exists() and path.read_text().endswith("\n"))
        return path.read_text().strip()

    def alive(self, pid: int) -> bool:
        """Whether a process runs (a zombie does not)."""
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            if sys.platform == "linux":
                return False
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return False
            return True
        return state not in "ZX"

    def reaped(self, pid: int) -> bool:
        """Whether nothing is left of a process, its threads included: until then it may hold its pipes."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    @asynccontextmanager
    async def started(self, call: Callable[[], Awaitable[object]]) -> AsyncIterator[anyio.CancelScope]:
        """A call under way in a task of its own, ended (by cancellation) when the context is left."""
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                with anyio.CancelScope():
                    await call()

            tasks.start_soon(run)
            yield tasks.cancel_scope
            tasks.cancel_scope.cancel()


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture(scope="session")
def clients() -> ModuleType:
    """tests/clients/install.py, everything installed."""
    install.ready()
    return install


@pytest.fixture
def service() -> Iterator[Service]:
    """An HTTP service on loopback."""
    with serving() as started:
        yield started
