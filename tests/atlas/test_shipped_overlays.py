"""The overlays that come with the package: tested whole, citing what they serve, and usable by name."""

import json
import re
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.case_coverage import sentences
from cra_mcp.atlas.cases import run
from cra_mcp.atlas.loader import load_atlas
from cra_mcp.faces.cli.shipped import atlas_names, overlay_names
from tests.faces.cli.conftest import cra

ATLASES = Path(__file__).resolve().parents[2] / "atlases"
OVERLAYS = ATLASES / "overlays"
NAMES = ("gdpr", "hipaa", "no-destructive", "pci", "read-only", "soc2")
CITED = {"gdpr": r"GDPR Art\. ", "hipaa": r"HIPAA 164\.", "pci": r"PCI DSS [0-9]", "soc2": r"SOC 2 C(C[0-9]|1)"}


def test_all_are_found_by_name_and_none_is_taken_for_an_atlas() -> None:
    assert tuple(overlay_names()) == NAMES
    assert not set(NAMES) & set(atlas_names())


@pytest.mark.parametrize("name", NAMES)
def test_its_tests_pass_and_see_all_of_it(name: str) -> None:
    atlas = load_atlas(OVERLAYS / name)
    done = run(atlas)
    assert atlas.overlay
    assert [(result.case.name, result.failures) for result in done.results if not result.passed] == []
    assert sentences(done.coverage.policies) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_policy_says_what_it_serves(name: str) -> None:
    atlas = load_atlas(OVERLAYS / name)
    metadata = atlas.manifest["metadata"]
    assert isinstance(metadata, dict)
    assert set(metadata["controls"]) == {policy.policy_id for policy in atlas.policies}
    readme = (OVERLAYS / "README.md").read_text(encoding="utf-8")
    for policy in atlas.policies:
        assert re.match(CITED.get(name, ""), policy.reason), policy.policy_id
        for control in metadata["controls"][policy.policy_id] if name in CITED else ():
            number = control.removeprefix("45 CFR ")
            assert number in policy.reason, (policy.policy_id, control)
            assert number in readme, (policy.policy_id, control)


def test_all_of_them_fit_the_shipped_atlases_at_once() -> None:
    overlays = tuple(OVERLAYS / name for name in NAMES)
    with CRARuntime(RuntimeConfig(store="memory", overlays=overlays)) as runtime:
        for name in atlas_names():
            runtime.load_atlas(ATLASES / name)
        allowed = {each.action.action_id for each in runtime.permissions()}
    assert {"ticket.get", "file.read", "git.status"} <= allowed
    assert not {"ticket.create", "file.write", "git.commit", "ticket.delete"} & allowed


def test_one_is_loaded_by_its_name_from_the_command_line_and_the_environment(tmp_path: Path) -> None:
    common = ["--atlas", "filesystem", "--goal", "g", "--data-dir", tmp_path / "data", "--json"]
    for given, environment in (["--overlay", "read-only"], {}), ([], {"CRA_OVERLAYS": "read-only"}):
        done = cra("resolve", *common, *given, env=environment)
        denied = {each["action_id"]: each["policy_id"] for each in json.loads(done.stdout)["denied_actions"]}
        assert denied["file.write"] == "dev.cra.read-only/no-compound-changes"
        assert "file.read" not in denied
    unknown = cra("resolve", *common, "--overlay", "no-such")
    assert (unknown.returncode, "no-such" in unknown.stderr) == (1, True)
    unused = cra("trace", "list", "--data-dir", tmp_path / "data", env={"CRA_OVERLAYS": "no-such"})
    assert unused.returncode == 0


def test_a_path_goes_before_a_name(tmp_path: Path) -> None:
    (tmp_path / "hipaa").mkdir()
    done = cra("resolve", "--atlas", ATLASES / "filesystem", "--goal", "g", "--overlay", "hipaa", cwd=tmp_path)
    assert (done.returncode, "atlas.json" in done.stderr) == (1, True)
