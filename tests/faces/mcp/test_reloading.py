"""Looking at an atlas's files, and loading it again."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError, CRAError, RequestError
from cra_mcp.faces.reloading import Reloader, look_at

ATLAS: dict[str, Any] = {
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
    "actions": [{**ATLAS["actions"][0], "action_id": "b.read"}],
}


def write(path: Path, atlas: dict[str, object]) -> Path:
    path.write_text(json.dumps(atlas))
    return path


POLICIES: dict[str, Any] = {
    "policies": [
        {"policy_id": "no-read", "type": "deny", "actions": ["a.read"]},
        {
            "policy_id": "once",
            "type": "rate_limit",
            "actions": ["b.read"],
            "parameters": {"max_calls": 1, "window_seconds": 60},
        },
    ]
}


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
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "one.json")
    before = look_at(link)
    write(tmp_path / "two.json", OTHER)
    (tmp_path / "link").symlink_to(tmp_path / "two.json")
    (tmp_path / "link").replace(link)
    assert look_at(link) != before != ()
    (tmp_path / "two.json").unlink()
    assert look_at(link) == ()


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


def test_an_edited_policy_file_governs_from_then_on_and_no_accident_with_it_loosens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    atlas, other = write(tmp_path / "live.json", ATLAS), write(tmp_path / "other.json", OTHER)
    operator = write(tmp_path / "ours.json", POLICIES)
    second = write(tmp_path / "second.json", {"overlay_id": "second", "policies": []})
    looks = {path: look_at(path) for path in (operator, second, atlas)}
    with CRARuntime(RuntimeConfig(store="memory", policy_files=(operator, second))) as runtime:
        runtime.load_atlas(atlas)
        runtime.load_atlas(other)
        overlays = {"operator": operator, "second": second}
        reloader = Reloader(runtime, {"com.example.live": atlas}, looks, overlays=overlays)
        session = runtime.create_session("bot", "g").session_id
        told: list[str] = []
        runtime.watch(lambda change: told.append(change.kind))

        def looked() -> list[str]:
            """The actions that may be called, after the file has been looked at as long as it takes."""
            caplog.clear()
            for _ in range(3):
                reloader._look()
            return [each.action.action_id for each in runtime.permissions()]

        def decided(action_id: str) -> str:
            fault = runtime.execute_blocking(session, action_id, {}).fault
            assert fault is not None
            return str(fault.details["policy_id"])

        assert looked() == ["b.read"]
        assert not told
        # What a broken edit, an empty file and one that is gone have in common.
        for break_it in (
            lambda: operator.write_text('{"policies": ['),
            lambda: operator.write_bytes(b""),
            operator.unlink,
        ):
            break_it()
            with caplog.at_level(logging.WARNING, "cra_mcp.atlas"):
                assert looked() == ["b.read"]
            assert caplog.text.count("operator: not reloaded, the last good version stays") == 1
        runtime.execute_blocking(session, "b.read", {})
        assert decided("b.read") == "operator/once"
        write(
            operator,
            {"policies": [*POLICIES["policies"][1:], {"policy_id": "no-other", "type": "deny", "actions": ["b.*"]}]},
        )
        assert looked() == ["a.read"]
        assert "catalogue" in told
        write(operator, {"overlay_id": "ours", "policies": POLICIES["policies"][1:]})
        assert looked() == ["a.read", "b.read"]
        write(operator, POLICIES)
        assert looked() == ["b.read"]
        assert decided("b.read") == "operator/once", "what was counted before counts"
        assert [overlay.overlay_id for overlay in runtime.overlays()] == ["operator", "second"]
        write(second, {**POLICIES, "overlay_id": "operator"})
        with caplog.at_level(logging.WARNING, "cra_mcp.atlas"):
            assert looked() == ["b.read"]
        assert "second: not reloaded" in caplog.text
        events = runtime.get_trace(session)
        loads = [event.payload for event in events if event.event_type == "x.cra.overlay.loaded"]
        assert [(load["overlay_id"], load["replaces"]) for load in loads] == [
            ("operator", "operator"),
            ("ours", "operator"),
            ("operator", "ours"),
        ]
        faults = [event.payload["error_code"] for event in events if event.event_type == "error.occurred"]
        assert faults == ["atlas_invalid"] * 3 + ["atlas_conflict"]


def test_what_did_not_fit_the_last_version_is_tried_again_with_the_next(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number"}}}
    atlas = write(tmp_path / "live.json", ATLAS)
    operator = write(tmp_path / "ours.json", {"policies": []})
    looks = {path: look_at(path) for path in (operator, atlas)}
    with CRARuntime(RuntimeConfig(store="memory", policy_files=(operator,))) as runtime:
        runtime.load_atlas(atlas)
        reloader = Reloader(runtime, {"com.example.live": atlas}, looks, overlays={"operator": operator})
        write(operator, {"policies": [{"policy_id": "p", "type": "deny", "when": "args.n > 1"}]})
        for _ in range(3):
            reloader._look()
        assert not runtime.overlays()[0].layer.policies
        write(atlas, {**ATLAS, "actions": [{**ATLAS["actions"][0], "parameters_schema": schema}]})
        for _ in range(4):
            reloader._look()
        assert [policy.policy_id for policy in runtime.overlays()[0].layer.policies] == ["p"]
        with pytest.raises(CRAError) as refusal:
            runtime.replace_overlay("none", operator)
        assert refusal.value.code == "unknown_overlay"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
def test_an_edit_that_a_full_disk_kept_from_being_recorded_counts_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import resource  # noqa: PLC0415 - not on Windows

    atlas, operator = write(tmp_path / "live.json", ATLAS), write(tmp_path / "ours.json", {"policies": []})
    looks = {path: look_at(path) for path in (operator, atlas)}
    config = RuntimeConfig(data_dir=tmp_path / "data", policy_files=(operator,), checkpoint_every=0)
    with CRARuntime(config) as runtime:
        runtime.load_atlas(atlas)
        session = runtime.create_session("bot", "g").session_id
        reloader = Reloader(runtime, {"com.example.live": atlas}, looks, overlays={"operator": operator})
        write(operator, POLICIES)
        keep = runtime.overlays()
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = (config.trace_path / f"{session}.trace.jsonl").stat().st_size
        with caplog.at_level(logging.WARNING, "cra_mcp.atlas"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, unlimited[1]))
            try:
                for _ in range(4):
                    reloader._look()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert runtime.overlays() == keep
        assert caplog.text.count("operator: not reloaded yet") == 1
        reloader._look()
        assert [policy.policy_id for policy in runtime.overlays()[0].layer.policies] == ["no-read", "once"]
        kinds = [event.event_type for event in runtime.get_trace(session)]
        assert kinds.count("x.cra.overlay.loaded") == 1
        assert runtime.verify_chain(session).ok
