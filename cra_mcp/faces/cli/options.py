"""Options that several commands share, and the runtime they make."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra_mcp.errors import CRAError
from cra_mcp.faces.cli.output import fail
from cra_mcp.faces.cli.shipped import atlas_path
from cra_mcp.settings import RuntimeConfig, from_environment

if TYPE_CHECKING:
    from cra_mcp.compose import CRARuntime

Atlases = Annotated[
    list[str], typer.Option("--atlas", help="Atlas folder, .json file, or the name of a shipped one. Can be repeated.")
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of traces and approvals. Default: the platform's, or CRA_DATA_DIR."),
]
TraceDir = Annotated[
    Path | None, typer.Option("--trace-dir", help="Folder of traces. Default: traces/ in the data folder.")
]
AgentId = Annotated[str | None, typer.Option("--agent-id", help="Who the agent is, for policies and traces.")]
Goal = Annotated[str, typer.Option("--goal", help="What the work is for.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def config_of(**given: Any) -> RuntimeConfig:
    """The configuration of the environment with what was given on the command line.

    Raises:
        SettingsError: a value can't be used.
    """
    values = {name: value for name, value in given.items() if value is not None}
    return replace(from_environment(os.environ), **values)


@contextmanager
def runtime_of(config: RuntimeConfig, atlases: list[str] | None = None) -> Generator["CRARuntime"]:
    """A runtime with atlases loaded, closed at the end. Errors end the command."""
    from cra_mcp.compose import CRARuntime  # noqa: PLC0415 - not for --help

    with CRARuntime(config) as runtime:
        for text in atlases or []:
            runtime.load_atlas(atlas_path(text))
        yield runtime


@contextmanager
def reporting() -> Generator[None]:
    """Errors of ours end the command with their message, hint and exit code."""
    try:
        yield
    except CRAError as error:
        fail(error)
