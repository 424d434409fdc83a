"""``policy export`` as a person and a script meet it."""

import json
import subprocess
import sys

import cedarpy
import pytest

from tests.faces.mcp.conftest import MANIFEST, environment
from tests.forks.command import forked

HEAD = {key: value for key, value in MANIFEST.items() if isinstance(value, str)}


def cra(*arguments):
    return subprocess.run(
        [sys.executable, *forked("policy", "export", *arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=60,
    )


@pytest.fixture
def atlas(tmp_path):
    """Make an atlas of policies, with one action of these fields."""

    def make(*policies, **fields):
        path = tmp_path / "desk.json"
        action = {
            "action_id": "ticket.read",
            "name": "Read",
            "description": "Reads.",
            "parameters_schema": {"type": "object"},
            **fields,
        }
        path.write_text(json.dumps({**HEAD, "actions": [action], "policies": list(policies)}))
        return path

    return make


def test_exported_text_and_schema_are_what_cedar_reads(atlas, tmp_path):
    operator = tmp_path / "operator.yaml"
    operator.write_text("policies:\n  - {policy_id: no-bots, type: deny, conditions: {agents: ['bot-*']}}\n")
    path = atlas({"policy_id": "reads", "type": "allow"}, requires_confirmation=True)
    text, schema, both = (
        cra(path, "--to", "cedar", "--policy", operator, *more) for more in ((), ("--schema",), ("--json",))
    )
    assert (text.returncode, text.stderr) == (0, "")
    assert cedarpy.validate_policies(text.stdout, schema.stdout).validation_passed
    assert "forbid" in text.stdout
    assert '@id("operator/no-bots")' in text.stdout
    assert '@id("action:ticket.read:requires_confirmation")' in text.stdout
    answer = json.loads(both.stdout)
    assert (answer["ok"], answer["to"], len(answer["policy_digest"])) == (True, "cedar", 64)
    assert (answer["policies"].strip(), answer["schema"].strip()) == (text.stdout.strip(), schema.stdout.strip())


def test_what_cannot_be_expressed_is_refused_with_its_place(atlas, tmp_path):
    operator = tmp_path / "operator.json"
    timed = {"policy_id": "nights", "type": "deny", "conditions": {"time_window": {"start": "22:00", "end": "06:00"}}}
    operator.write_text(json.dumps({"policies": [timed]}))
    path = atlas(
        {"policy_id": "ok", "type": "allow"}, {"policy_id": "odd", "type": "deny", "when": "now.getHours() > 5"}
    )
    refused = cra(path, "--to", "cedar", "--policy", operator)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "operator.json:/policies/0/conditions/time_window: time_window:" in refused.stderr
    assert "desk.json:/policies/1/when: expression:" in refused.stderr
    answer = json.loads(cra(path, "--to", "cedar", "--json").stdout)
    assert answer["ok"] is False
    assert [(each["pointer"], each["code"]) for each in answer["problems"]] == [("/policies/1/when", "expression")]


def test_rego_is_one_module_and_has_no_schema(atlas):
    path = atlas({"policy_id": "reads", "type": "allow"})
    assert 'default decision := "deny"' in cra(path, "--to", "rego").stdout
    refused = cra(path, "--to", "rego", "--schema")
    assert (refused.returncode, refused.stdout) == (2, "")
