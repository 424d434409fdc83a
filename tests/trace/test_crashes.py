"""Processes killed while they write, and disks that are full: what was acknowledged stays."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals and no fork")


def run(command: list[str], *, timeout_s: float) -> dict:
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=timeout_s, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def kill_rounds(store: str, folder: Path, rounds: int, rate_hz: int) -> None:
    script = [sys.executable, str(HERE / "crash_rounds.py"), store, str(folder), *map(str, (rounds, rate_hz, rounds))]
    came = run(script, timeout_s=20 + rounds * 2)
    assert came["rounds"] == rounds
    assert came["acknowledged"] > rounds
    assert store == "sqlite" or came["files"] > rounds, "they followed each other"


@posix
@pytest.mark.parametrize(
    ("rounds", "rate_hz"),
    [
        (6, 0),
        (6, 1_000),
        pytest.param(250, 0, marks=pytest.mark.long),
        pytest.param(250, 1_000, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_killed_writers_lose_nothing_they_acknowledged_and_the_next_start_is_clean(tmp_path, store, rounds, rate_hz):
    kill_rounds(store, tmp_path, rounds, rate_hz)


def _may_mount() -> bool:
    """Whether we may have a small file system of our own, in a namespace of our own."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="needs a mount namespace")
@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_a_full_file_system_refuses_loses_nothing_and_is_used_again_when_there_is_room(tmp_path, store):
    program = f'"{sys.executable}" "{HERE / "full_disk.py"}" {store} "$0"'
    script = f'mount -t tmpfs -o size=2m none "$0" && exec {program}'
    came = run(["unshare", "-rm", "sh", "-c", script, str(tmp_path)], timeout_s=60)
    assert came["refused"] >= 3
    assert store == "sqlite" or came["files"] > 3
