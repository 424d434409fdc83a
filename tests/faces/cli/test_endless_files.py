"""Pipes and devices in the place of files: a command ends, and says what is wrong."""

import os
from pathlib import Path

import pytest

from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place

COMMANDS = [
    ("trace", "verify", "{}"),
    ("trace", "export", "{}"),
    ("trace", "report", "{}"),
    ("trace", "diff", "{}", "{}"),
    ("replay", "{}"),
    ("trace", "verify", "{}", "--key", "{}"),
    ("trace", "verify", "{}", "--checkpoint", "{}"),
    ("trace", "verify-proof", "{}"),
    ("policy", "lint", "--policy", "{}"),
    ("policy", "diff", "{}", "{}"),
    ("atlas", "validate", "{}"),
    ("atlas", "from-openapi", "{}"),
    ("conformance", "{}"),
]


@pytest.mark.parametrize("kind", ["pipe", "endless"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_ends_on_a_pipe_and_on_a_device(
    place: Place, tmp_path: Path, command: tuple[str, ...], kind: str
) -> None:
    """Nobody writes to the pipe, and the device never ends: a command that reads either would not come back."""
    path = tmp_path / "x.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    done = cra(*(part.format(path) for part in command), env={"CRA_DATA_DIR": str(place.data)})
    assert done.returncode in {1, 2, 3}
    assert done.stdout + done.stderr
    assert "Traceback" not in done.stderr
