"""The wheel, as somebody installs it: a clean environment of each Python there is, what it pins, nothing of the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.installation.conftest import PATIENCE_S, uv

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")

PROGRAM = """
import sys, tempfile
from pathlib import Path
import cra_mcp
assert Path(cra_mcp.__file__).is_relative_to(sys.prefix), cra_mcp.__file__
from cra_mcp import CRARuntime, RuntimeConfig
with tempfile.TemporaryDirectory() as folder, CRARuntime(RuntimeConfig(data_dir=folder, store=f"sqlite:{folder}/t.db")) as runtime:
    runtime.load_atlas(Path(cra_mcp.__file__).parent / "_data" / "atlases" / "customer-support")
    session = runtime.create_session("bot", "Answer")
    assert runtime.execute_blocking(session.id, "ticket.search", {"query": "refund"}).status == "success"
    assert runtime.verify_chain(session.id).ok
"""


def runs(program: str | Path, version: str) -> bool:
    try:
        said = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except OSError:
        return False
    return said.returncode == 0 and said.stdout.startswith(f"Python {version}.")


@cache
def interpreters() -> dict[str, str]:
    """The supported Pythons of this machine, by version: the one that runs this, those on the path, pyenv's, and uv's own."""
    found = {"{}.{}".format(*sys.version_info): sys.executable}
    for version in SUPPORTED:
        kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        for program in (f"python{version}", *kept.glob(f"{version}.*/bin/python"), *_of_uv(version)):
            if version not in found and runs(program, version):
                found[version] = str(program)
    return found


def _of_uv(version: str) -> list[str]:
    asked = [find_uv_bin(), "python", "find", "--no-python-downloads", "--no-project", version]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    return [said.stdout.strip()] if said.returncode == 0 else []


@pytest.mark.parametrize("version", sorted(interpreters()))
def test_the_wheel_works_in_a_clean_environment(version: str, wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    place = tmp_path / "venv"
    uv("venv", "--quiet", "--python", interpreters()[version], place)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    uv("pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", "requirements.lock")
    uv("pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    uv("pip", "check", "--quiet", "--python", python)
    environ = {**os.environ, "HOME": str(home), "PYTHONWARNINGS": "error::ResourceWarning"}
    for argv in (
        ["-I", "-c", PROGRAM],
        ["-m", "cra_mcp", "conformance"],
        ["-m", "cra_mcp", "atlas", "validate", "customer-support"],
        ["-m", "cra_mcp", "demo", "--json"],
    ):
        done = subprocess.run(
            [str(python), *argv],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, (argv, done.stdout[-2_000:], done.stderr[-2_000:])
    assert json.loads(done.stdout)["ok"] is True


def test_the_wheel_holds_what_the_package_reads_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("cra_mcp/_data/atlases/customer-support/") for name in names)
    assert any(name.startswith("cra_mcp/_data/conformance/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strangers = [name for name in names if not name.startswith(("cra_mcp/", "cra_mcp-"))]
    assert strangers == []
    assert [name for name in names if "__pycache__" in name or name.startswith("cra_mcp/tests")] == []
