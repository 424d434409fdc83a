"""The entry point: the command line together with the commands that speak MCP.

Rule: the only place that knows several faces. MCP is imported when a command that speaks it runs, not before.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cra_mcp.faces.cli.app import app, run
from cra_mcp.faces.cli.options import AgentId, Atlases, DataDir, Goal, TraceDir, config_of, reporting
from cra_mcp.faces.cli.output import EPILOG, say
from cra_mcp.faces.cli.shipped import atlas_path
from cra_mcp.faces.demo import demo

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig


@app.command(epilog=EPILOG)
def serve(
    atlas: Atlases,
    transport: Annotated[Literal["stdio"], typer.Option(help="How the host connects.")] = "stdio",
    agent_id: AgentId = None,
    goal: Goal = "",
    control_tools: Annotated[
        Literal["none", "default", "all"], typer.Option(help="Which cra_ tools the agent gets.")
    ] = "default",
    record: Annotated[
        Literal["none", "hash", "redacted", "full"] | None, typer.Option(help="What traces keep of parameters.")
    ] = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to stderr.")] = False,
) -> None:
    """Serve the actions of atlases to an MCP host over standard input and output.

    A host starts this; in a terminal it waits for JSON-RPC. Log lines go to stderr.

    Examples:

      cra-mcp serve --atlas customer-support

      cra-mcp serve --atlas ./my-atlas --atlas devops --agent-id ci --control-tools none
    """
    _log_to_stderr(verbose=verbose)
    with reporting():
        config = config_of(data_dir=data_dir, trace_dir=trace_dir, recording=record)
        paths = [atlas_path(text) for text in atlas]
        _serve(config, paths, agent_id=agent_id, goal=goal, control_tools=control_tools)


def _serve(
    config: "RuntimeConfig",
    paths: list[Path],
    *,
    agent_id: str | None,
    goal: str,
    control_tools: Literal["none", "default", "all"],
) -> None:
    import anyio  # noqa: PLC0415 - not for --help

    from cra_mcp.compose import CRARuntime  # noqa: PLC0415 - not for --help

    async def main() -> None:
        runtime = CRARuntime(config)
        for path in paths:
            runtime.load_atlas(path)  # before the second that importing MCP takes: a bad atlas is told at once
        from cra_mcp.faces.mcp.server import ServeOptions, serve_stdio  # noqa: PLC0415 - as said

        async with runtime:
            await serve_stdio(runtime, ServeOptions(agent_id=agent_id, goal=goal, control_tools=control_tools))

    if sys.stdin.isatty():
        say("waiting for an MCP host on standard input; Ctrl-C ends")
    anyio.run(main)


def _log_to_stderr(*, verbose: bool) -> None:
    """Log lines as JSON on stderr, or as text where a person reads them. Standard output belongs to the protocol."""
    import structlog  # noqa: PLC0415 - only servers log

    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("cra_mcp").setLevel(logging.DEBUG if verbose else logging.INFO)


app.command(epilog=EPILOG)(demo)


def main() -> None:
    """Run the command line."""
    run()
