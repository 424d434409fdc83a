"""What ``trace prune`` says of what it does, of each kind of store."""

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.trace_upkeep import prune
from tests.trace.test_leftovers import atlas

LONG_AGO_NS = 1_500_000_000 * 1_000_000_000


def record(data: Path, store: str) -> str:
    """An old session under an atlas that nothing used since; the digest of the atlas."""
    with CRARuntime(RuntimeConfig(data_dir=data, store=store, clock_ns=lambda: LONG_AGO_NS)) as runtime:
        digest = runtime.load_atlas_from_json(atlas("1.0.0")).digest
        session = runtime.create_session("ann", "Read").session_id
        for _ in range(200):
            runtime.record(session, "x.test.note", {"note": "n" * 400})
    for path in [data / "traces" / ".atlases" / digest, *(data / "traces").glob("*.trace.jsonl")]:
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return digest


def told(data: Path, store: str, *, dry_run: bool = False) -> dict[str, Any]:
    printed = io.StringIO()
    with redirect_stdout(printed):
        prune("1y", dry_run=dry_run, data_dir=data, store=store, as_json=True)
    return json.loads(printed.getvalue())


@pytest.fixture(params=["file", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "file" if request.param == "file" else f"sqlite:{tmp_path / 'traces.sqlite3'}"


def test_what_went_is_told_with_its_size_and_a_dry_run_tells_the_same(tmp_path: Path, store: str) -> None:
    digest = record(tmp_path, store)
    would = told(tmp_path, store, dry_run=True)
    assert (tmp_path / "traces" / ".atlases" / digest).is_dir()
    done = told(tmp_path, store)
    assert not (tmp_path / "traces" / ".atlases" / digest).exists()
    (removed,) = done["atlases"]["removed"]
    assert removed == {"digest": digest, "name": "test.tools 1.0.0", "size_bytes": len(atlas("1.0.0"))}
    assert done["atlases"] == would["atlases"]
    (statement,), (foretold,) = done["pruned"], would["pruned"]
    assert statement["signature"]["vkey"].startswith("cra-mcp")
    same = {"signature": None, "pruned_at": None}
    assert {**statement, **same} == {**foretold, **same}
    assert (
        done["size_bytes"]["traces"]
        == would["size_bytes"]["traces"]
        == sum(each["bytes"] for each in statement["files"])
    )
    assert done["size_bytes"]["atlases"] == removed["size_bytes"]
    if store == "file":
        assert done["size_bytes"]["given_back"] is None
    else:
        assert done["size_bytes"]["given_back"] > 100_000
        assert would["size_bytes"]["given_back"] == 0
    nothing = told(tmp_path, store)
    assert (nothing["pruned"], nothing["kept"], nothing["atlases"]["removed"]) == ([], [], [])


def test_people_are_told_the_same_in_lines(tmp_path: Path, store: str) -> None:
    digest = record(tmp_path, store)
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        prune("1y", data_dir=tmp_path, store=store)
    first, second = out.getvalue().splitlines()
    assert first.startswith("pruned    ")
    assert second == f"removed   {digest[:16]}  test.tools 1.0.0, {len(atlas('1.0.0'))} bytes"
    assert errors.getvalue().startswith("1 trace gone (")
    assert ("given back to the file system" in errors.getvalue()) is (store != "file")


def test_traces_in_memory_are_not_pruned(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        prune("1y", data_dir=tmp_path, store="memory")
