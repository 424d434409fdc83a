"""Folders and files are their owner's only, from the first moment and under any umask; others' folders are refused."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.compose import open_freezes, open_index, open_keys, open_ledger
from cra_mcp.errors import SettingsError, TraceUnavailableError
from cra_mcp.faces.cli.health import examine
from cra_mcp.folders import make_private
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.sqlite import SqliteStore
from tests.runtime.test_runtime import OPERATOR

SESSION = "01980000-0000-7000-8000-00000000ab01"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


@pytest.fixture(params=[0, 0o002, 0o022, 0o077, 0o277, 0o777], ids=lambda umask: f"umask {umask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}


def work(base: Path, config: RuntimeConfig) -> None:
    """Everything that makes something."""
    atlas = base / "atlas.json"
    atlas.write_text(OPERATOR)
    atlas.chmod(0o600)
    with CRARuntime(config) as runtime:
        runtime.load_atlas(atlas)
        session = runtime.create_session("agent", "mail ann@example.com").session_id
        for _ in range(3):
            outcome = runtime.execute_blocking(session, "json.dumps", {"obj": "card 4111 1111 1111 1111 " * 40})
            assert outcome.status == "success", outcome
        runtime.freeze("agent", "other")
        runtime.check()
    open_freezes(config).freeze("agent", "third", reason="", by="test")
    index = open_index(config)
    assert index is not None
    index.update()
    index.close()


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_all_that_is_made_is_its_owners_only_under_any_umask(tmp_path: Path, umask: int, store: str) -> None:
    top = tmp_path / "new"
    at = f"sqlite:{top / 'deep' / 'db' / 't.sqlite3'}" if store == "sqlite" else "file"
    work(
        tmp_path,
        RuntimeConfig(
            data_dir=top / "deep" / "data",
            trace_dir=top / "other" / "traces",
            store=at,
            segment_bytes=2_000,
            checkpoint_every=1,
            export_to=("otlp+http://127.0.0.1:9",),
        ),
    )
    found = modes(top)
    assert len(found) > 8
    public = {name: mode for name, mode in found.items() if mode & 0o077 and not name.endswith("checkpoint.pub")}
    assert public == {}
    assert {mode for name, mode in found.items() if (top / name).is_dir()} == {0o700}
    assert [name for name, mode in found.items() if mode & 0o600 != 0o600] == [], "and its owner's it is"


def test_folders_are_never_open_for_an_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    made: list[int] = []
    mkdir = os.mkdir

    def watched(path: Any, mode: int = 0o777, **more: Any) -> None:
        mkdir(path, mode, **more)
        made.append(os.stat(path).st_mode & 0o777)

    monkeypatch.setattr(os, "mkdir", watched)
    work(tmp_path, RuntimeConfig(data_dir=tmp_path / "a" / "b" / "data", segment_bytes=2_000))
    assert len(made) >= 6
    assert not [mode for mode in made if mode & 0o077]


def test_several_make_one_folder_at_once(tmp_path: Path) -> None:
    for number in range(20):
        path, failed = tmp_path / f"{number}" / "a" / "b" / "c", list[OSError]()

        def make(path: Path = path, failed: list[OSError] = failed) -> None:
            try:
                make_private(path)
            except OSError as error:
                failed.append(error)

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (failed, path.stat().st_mode & 0o777) == ([], 0o700)


def test_parents_that_are_there_stay_as_they_are_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    make_private(tmp_path / "there" / "new")
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o755
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (
        tmp_path / "file",
        tmp_path / "dangling",
        tmp_path / "file" / "below",
        tmp_path / "dangling" / "below",
    ):
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            make_private(path)


FOLDERS = ("data", "data/traces", "data/traces/.atlases", "data/exports", "db")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777, 0o720])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_others_can_write_to_is_refused_by_name_and_can_be_allowed(
    tmp_path: Path, folder: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / folder
    make_private(path)
    path.chmod(mode)
    config = RuntimeConfig(data_dir=tmp_path / "data", store=f"sqlite:{tmp_path / 'db' / 't.sqlite3'}")
    for opened in (CRARuntime, open_keys, open_freezes, open_ledger):
        with pytest.raises(SettingsError) as caught:
            opened(config)
        assert (caught.value.code, str(path) in caught.value.message) == ("insecure_folder", True)
        assert "--insecure-folders" in (caught.value.hint or "")
    told = [finding for finding in examine(config) if finding.name == "private"]
    assert [finding.state for finding in told if str(path) in finding.detail] == ["problem"]
    allowed = RuntimeConfig(data_dir=config.data_dir, store=config.store, insecure_folders=True)
    with CRARuntime(allowed) as runtime:
        runtime.create_session("agent", "goal")
    path.chmod(0o755)
    with CRARuntime(config) as runtime:
        runtime.create_session("agent", "goal")
    path.chmod(0o700)
    assert not [finding for finding in examine(config) if finding.name == "private"]


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_a_folder_opened_to_others_meanwhile_takes_no_new_traces(tmp_path: Path, store: str) -> None:
    path = tmp_path / "t"
    made = FileStore(path) if store == "file" else SqliteStore(path / "t.sqlite3")
    path.mkdir()
    path.chmod(0o777)
    for call in (lambda: made.begin(SESSION, SESSION), made.check):
        with pytest.raises(TraceUnavailableError) as caught:
            call()
        assert (caught.value.reason, "--insecure-folders" in (caught.value.hint or "")) == ("insecure", True)
    path.chmod(0o700)
    made.begin(SESSION, SESSION)
    made.check()
    made.close()


def test_doctor_names_files_that_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = RuntimeConfig(data_dir=tmp_path / "data")
    work(tmp_path, config)
    assert not [finding for finding in examine(config) if finding.name == "private"]
    for name in ("checkpoint.key", "state.sqlite3", "traces/index.sqlite3"):
        (config.data_path / name).chmod(0o644)
    config.trace_path.chmod(0o755)
    told = [(finding.state, finding.detail) for finding in examine(config) if finding.name == "private"]
    assert [state for state, _ in told] == ["note", "problem", "problem", "problem"]
    assert json.dumps(told).count("chmod 600") == 3


def test_a_data_folder_that_every_user_can_put_another_in_the_place_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    config = RuntimeConfig(data_dir=tmp_path / "open" / "data")
    with pytest.raises(SettingsError) as caught:
        CRARuntime(config)
    assert (caught.value.code, str(tmp_path / "open") in caught.value.message) == ("insecure_folder", True)
    (tmp_path / "open").chmod(0o1777)  # as /tmp: nobody can move what is somebody else's
    CRARuntime(config).close()
