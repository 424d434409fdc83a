"""Questions about everything where there is nothing: no silent "ok". Listings of nothing are empty lists."""

import json
import os
from pathlib import Path

import pytest

from cra_mcp import CRARuntime
from cra_mcp.faces.cli.exits import ENVIRONMENT, NO, OK
from cra_mcp.trace.event import Draft
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.sqlite import SqliteStore
from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place

SESSION = "01980000-0000-7000-8000-00000000ab01"
ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.none",
    "version": "1.0.0",
    "name": "None",
    "description": "d",
    "actions": [{"action_id": "a.b", "name": "A", "description": "d", "parameters_schema": {"type": "object"}}],
    "policies": [{"policy_id": "p", "type": "deny", "reason": "no"}],
}
QUESTIONS = (
    ("trace", "verify", "--all"),
    ("replay", "--all"),
    ("replay", "--all", "--policy", "ATLAS"),
    ("trace", "stats", "--all"),
    ("trace", "export", "--all"),
    ("trace", "export", "--all", "--format", "csv"),
)
LISTINGS = (
    ("trace", "list"),
    ("trace", "search", "--text", "anything"),
    ("trace", "tail", "--all"),
    ("trace", "prune", "--keep", "1d"),
)


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    path = tmp_path / "none.json"
    path.write_text(json.dumps(ATLAS))
    return path


def emptied(data: Path, how: str) -> list[str]:
    """A place without traces, and the store to name, if it is not the usual one."""
    traces = data / "traces"
    if how != "no folder":
        traces.mkdir(parents=True, mode=0o700)
    if how == "other files":
        (traces / "notes.txt").write_text("x")
        (traces / f"{SESSION.upper()}.trace.jsonl").write_text("{}")
    if how == "database":
        store = SqliteStore(data / "t.sqlite3")
        store.check()
        store.close()
        return [f"sqlite:{data / 't.sqlite3'}"]
    return []


@pytest.mark.parametrize("how", ["no folder", "empty folder", "other files", "database"])
@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_question_about_all_traces_is_not_answered_where_there_are_none(
    tmp_path: Path, atlas: Path, question: tuple[str, ...], how: str
) -> None:
    more = emptied(tmp_path / "data", how)
    words = [str(atlas) if word == "ATLAS" else word for word in question]
    env = {"CRA_STORE": more.pop()} if more else {}
    for form in ([], [] if "export" in words else ["--json"]):
        done = cra(*words, *form, "--data-dir", tmp_path / "data", env=env)
        assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
        assert "there are no traces in" in done.stderr
        assert "hint:" in done.stderr


@pytest.mark.parametrize("listing", LISTINGS, ids=" ".join)
def test_a_listing_of_nothing_is_an_empty_list(tmp_path: Path, listing: tuple[str, ...]) -> None:
    emptied(tmp_path / "data", "empty folder")
    wanted = NO if "search" in listing else OK  # as grep has it
    assert cra(*listing, "--data-dir", tmp_path / "data").returncode == wanted


def test_one_trace_is_enough_and_a_filter_that_leaves_none_is_no_fault(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "data" / "traces")
    store.begin(SESSION, SESSION)
    store.append(SESSION, [Draft("x.test.note", {}, SESSION)])
    store.close()
    for words in (("trace", "verify", "--all"), ("trace", "stats", "--all", "--since", "2099-01-01")):
        assert cra(*words, "--data-dir", tmp_path / "data").returncode == OK
    assert cra("trace", "export", "--all", "--since", "2099-01-01", "--data-dir", tmp_path / "data").returncode == OK


def test_no_vectors_and_no_policy_tests_are_no_pass(tmp_path: Path, atlas: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cra("conformance", str(empty)).returncode == ENVIRONMENT
    assert cra("conformance", "--group", "none-of-that-name").returncode == ENVIRONMENT
    for form in ([], ["--json"]):
        done = cra("policy", "test", str(atlas), *form)
        assert done.returncode == ENVIRONMENT
    assert "no policy tests" in cra("policy", "test", str(atlas)).stderr
    atlas.write_text(json.dumps({**ATLAS, "policies": [{}]}))
    assert cra("policy", "test", str(atlas)).returncode == NO


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_lies_in_the_place_of_a_trace_is_told_and_the_others_are_checked(
    place: Place, server: CRARuntime, tmp_path: Path, kind: str
) -> None:
    first, second = (server.create_session("ann", goal).session_id for goal in ("one", "two"))
    server.close()
    path = place.data / "traces" / f"{first}.trace.jsonl"
    for beside in path.parent.glob(f"{first}.checkpoint*"):
        beside.unlink()
    moved = path.rename(tmp_path / "moved")
    {"link": lambda: path.symlink_to(moved), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    done = cra("trace", "verify", "--all", "--json", "--data-dir", place.data)
    told = {each["trace"]: each for each in json.loads(done.stdout)["traces"]}
    assert (done.returncode, told[second]["ok"], told[first]["ok"]) == (1, True, False)
    assert "not_a_file" in json.dumps(told[first])


def test_checkpoints_that_cannot_be_read_are_the_fault_of_their_own_trace(place: Place, server: CRARuntime) -> None:
    first, second = (server.create_session("ann", goal).session_id for goal in ("one", "two"))
    server.close()
    path = place.data / "traces" / f"{first}.checkpoints"
    path.unlink()
    os.mkfifo(path)
    done = cra("trace", "verify", "--all", "--json", "--data-dir", place.data)
    told = {each["trace"]: each["ok"] for each in json.loads(done.stdout)["traces"]}
    assert (done.returncode, told) == (1, {first: False, second: True})
