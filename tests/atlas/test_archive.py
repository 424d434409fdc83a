"""Atlases kept by digest for replay."""

import json
import os
import stat
from pathlib import Path

import pytest

from cra_mcp.atlas.archive import FOLDER, AtlasArchive
from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.compose import CRARuntime
from cra_mcp.settings import RuntimeConfig
from tests.atlas.conftest import action, manifest


def _folder(root: Path) -> Path:
    root.mkdir()
    (root / "atlas.json").write_text(json.dumps(manifest(actions=[action()])))
    (root / "actions").mkdir()
    (root / "actions" / "more.json").write_text(json.dumps(action("t.more")))
    return root


def test_a_kept_folder_is_found_by_its_digest(tmp_path: Path) -> None:
    archive = AtlasArchive(tmp_path / "kept")
    atlas = load_atlas(_folder(tmp_path / "a"), keep=archive.keep)
    found = archive.load(atlas.digest)
    assert found is not None
    assert (found.digest, [each.action_id for each in found.actions]) == (atlas.digest, ["t.read", "t.more"])


def test_a_kept_text_is_found_by_its_digest(tmp_path: Path) -> None:
    archive = AtlasArchive(tmp_path / "kept")
    atlas = load_atlas_text(json.dumps(manifest(actions=[action()])), keep=archive.keep)
    found = archive.load(atlas.digest)
    assert found is not None
    assert found.digest == atlas.digest


def test_keeping_twice_keeps_once(tmp_path: Path) -> None:
    archive = AtlasArchive(tmp_path / "kept")
    folder = _folder(tmp_path / "a")
    for _ in range(2):
        load_atlas(folder, keep=archive.keep)
    assert len(os.listdir(tmp_path / "kept")) == 1


def test_nobody_else_can_read_what_is_kept(tmp_path: Path) -> None:
    atlas = load_atlas(_folder(tmp_path / "a"), keep=AtlasArchive(tmp_path / "kept").keep)
    kept = tmp_path / "kept" / atlas.digest
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE((kept / "actions" / "more.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_what_was_changed_since_is_not_used(tmp_path: Path, change: str) -> None:
    archive = AtlasArchive(tmp_path / "kept")
    atlas = load_atlas(_folder(tmp_path / "a"), keep=archive.keep)
    more = tmp_path / "kept" / atlas.digest / "actions" / "more.json"
    if change == "edit":
        more.write_text(more.read_text().replace("t.more", "t.less"))
    elif change == "add":
        (more.parent / "third.json").write_text("[]")
    else:
        more.unlink()
    assert archive.load(atlas.digest) is None


@pytest.mark.parametrize("digest", ["", "..", "../a", "0" * 63, "0" * 64, "G" * 64, "/etc/passwd"])
def test_a_digest_that_is_none_finds_nothing(tmp_path: Path, digest: str) -> None:
    assert AtlasArchive(tmp_path).load(digest) is None


def test_an_atlas_that_cannot_be_kept_is_loaded_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kept").write_text("in the way")
    assert load_atlas(_folder(tmp_path / "a"), keep=AtlasArchive(tmp_path / "kept").keep).atlas_id == "com.example.a"
    assert "can't be kept" in caplog.text


def test_a_runtime_keeps_its_atlases_beside_its_traces(tmp_path: Path) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data")) as runtime:
        digest = runtime.load_atlas(_folder(tmp_path / "a")).digest
        assert AtlasArchive(tmp_path / "data" / "traces" / FOLDER).load(digest) is not None
        assert runtime.list_traces() == []


def test_a_runtime_in_memory_keeps_nothing(tmp_path: Path) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data", store="memory")) as runtime:
        runtime.load_atlas(_folder(tmp_path / "a"))
    assert not (tmp_path / "data").exists()
