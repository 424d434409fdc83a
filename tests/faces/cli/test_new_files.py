"""What commands write: new files only, whole, for their owner, and never through a link."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp import CRARuntime
from tests.faces.cli.conftest import Done, cra
from tests.faces.mcp.conftest import Place

Write = Callable[[Place, Path], Done]


def _report(place: Place, out: Path) -> Done:
    return cra("trace", "report", "latest", "-o", out, "--data-dir", place.data)


def _export(place: Place, out: Path) -> Done:
    return cra("trace", "export", "latest", "-o", out, "--data-dir", place.data)


def _prove(place: Place, out: Path) -> Done:
    return cra("trace", "prove", "latest", "1", "--out", out, "--data-dir", place.data)


def _junit(place: Place, out: Path) -> Done:
    return cra("policy", "test", place.atlas, "--junit", out)


WRITING = pytest.mark.parametrize("write", [_report, _export, _prove, _junit])


@pytest.fixture
def traced(place: Place, runtime_at: Callable[..., CRARuntime]) -> Place:
    runtime = runtime_at(place)
    session = runtime.create_session("ann", "Read").session_id
    runtime.execute_blocking(session, "tool.add", {"a": 1, "b": 2})
    runtime.end_session(session)
    runtime.close()
    tests = place.atlas / "tests"
    tests.mkdir()
    (tests / "all.json").write_text('[{"test_id": "add", "action": "tool.add", "expect": "allow"}]')
    return place


@WRITING
def test_a_file_is_new_and_for_its_owner_only(traced: Place, tmp_path: Path, write: Write) -> None:
    out = tmp_path / "out"
    done = write(traced, out)
    assert out.exists(), done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert os.listdir(tmp_path).count("out") == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


@WRITING
@pytest.mark.parametrize("there", ["file", "link to a file", "link to nothing"])
def test_nothing_is_overwritten_and_no_link_is_followed(
    traced: Place, tmp_path: Path, write: Write, there: str
) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    if there != "link to nothing":
        victim.write_text("precious")
    if there == "file":
        out = victim
    else:
        out.symlink_to(victim)
    done = write(traced, out)
    assert (done.returncode, "[output_exists]" in done.stderr, done.stdout) == (3, True, "")
    assert "hint: give another name" in done.stderr
    assert (victim.read_text() if victim.exists() else "nothing") == (
        "nothing" if there == "link to nothing" else "precious"
    )


def test_a_draft_of_an_atlas_follows_no_link(place: Place, tmp_path: Path) -> None:
    document = tmp_path / "api.json"
    document.write_text(
        '{"openapi": "3.1.0", "info": {"title": "Api", "version": "1"}, "servers": [{"url": "https://api.example"}],'
        ' "paths": {"/x": {"get": {"operationId": "getX", "responses": {"200": {"description": "ok"}}}}}}'
    )
    out = tmp_path / "draft"
    out.symlink_to(tmp_path / "elsewhere")
    done = cra("atlas", "from-openapi", document, "-o", out)
    assert done.returncode == 3
    assert not (tmp_path / "elsewhere").exists()
    done = cra("atlas", "from-openapi", document, "-o", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    written = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert written
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
