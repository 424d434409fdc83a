"""``policy``: asking of policies what they do, without making a call."""

import typer

from cra_mcp.faces.cli.exits import CODES, epilog
from cra_mcp.faces.cli.options import GroupHelp
from cra_mcp.faces.cli.policy_diff import EXAMPLES as DIFF_EXAMPLES
from cra_mcp.faces.cli.policy_diff import diff
from cra_mcp.faces.cli.policy_explain import EXAMPLES as EXPLAIN_EXAMPLES
from cra_mcp.faces.cli.policy_explain import explain
from cra_mcp.faces.cli.policy_export import EXAMPLES as EXPORT_EXAMPLES
from cra_mcp.faces.cli.policy_export import export
from cra_mcp.faces.cli.policy_lint import EXAMPLES as LINT_EXAMPLES
from cra_mcp.faces.cli.policy_lint import lint
from cra_mcp.faces.cli.policy_tests import EXAMPLES as TEST_EXAMPLES
from cra_mcp.faces.cli.policy_tests import run_tests

app = typer.Typer(name="policy", no_args_is_help=True)


@app.callback(epilog=CODES)
def _group(_help: GroupHelp = False) -> None:
    """Explain, check and compare policies."""


app.command(epilog=epilog(*EXPLAIN_EXAMPLES))(explain)
app.command("test", epilog=epilog(*TEST_EXAMPLES))(run_tests)
app.command(epilog=epilog(*EXPORT_EXAMPLES))(export)
app.command(epilog=epilog(*LINT_EXAMPLES))(lint)
app.command(epilog=epilog(*DIFF_EXAMPLES))(diff)
