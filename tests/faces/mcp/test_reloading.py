"""Looking at an atlas's files, and loading it again."""

import json
import logging
import os
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError, RequestError
from cra_mcp.faces.reloading import Reloader, look_at

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.live",
    "version": "1.0.0",
    "name": "Live",
    "description": "For the tests of reloading.",
    "actions": [
        {"action_id": "a.read", "name": "Read", "description": "Reads.", "parameters_schema": {"type": "object"}}
    ],
}
OTHER = {
    **ATLAS,
    "atlas_id": "com.example.other",
    "actions": [{**ATLAS["actions"][0], "action_id": "b.read"}],  # pyright: ignore[reportIndexIssue]
}


def write(path: Path, atlas: dict[str, object]) -> Path:
    path.write_text(json.dumps(atlas))
    return path


def test_every_way_of_changing_a_file_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    folder.mkdir()
    file = write(folder / "atlas.json", ATLAS)
    looks = [look_at(folder)]
    file.write_text("{}")
    looks.append(look_at(folder))
    write(tmp_path / "new", ATLAS).replace(file)
    looks.append(look_at(folder))
    (folder / "more").mkdir()
    (folder / "more" / "x.md").write_text("x")
    looks.append(look_at(folder))
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    looks.append(look_at(folder))
    assert len(set(looks)) == len(looks)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("x")
    assert look_at(folder) == looks[-1]
    assert look_at(tmp_path / "nothing") == ()
    assert len(look_at(tmp_path / "new")) == 0
    assert len(look_at(write(tmp_path / "one.json", ATLAS))) == 1


def test_an_edit_counts_once_it_has_settled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "live.json", ATLAS)
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        look = look_at(path)
        runtime.load_atlas(path)
        reloader = Reloader(runtime, {"com.example.live": path}, {path: look})
        session = runtime.create_session("bot", "g").session_id

        def version() -> str:
            return runtime.list_atlases()[0].version

        write(path, {**ATLAS, "version": "1.1.0"})
        reloader._look()
        assert version() == "1.0.0"
        reloader._look()
        assert version() == "1.1.0"
        with caplog.at_level(logging.WARNING, "cra_mcp.atlas"):
            path.write_text("{")
            for _ in range(3):
                reloader._look()
        assert "the last good version stays" in caplog.text
        assert version() == "1.1.0"
        path.unlink()
        for _ in range(3):
            reloader._look()
        write(path, {**OTHER, "version": "2.0.0"})
        for _ in range(2):
            reloader._look()
        assert [info.atlas_id for info in runtime.list_atlases()] == ["com.example.other"]
        write(path, {**OTHER, "version": "2.1.0"})
        for _ in range(2):
            reloader._look()
        assert version() == "2.1.0"
        kinds = [event.event_type for event in runtime.get_trace(session)]
        assert kinds.count("atlas.loaded") == kinds.count("atlas.unloaded") == 3
        assert kinds.count("error.occurred") == 2
        assert runtime.verify_chain(session).ok


def test_replacing_changes_all_or_nothing(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.json", ATLAS), write(tmp_path / "other.json", OTHER)
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(one)
        runtime.load_atlas(other)
        session = runtime.create_session("bot", "g").session_id
        before = len(runtime.get_trace(session))
        runtime.replace_atlas("com.example.live", one)
        assert len(runtime.get_trace(session)) == before, "nothing has changed, nothing is recorded"
        os.utime(one)
        write(one, {**ATLAS, "actions": OTHER["actions"]})
        with pytest.raises(AtlasConflictError):
            runtime.replace_atlas("com.example.live", one)
        one.write_text("[]")
        with pytest.raises(AtlasInvalidError):
            runtime.replace_atlas("com.example.live", one)
        with pytest.raises(RequestError):
            runtime.replace_atlas("com.example.none", one)
        assert [info.atlas_id for info in runtime.list_atlases()] == ["com.example.live", "com.example.other"]
        write(one, {**ATLAS, "version": "3.0.0"})
        runtime.replace_atlas("com.example.live", one)
        assert [info.atlas_id for info in runtime.list_atlases()] == ["com.example.live", "com.example.other"]
        assert runtime.resolve(session).decision_type == "allow"
