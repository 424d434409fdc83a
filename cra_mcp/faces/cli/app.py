"""The command line, ``serve`` and ``demo`` aside: those speak MCP and are added by ``faces.launch``."""

import sys
from typing import Annotated

import typer

import cra_mcp
from cra_mcp.faces.cli import approvals, atlases, govern, traces
from cra_mcp.faces.cli.conformance import conformance
from cra_mcp.faces.cli.doctor import doctor
from cra_mcp.faces.cli.output import EPILOG, complain, emit, exit_code

app = typer.Typer(
    name="cra-mcp",
    help="Govern what AI agents may do, and keep a trace of what they did.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"cra-mcp {cra_mcp.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Govern what AI agents may do, and keep a trace of what they did.

    Examples:

      cra-mcp demo

      cra-mcp serve --atlas customer-support

      cra-mcp trace show latest
    """


app.command(epilog=EPILOG)(govern.resolve)
app.command(epilog=EPILOG)(govern.execute)
app.add_typer(atlases.app)
app.add_typer(traces.app)
app.command(epilog=EPILOG)(approvals.pending)
app.command(epilog=EPILOG)(approvals.approve)
app.command(epilog=EPILOG)(approvals.deny)
app.command(epilog=EPILOG)(conformance)
app.command(epilog=EPILOG)(doctor)


def run() -> None:
    """Run the command line; what goes wrong ends it with a message and an exit code, never a traceback."""
    from cra_mcp.errors import CRAError  # noqa: PLC0415 - loaded by the commands already

    try:
        app(prog_name="cra-mcp")
    except CRAError as error:
        complain(f"{error.message} [{error.code}]", error.hint)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): what it wanted it has.
        sys.stderr.close()
        sys.exit(0)
