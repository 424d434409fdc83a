"""The wheel of this checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600


def uv(*arguments: str | Path) -> None:
    done = subprocess.run(
        [find_uv_bin(), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built once for all processes of the run."""
    folder = tmp_path_factory.getbasetemp().parent / "wheel"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            uv("build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder)
        (built,) = folder.glob("*.whl")
    return built
