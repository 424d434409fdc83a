"""Options that several commands share, and the runtime they make."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cra_mcp.faces.cli.output import emit_text

if TYPE_CHECKING:
    from cra_mcp.compose import CRARuntime
    from cra_mcp.settings import RuntimeConfig

Atlases = Annotated[
    list[str],
    typer.Option(
        "--atlas", metavar="PATH", help="Atlas folder, .json file, or name of a shipped one. Can be repeated."
    ),
]
PolicyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="Your own policies, JSON or YAML: they govern every action and only tighten. Can be repeated. "
        "Default: CRA_POLICY_FILES.",
    ),
]
Overlays = Annotated[
    list[Path] | None,
    typer.Option(
        "--overlay",
        metavar="PATH",
        help="Atlas whose policies govern every action, or name of a shipped one. Can be repeated. Default: CRA_OVERLAYS.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of traces and approvals. Default: CRA_DATA_DIR, or the platform's."),
]
TraceDir = Annotated[
    Path | None,
    typer.Option("--trace-dir", help="Folder of traces. Default: CRA_TRACE_DIR, or traces/ in the data folder."),
]
Store = Annotated[
    str | None,
    typer.Option("--store", metavar="STORE", help="Where traces are: `file` (default), `memory`, or `sqlite:PATH`."),
]
AgentId = Annotated[str | None, typer.Option("--agent-id", help="Who the agent is, for policies and traces.")]
Goal = Annotated[str, typer.Option("--goal", metavar="TEXT", help="What the work is for.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _show_help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        emit_text(context.get_help())
        raise typer.Exit


# As the one typer adds, but false where it isn't given: typer loads pydantic, for longer than the help itself takes, to find
# out that the one it adds was not given to a group on the way to a command.
GroupHelp = Annotated[
    bool, typer.Option("-h", "--help", callback=_show_help, is_eager=True, help="Show this message and exit.")
]


def config_of(**given: Any) -> "RuntimeConfig":
    """The configuration of the environment with what was given on the command line.

    Raises:
        SettingsError: a value can't be used.
    """
    from dataclasses import replace  # noqa: PLC0415 - not for --help

    from cra_mcp.faces.cli.shipped import overlay_path  # noqa: PLC0415 - not for --help
    from cra_mcp.settings import from_environment  # noqa: PLC0415 - not for --help

    values = {
        name: tuple(cast("list[object]", value)) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    config = replace(from_environment(os.environ), **values)
    # Hosts start servers without a shell, so nobody else expands a tilde in their configuration.
    folders = {name: getattr(config, name) for name in ("data_dir", "trace_dir")}
    return replace(
        config,
        policy_files=tuple(path.expanduser() for path in config.policy_files),
        overlays=tuple(map(overlay_path, config.overlays)),
        **{name: folder.expanduser() for name, folder in folders.items() if folder is not None},
    )


@contextmanager
def runtime_of(config: "RuntimeConfig", atlases: Sequence[str]) -> Generator["CRARuntime"]:
    """A runtime with atlases loaded, closed at the end.

    Raises:
        AtlasConflictError: two atlases claim the same name.
        AtlasInvalidError: an atlas can't be loaded.
        SettingsError: there is no such atlas.
    """
    from cra_mcp.compose import CRARuntime  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    with CRARuntime(config) as runtime:
        for text in atlases:
            runtime.load_atlas(atlas_path(text))
        yield runtime
