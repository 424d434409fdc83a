"""Help: complete, with examples that work, and quick because nothing slow is loaded for it."""

import json
import subprocess
import sys

from tests.faces.cli.conftest import COMMANDS, cra
from tests.faces.mcp.conftest import Place, environment

WALK = """
import contextlib, io, json, shlex
import typer
from cra_mcp.faces.launch import app

root = typer.main.get_command(app)
found = {}

def walk(command, words):
    for name, child in getattr(command, "commands", {}).items():
        walk(child, [*words, name])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        app([*words, "--help"], prog_name="cra-mcp", standalone_mode=False)
    found[" ".join(words)] = shown.getvalue()

walk(root, [])
for text in found.values():
    for line in text.splitlines():
        if not line.startswith("    cra-mcp "):
            continue
        words = shlex.split(line.partition(" | ")[0])[1:]
        command, name = root, "cra-mcp"
        while hasattr(command, "commands") and words:
            name, *words = words
            command = command.commands[name]
        command.make_context(name, words)  # raises where an option or argument is not as documented
print(json.dumps(found))
"""

LOADED = """
import sys
before = set(sys.modules)  # measuring coverage loads some of its own
from cra_mcp.faces.launch import app
for words in sys.argv[1:]:
    app(words.split("|"), standalone_mode=False)
slow = "anyio httpx2 jsonschema jsonschema_rs logging mcp mcp_types orjson pydantic rich sqlite3 starlette structlog"
ours = "cra_mcp.canonical cra_mcp.compose cra_mcp.runtime cra_mcp.settings"
print([name for name in f"{slow} {ours}".split() if name in sys.modules.keys() - before], file=sys.stderr)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        check=True,
    )


def loaded(*commands: str) -> list[str]:
    """Which of the slow modules the commands load, run one after the other in one process."""
    return json.loads(python(LOADED, *commands).stderr.splitlines()[-1].replace("'", '"'))


def test_every_command_is_listed_and_its_help_has_examples_that_parse() -> None:
    shown = json.loads(python(WALK).stdout)
    assert set(COMMANDS) == set(shown) - {"", "atlas", "keys", "policy", "trace"}
    for command in COMMANDS:
        group, _, name = command.rpartition(" ")
        assert f"\n  {name} " in shown[group]
        assert "  Examples:\n" in shown[command], command
        assert f"\n    cra-mcp {command}" in shown[command], command
    for command, text in shown.items():
        assert "Exit codes: 0 done; 1 the answer is no" in text, command
        listing = text.partition("\nCommands:\n")[2].partition("\n\n")[0]
        assert "..." not in listing, f"a summary in {command!r} is cut"


def test_the_version_is_data_and_a_bare_command_says_where_to_begin() -> None:
    version = cra("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("cra-mcp ")
    bare = cra()
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "cra-mcp demo" in bare.stderr


def test_help_loads_nothing_slow() -> None:
    assert (
        loaded(
            "--help",
            *(f"{command.replace(' ', '|')}|--help" for command in ["atlas", "keys", "policy", "trace", *COMMANDS]),
        )
        == []
    )


def test_commands_that_do_not_speak_mcp_do_not_load_it(place: Place) -> None:
    data = f"--data-dir|{place.data}"
    found = loaded(
        f"resolve|--atlas|{place.atlas}|--goal|g|{data}",
        f"execute|tool.echo|--atlas|{place.atlas}|{data}",
        f"atlas|validate|{place.atlas}|--test",
        f"atlas|show|{place.atlas}",
        f"trace|list|{data}",
        f"trace|show|latest|{data}",
        f"trace|tail|latest|{data}",
        f"trace|verify|--all|{data}",
        f"pending|{data}",
        f"doctor|{data}",
        "conformance|--group|policy",
    )
    assert {"mcp", "mcp_types", "starlette", "httpx2", "structlog", "rich"} & set(found) == set()
    assert "cra_mcp.runtime" in found  # or the list above would say nothing
