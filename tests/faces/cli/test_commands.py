"""The command line as a person and a script meet it: real processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faces.cli.conftest import COMMANDS, cra
from tests.faces.mcp.conftest import MANIFEST, Place, environment, write_atlas

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


def test_every_command_is_listed_and_has_help_with_examples() -> None:
    listed = cra("--help").stdout
    for command in COMMANDS:
        assert command.split()[0] in listed
        shown = cra(*command.split(), "--help")
        assert shown.returncode == 0
        assert "Examples:" in shown.stdout, command
        assert f"cra-mcp {command}" in shown.stdout, command
    assert "Exit codes:" in listed


def test_commands_that_do_not_speak_mcp_do_not_import_it(place: Place) -> None:
    code = (
        "import sys; from cra_mcp.faces.launch import main\n"
        "sys.argv = ['cra-mcp', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('mcp', 'mcp_types', 'starlette', 'httpx2') if m in sys.modules], file=sys.stderr)"
    )
    for arguments in (
        ["--help"],
        ["trace", "list", "--data-dir", str(place.data)],
        ["pending", "--data-dir", str(place.data)],
        ["atlas", "validate", str(place.atlas)],
        ["resolve", "--atlas", str(place.atlas), "--goal", "g", "--data-dir", str(place.data)],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment(), check=True
        )
        assert done.stderr.splitlines()[-1] == "[]", arguments


def test_a_session_from_resolve_to_verify(place: Place) -> None:
    common = ["--data-dir", str(place.data)]
    atlas = ["--atlas", str(place.atlas)]
    resolved = cra("resolve", *atlas, *common, "--goal", "g", "--json")
    assert resolved.returncode == 0
    assert json.loads(resolved.stdout)["decision"]["type"] == "partial"
    assert "recorded in session" in resolved.stderr
    done = cra("execute", "tool.add", *atlas, *common, "--args", '{"a": 1, "b": 2}')
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sum": 3})
    from_stdin = cra("execute", "tool.add", *atlas, *common, "--args", "-", "--json", input='{"a": 2, "b": 2}')
    assert json.loads(from_stdin.stdout)["result"] == {"sum": 4}
    denied = cra("execute", "tool.delete", *atlas, *common)
    assert (denied.returncode, denied.stdout) == (1, "")
    assert denied.stderr.startswith("error: tool.delete is denied by policy no-delete")
    assert "\nhint: " in denied.stderr
    waiting = cra("execute", "tool.pay", *atlas, *common, stdin=subprocess.DEVNULL)
    assert (waiting.returncode, "run it in a terminal" in waiting.stderr) == (1, True)
    listed = json.loads(cra("trace", "list", *common, "--json").stdout)["sessions"]
    assert len(listed) == 5
    shown = cra("trace", "show", *common, "latest", "--events")
    assert "session.started" in shown.stdout
    lines = cra("trace", "show", *common, "latest", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["event_type"] == "session.ended"
    assert len(cra("trace", "tail", *common, "-n", "2", "--json").stdout.splitlines()) == 2
    checked = cra("trace", "verify", "--all", *common, "--json")
    assert (checked.returncode, json.loads(checked.stdout)["ok"]) == (0, True)
    trace = place.traces()[0]
    tampered = place.folder / "copy.trace.jsonl"
    tampered.write_bytes(trace.read_bytes().replace(b'"goal":"g"', b'"goal":"h"'))
    broken = cra("trace", "verify", str(tampered))
    assert broken.returncode == 1
    assert "event 0: hash_mismatch" in broken.stdout
    torn = trace.read_bytes()[:-20]
    trace.write_bytes(torn)
    session_id = trace.name.removesuffix(".trace.jsonl")
    assert "truncated" in cra("trace", "verify", session_id, *common).stdout
    assert "set aside" in cra("trace", "recover", session_id, *common).stderr
    cut = cra("trace", "verify", session_id, *common)
    assert (cut.returncode, "when a checkpoint was signed" in cut.stderr) == (1, True), (
        "what was signed is not forgotten"
    )
    next(trace.parent.glob(f"{session_id}*checkpoints")).unlink()
    assert cra("trace", "verify", session_id, *common).returncode == 0


def test_wrong_use_and_a_wrong_environment_have_their_own_exit_codes(place: Place) -> None:
    (place.folder / "file").write_text("")
    common = ["--data-dir", str(place.data)]
    cases = [
        (["--no-such-option"], 2, "no such option"),
        (["no-such-command"], 2, "no such command"),
        (["trace", "show", *common], 3, "no traces here"),
        (["trace", "show", "abc", *common], 3, "no session begins with 'abc'"),
        (["approve", "abc", "--yes", *common], 3, "unknown_approval"),
        (["serve", "--atlas", str(place.folder / "none")], 3, "there is no atlas"),
        (["serve", "--atlas", "nonsense"], 3, "customer-support"),
        (["resolve", "--atlas", str(place.atlas), "--goal", "g", "--data-dir", str(place.folder / "file")], 3, "can't"),
        (["execute", "a.b", "--atlas", str(place.atlas), "--args", "{", *common], 2, "--args: not usable as JSON"),
        (["execute", "a.b", "--atlas", str(place.atlas), "--args", "@/no/file", *common], 3, "/no/file"),
    ]
    for arguments, code, part in cases:
        done = cra(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert part in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_every_problem_of_an_atlas_is_told_with_its_place(place: Place) -> None:
    wrong = {**MANIFEST, "version": "one", "surprise": 1}
    (place.atlas / "atlas.json").write_text(json.dumps(wrong))
    done = cra("atlas", "validate", str(place.atlas))
    assert done.returncode == 1
    assert re.search(r"^atlas\.json:/version: ", done.stdout, re.MULTILINE)
    assert re.search(r"^atlas\.json:/surprise: ", done.stdout, re.MULTILINE)
    report = json.loads(cra("atlas", "validate", str(place.atlas), "--json").stdout)
    assert {problem["code"] for problem in report["atlases"][0]["problems"]} >= {"unknown_field"}
    assert cra("serve", "--atlas", str(place.atlas)).returncode == 1


def test_validate_says_what_of_a_schema_hosts_are_told_otherwise(place: Place) -> None:
    given = {"type": "object", "properties": {"a": {"pattern": "(?i)^a$"}}}
    actions = [{**MANIFEST["actions"][0], "parameters_schema": given}]
    (place.atlas / "atlas.json").write_text(json.dumps({**MANIFEST, "actions": actions, "policies": []}))
    done = cra("atlas", "validate", str(place.atlas))
    where = f"{place.atlas}/atlas.json:/actions/0/parameters_schema/properties/a/pattern: note: is published as ^[aA]$"
    assert (done.returncode, done.stdout) == (0, "")
    assert where in done.stderr
    notes = json.loads(cra("atlas", "validate", str(place.atlas), "--json").stdout)["atlases"][0]["notes"]
    assert [each["code"] for each in notes] == ["rewritten_pattern"]


def test_a_reader_that_goes_away_is_no_error(place: Place) -> None:
    common = ["--data-dir", str(place.data)]
    cra("resolve", "--atlas", str(place.atlas), "--goal", "g", *common)
    command = f"{sys.executable} -m cra_mcp trace show --json {' '.join(common)} | head -c 10"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment(), check=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_what_is_shown_steers_no_terminal(place: Place) -> None:
    common = ["--data-dir", str(place.data)]
    atlas = ["--atlas", str(place.atlas)]
    cra("execute", "tool.\x1b[31mred", *atlas, *common)
    assert "\x1b" not in cra("trace", "show", *common).stdout
    assert "\x1b" not in cra("trace", "show", "--events", *common).stdout


def test_shipped_atlases_show_and_validate() -> None:
    assert "ticket.search" in cra("atlas", "show", "customer-support").stdout
    done = cra("atlas", "validate", "customer-support", "devops", "filesystem", "--test", "--json")
    assert json.loads(done.stdout)["ok"] is True


def test_the_demo_does_what_it_says() -> None:
    done = cra("demo", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    assert len(report["steps"]) >= 8


def test_the_doctor_looks_at_this_machine(place: Place) -> None:
    report = json.loads(cra("doctor", "--json", "--data-dir", str(place.data)).stdout)
    assert {"python", "sqlite", "data folder", "Claude Desktop"} <= {finding["name"] for finding in report["findings"]}
    (place.folder / "file").write_text("")
    assert cra("doctor", "--data-dir", str(place.folder / "file" / "x")).returncode == 1


def test_the_vectors_pass_and_the_report_says_so() -> None:
    report = json.loads(cra("conformance", "--group", "golden", "--json").stdout)
    assert (report["ok"], report["failed"]) == (True, 0)
    assert report["passed"] >= 7
    assert cra("conformance", "--group", "nothing").returncode == 3


def test_what_the_documents_name_exists() -> None:
    example = json.loads((ROOT / "claude_desktop_config.example.json").read_text())["mcpServers"]["cra"]
    flags = {argument for argument in example["args"] if argument.startswith("--")}
    shown = cra("serve", "--help").stdout
    assert all(flag in shown for flag in flags)
    named = set(example["env"]) - {"CRA_DEVOPS_REPOSITORY", "CRA_FILESYSTEM_ROOT"}
    assert named == {"CRA_DATA_DIR"}
    readme = (ROOT / "README.md").read_text()
    for command in re.findall(r"cra-mcp ([a-z]+(?: [a-z]+)?)", readme):
        assert any(command.startswith(known.split()[0]) for known in COMMANDS), command
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_the_library_example_of_the_readme_runs(tmp_path: Path) -> None:
    text = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert text is not None
    variables = {**environment(), "CRA_SUPPORT_DB": str(tmp_path / "db")}
    done = subprocess.run(
        [sys.executable, "-c", text[1]], cwd=ROOT, capture_output=True, text=True, env=variables, check=True
    )
    assert "ticket.search" in done.stdout
    assert done.stdout.strip().endswith("True")
    assert os.path.exists(tmp_path / "db")


def test_a_server_in_shadow_mode_says_so(place: Place) -> None:
    done = cra(
        "serve",
        "--atlas",
        str(place.atlas),
        "--data-dir",
        str(place.data),
        "--mode",
        "shadow",
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    assert "shadow mode: nothing is refused but what the operator's policy files and overlays deny" in done.stderr
