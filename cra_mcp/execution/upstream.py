"""What the supervision of upstreams and their connections say to each other; knows nothing of the protocol.

Source: specs/atlas.md, "Upstreams".
"""

import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from cra_mcp.atlas.model import Atlas, Upstream
from cra_mcp.authority import split_url
from cra_mcp.errors import ExecutionCode, ExecutionError
from cra_mcp.execution.backend import Progress
from cra_mcp.execution.environment import child_environment, expand
from cra_mcp.execution.process import find_program, working_folder

Era = Literal["legacy", "auto"]
"""How a connection is opened: by the handshake of 2025 and before, or by asking first what the server speaks."""


@dataclass(frozen=True, slots=True)
class StdioTarget:
    """A program to start. ``environ`` is all it inherits; ``debug_log`` gets its standard error."""

    argv: tuple[str, ...] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    cwd: Path | None
    debug_log: Path | None = None


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An endpoint to post to."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


Target = StdioTarget | HttpTarget


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a connection was ended from this side."""

    code: ExecutionCode
    message: str

    def error(self) -> ExecutionError:
        """What each call in flight is told."""
        return ExecutionError(self.code, self.message)


class WrongEraError(Exception):
    """The server is there, but does not open a connection in this way."""


class CallLostError(Exception):
    """A call has no answer because its connection ended.

    Attributes:
        sent: whether the upstream may have received it.
    """

    def __init__(self, *, sent: bool) -> None:
        super().__init__()
        self.sent = sent


class Connection(Protocol):
    """An open connection to an upstream."""

    @property
    def era(self) -> Era:
        """How to open the next one."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it can't be used any more."""
        ...

    async def call(
        self, tool: str, arguments: Mapping[str, object], on_progress: Progress | None
    ) -> Mapping[str, object]:
        """The result of a tool as it came over the wire, checked against the protocol.

        Raises:
            CallLostError: the connection ended.
            ExecutionError: the upstream refused the call, or broke a bound.
        """
        ...

    async def wait_closed(self) -> None:
        """Until it can't be used any more."""
        ...

    def give_up(self) -> None:
        """Close it."""
        ...


Definition = tuple[object, ...]
"""All that makes an upstream the one it is."""


def definition_of(atlas: Atlas, spec: Upstream) -> Definition:
    """What an upstream is started with, the files of its atlas that it is started from included, as they are now."""
    root = atlas.root
    files = [(text, *_seen(root / text)) for text in (spec.command, *spec.args) if root is not None and text]
    return (
        *(atlas.atlas_id, str(root), spec.name, spec.command, spec.args, spec.cwd, spec.url),
        *(tuple(sorted(spec.env.items())), tuple(sorted(spec.headers.items())), tuple(files)),
    )


def _seen(path: Path) -> tuple[int, ...]:
    with suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return (status.st_size, status.st_mtime_ns, status.st_ino)
    return ()


def target_of(
    upstream: Upstream, *, root: Path | None, environ: Mapping[str, str], debug_log: Path | None = None
) -> Target:
    """The program or endpoint of an upstream, references to the environment filled in.

    Raises:
        ExecutionError: ``missing_setting``, or ``execution_failed``: there is no such program or folder.
    """
    if upstream.url is not None:
        headers = {name: expand(value, environ) for name, value in upstream.headers.items()}
        url = expand(upstream.url, environ)
        try:
            split_url(url, {"http", "https"})
        except ValueError:
            raise ExecutionError(
                "upstream_unavailable",
                f"the URL of upstream {upstream.name} is none",
                hint="write http(s)://HOST[:PORT]/PATH, without a name or password, and check the variables in it",
            ) from None
        return HttpTarget(url, headers)
    inherited = child_environment(environ)
    inherited.update({name: expand(value, environ) for name, value in upstream.env.items()})
    cwd = None if upstream.cwd is None else expand(upstream.cwd, environ)
    program = find_program(upstream.command or "", environ=inherited, folder=root)
    arguments = tuple(expand(argument, environ) for argument in upstream.args)
    return StdioTarget((program, *arguments), inherited, working_folder(cwd, folder=root), debug_log)
