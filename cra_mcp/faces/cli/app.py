"""The command line. Commands that speak MCP are made elsewhere and handed in, because faces don't know each other."""

from collections.abc import Callable, Iterable
from typing import Annotated, NoReturn

import typer

import cra_mcp
from cra_mcp.faces.cli import (
    approvals,
    atlases,
    checkpoints,  # noqa: F401  # pyright: ignore[reportUnusedImport] - adds commands to traces.app
    freezing,
    govern,
    keys,
    policies,
    replays,
    trace_export,
    trace_report,
    trace_search,
    trace_stats,
    trace_upkeep,
    traces,
    why,
)
from cra_mcp.faces.cli.conformance import conformance
from cra_mcp.faces.cli.docs import EXAMPLES as DOCS_EXAMPLES
from cra_mcp.faces.cli.docs import docs
from cra_mcp.faces.cli.doctor import doctor
from cra_mcp.faces.cli.exits import end, epilog
from cra_mcp.faces.cli.options import GroupHelp
from cra_mcp.faces.cli.output import emit, prepare_streams

Command = tuple[Callable[..., None], tuple[str, ...]]
"""A command's function, and examples of its use."""

_COMMANDS: tuple[Command, ...] = (
    (govern.resolve, govern.RESOLVE_EXAMPLES),
    (govern.execute, govern.EXECUTE_EXAMPLES),
    (approvals.pending, ("cra-mcp pending", "cra-mcp pending --json")),
    (approvals.approve, ("cra-mcp approve 01a1fbca", "cra-mcp approve 01a1fbca-d011-720e-b030-f1034a65cba2 --yes")),
    (approvals.deny, ("cra-mcp deny 01a1fbca",)),
    (freezing.freeze, freezing.FREEZE_EXAMPLES),
    (freezing.unfreeze, ("cra-mcp unfreeze --all", "cra-mcp unfreeze --agent bot")),
    (replays.replay, replays.REPLAY_EXAMPLES),
    (conformance, ("cra-mcp conformance", "cra-mcp conformance --group policy --json")),
    (doctor, ("cra-mcp doctor", "cra-mcp doctor --json")),
    (docs, DOCS_EXAMPLES),
)

_TRACE_COMMANDS: tuple[Command, ...] = (
    (why.why, why.EXAMPLES),
    (trace_stats.stats, trace_stats.EXAMPLES),
    (trace_report.report, trace_report.EXAMPLES),
    (trace_search.search, trace_search.SEARCH_EXAMPLES),
    (trace_search.index, trace_search.INDEX_EXAMPLES),
    (replays.diff, replays.DIFF_EXAMPLES),
    (trace_export.export, trace_export.EXAMPLES),
    (trace_upkeep.prune, trace_upkeep.PRUNE_EXAMPLES),
)


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"cra-mcp {cra_mcp.__version__}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    _help: GroupHelp = False,
) -> None:
    """Govern what AI agents may do, and keep a trace of what they did.

    Settings come from CRA_* environment variables too: CRA_DATA_DIR, CRA_TRACE_DIR, CRA_AGENT_ID, CRA_RECORDING and others.
    """


def build(speaking: Iterable[Command]) -> typer.Typer:
    """The whole command line, with the commands that speak MCP first."""
    app = typer.Typer(
        name="cra-mcp",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    root = ("cra-mcp demo", "cra-mcp serve --atlas customer-support", "cra-mcp trace show latest")
    app.callback(epilog=epilog(*root))(_root)
    for function, examples in (*speaking, *_COMMANDS):
        app.command(epilog=epilog(*examples))(function)
    for function, examples in _TRACE_COMMANDS:
        traces.app.command(epilog=epilog(*examples))(function)
    app.add_typer(atlases.app)
    app.add_typer(policies.app)
    app.add_typer(traces.app)
    app.add_typer(keys.app)
    return app


def run(app: typer.Typer) -> NoReturn:
    """Run the command line; what goes wrong ends it with a message and an exit code."""
    prepare_streams()
    end(lambda: app(prog_name="cra-mcp", standalone_mode=False))
