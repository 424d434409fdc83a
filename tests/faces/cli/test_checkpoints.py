"""Keys, checkpoints and proofs from the command line, with the real server behind them."""

import json
import stat
from pathlib import Path

from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


def test_a_key_is_made_once_and_its_public_part_printed(place: Place) -> None:
    where = ("--data-dir", place.data)
    none = cra("trace", "key", *where)
    assert (none.returncode, none.stdout) == (3, "")
    assert "[checkpoint_key]" in none.stderr
    made = cra("trace", "key", "--make", *where, "--name", "example.com/agents")
    assert made.returncode == 0
    assert made.stdout.startswith("example.com/agents+")
    assert "made a key" in made.stderr
    again = cra("trace", "key", "--make", *where)
    assert (again.returncode, again.stdout) == (0, made.stdout)
    assert "stays as it is" in again.stderr
    told = json.loads(cra("trace", "key", *where, "--json").stdout)
    assert told["vkey"] == made.stdout.strip()
    assert told["name"] == "example.com/agents"
    private = Path(told["file"]).read_text()
    assert stat.S_IMODE(Path(told["file"]).stat().st_mode) == 0o600
    assert private.strip().rpartition("+")[2] not in made.stdout + made.stderr


def test_a_name_no_key_can_have_is_wrong_usage(place: Place) -> None:
    where = ("--data-dir", place.data)
    assert cra("trace", "key", "--make", "--name", "two words", *where).returncode == 2
    assert cra("trace", "key", "--name", "x", *where).returncode == 2


def test_what_a_session_records_is_signed_and_copied(place: Place, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    environment = {"CRA_CHECKPOINT_TO": f"folder:{copies}"}
    done = cra(
        "execute",
        "tool.add",
        "--atlas",
        place.atlas,
        "--data-dir",
        place.data,
        "--args",
        '{"a":1,"b":2}',
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (copy,) = copies.iterdir()
    (kept,) = (place.data / "traces").glob("*.checkpoints")
    assert kept.read_bytes() == copy.read_bytes() + b"\n"


def test_a_server_does_not_start_with_a_key_that_others_can_read(place: Place) -> None:
    cra("trace", "key", "--make", "--data-dir", place.data)
    (place.data / "checkpoint.key").chmod(0o644)
    refused = cra("serve", "--atlas", place.atlas, "--data-dir", place.data)
    assert refused.returncode == 3
    assert "[checkpoint_key]" in refused.stderr
    started = cra("serve", "--atlas", place.atlas, "--data-dir", place.data, "--checkpoint-every", "0", input="")
    assert started.returncode == 0


def test_a_target_that_can_not_be_used_is_told_before_serving(place: Place) -> None:
    refused = cra("serve", "--atlas", place.atlas, "--data-dir", place.data, "--checkpoint-to", "ftp://audit.example")
    assert refused.returncode == 3
    assert "folder:PATH" in refused.stderr
