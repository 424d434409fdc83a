"""``policy``: asking of policies what they do, without making a call."""

import typer

from cra_mcp.faces.cli.exits import CODES, epilog
from cra_mcp.faces.cli.options import GroupHelp
from cra_mcp.faces.cli.policy_explain import EXAMPLES as EXPLAIN_EXAMPLES
from cra_mcp.faces.cli.policy_explain import explain

app = typer.Typer(name="policy", no_args_is_help=True)


@app.callback(epilog=CODES)
def _group(_help: GroupHelp = False) -> None:
    """Explain, check and compare policies."""


app.command(epilog=epilog(*EXPLAIN_EXAMPLES))(explain)
