"""Atlases kept for replay go when no trace names them; never before, and never while somebody may name them."""

import os
from pathlib import Path

import pytest

from cra_mcp.atlas import archive_upkeep
from cra_mcp.compose import CRARuntime
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.leftovers import prune_atlases

LATER_NS = 4_000_000_000 * 1_000_000_000
LONG_AGO_NS = 1_000_000_000 * 1_000_000_000


def atlas(version: str) -> str:
    return f"""{{"atlas_version": "1.0", "atlas_id": "test.tools", "version": "{version}", "name": "T", "description": "D",
        "actions": [{{"action_id": "tool.read", "name": "R", "description": "R", "parameters_schema": {{"type": "object"}}}}]}}"""


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return tmp_path / "traces"


@pytest.fixture
def archive(traces: Path) -> Path:
    return traces / ".atlases"


def record(tmp_path: Path, *versions: str, store: str = "file") -> dict[str, str]:
    """A session of each version of an atlas; the session and the digest of each."""
    done = {}
    for version in versions:
        with CRARuntime(RuntimeConfig(data_dir=tmp_path, store=store, checkpoint_every=0)) as runtime:
            info = runtime.load_atlas_from_json(atlas(version))
            done[runtime.create_session("ann", "Read").session_id] = info.digest
    return done


def kept(archive: Path) -> set[str]:
    return {path.name for path in archive.iterdir() if not path.name.startswith(".")}


def age(archive: Path) -> None:
    for path in archive.iterdir():
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def test_what_no_trace_names_goes_and_its_size_is_told(tmp_path: Path, traces: Path, archive: Path) -> None:
    done = record(tmp_path, "1.0.0", "2.0.0")
    (gone, digest), (_, other) = done.items()
    assert prune_atlases(traces, archive, LATER_NS).removed == ()
    would = prune_atlases(traces, archive, LATER_NS, without={gone}, dry_run=True)
    assert kept(archive) == set(done.values())
    (traces / f"{gone}.trace.jsonl").unlink()
    left = prune_atlases(traces, archive, LATER_NS)
    assert left == would
    assert [(each.digest, each.name) for each in left.removed] == [(digest, "test.tools 1.0.0")]
    assert left.removed[0].size_bytes == len(atlas("1.0.0"))
    assert kept(archive) == {other}
    assert prune_atlases(traces, archive, LATER_NS).removed == ()


def test_a_policy_file_goes_as_an_atlas_does(tmp_path: Path, traces: Path, archive: Path) -> None:
    policies = tmp_path / "policies.json"
    policies.write_text('{"policies": [{"policy_id": "no", "type": "deny", "actions": ["*"], "reason": "No"}]}')
    with CRARuntime(RuntimeConfig(data_dir=tmp_path, policy_files=(policies,), checkpoint_every=0)) as runtime:
        session = runtime.create_session("ann", "Read").session_id
    assert prune_atlases(traces, archive, LATER_NS).removed == ()
    (traces / f"{session}.trace.jsonl").unlink()
    assert [each.name for each in prune_atlases(traces, archive, LATER_NS).removed] == [None]


def test_what_was_used_within_the_period_stays(tmp_path: Path, traces: Path, archive: Path) -> None:
    for path in [*record(tmp_path, "1.0.0")]:
        (traces / f"{path}.trace.jsonl").unlink()
    assert prune_atlases(traces, archive, LONG_AGO_NS).removed == ()
    assert len(kept(archive)) == 1


def test_a_server_that_was_idle_keeps_its_atlas_again_when_a_session_starts(
    tmp_path: Path, traces: Path, archive: Path
) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path, checkpoint_every=0)) as runtime:
        digest = runtime.load_atlas_from_json(atlas("1.0.0")).digest
        age(archive)
        assert [each.digest for each in prune_atlases(traces, archive, LONG_AGO_NS + 1).removed] == [digest]
        for _ in range(2):
            runtime.create_session("ann", "Read")
            assert kept(archive) == {digest}
            age(archive)
        runtime.create_session("ann", "Read")
    assert archive_upkeep.kept_before(archive, LONG_AGO_NS + 1) == []
    assert prune_atlases(traces, archive, LATER_NS).removed == ()


def test_what_a_session_takes_into_use_while_it_is_taken_out_is_put_back(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digest,) = record(tmp_path, "1.0.0").values()
    age(archive)
    rename = Path.rename

    def use_first(path: Path, target: Path) -> Path:
        if path.name == digest:
            os.utime(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", use_first)
    assert not archive_upkeep.remove(archive, digest, LONG_AGO_NS + 1)
    assert kept(archive) == {digest}
    assert not archive_upkeep.remove(archive, "0" * 64, LATER_NS)


def test_what_an_interrupted_run_left_is_removed_by_the_next(tmp_path: Path, archive: Path) -> None:
    (digest,) = record(tmp_path, "1.0.0").values()
    (archive / ".gone-1").mkdir()
    assert archive_upkeep.remove(archive, digest, LATER_NS)
    assert list(archive.iterdir()) == []


def test_what_a_database_names_stays_and_all_does_while_the_database_is_not_there(
    tmp_path: Path, traces: Path, archive: Path
) -> None:
    path = tmp_path / "elsewhere\n.sqlite3"
    in_files = record(tmp_path, "1.0.0", "2.0.0")
    in_database = record(tmp_path, "1.0.0", store=f"sqlite:{path}")
    for session in in_files:
        (traces / f"{session}.trace.jsonl").unlink()
    path.rename(tmp_path / "moved")
    left = prune_atlases(traces, archive, LATER_NS)
    assert (left.removed, str(path) in (left.kept_because or "")) == ((), True)
    (tmp_path / "moved").rename(path)
    (removed,) = prune_atlases(traces, archive, LATER_NS).removed
    assert {removed.digest} == set(in_files.values()) - set(in_database.values())
    assert kept(archive) == set(in_database.values())
