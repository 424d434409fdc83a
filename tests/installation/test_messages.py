"""What hints and messages send people to is in the wheel: documents, commands, options, settings, extras."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cra_mcp.faces.cli.docs import documents
from cra_mcp.faces.launch import app

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IN_CHECKOUT = re.compile(
    r"(?<![\w./])(?:specs|tests|benchmarks|atlases|shared)/\S+|(?:README|CONTRIBUTING|CHANGELOG)\b|\b[\w-]+\.md\b"
)
COMMAND = re.compile(r"(?:`|^ *)cra-mcp((?: [a-z][a-z-]*)+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
SETTING = re.compile(r"\bCRA_[A-Z_]*[A-Z]\b")
EXTRA = re.compile(r"cra-mcp\[([a-z0-9]+)\]")


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the package that isn't a docstring or an example's file name, with where it is."""
    for path in sorted((ROOT / "cra_mcp").rglob("*.py")):
        tree = ast.parse(path.read_text())
        bodies = [getattr(node, "body", None) for node in ast.walk(tree)]
        prose = {
            id(each.value) for body in bodies if isinstance(body, list) for each in body if isinstance(each, ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


TEXTS = list(texts())


def commands() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = command
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def named(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    return [(where, match.group(match.re.groups)) for where, text in TEXTS for match in pattern.finditer(text)]


def test_no_message_names_a_file_of_the_checkout() -> None:
    messages = [(where, text) for where, text in TEXTS if " " in text]
    assert len(messages) > 1_000
    assert [(where, text) for where, text in messages if IN_CHECKOUT.search(text)] == []


def test_every_document_a_message_names_can_be_printed() -> None:
    sent = [(where, name) for where, text in TEXTS for name in re.findall(r"cra-mcp docs ([a-z-]+)", text)]
    assert len(sent) >= 8
    assert [each for each in sent if each[1] not in documents()] == []


def test_every_command_a_message_names_is_one() -> None:
    known = commands()
    sent = [(where, words.split()) for where, words in named(COMMAND)]
    assert len(sent) > 50
    for where, words in sent:
        group = words[0] in known and hasattr(known[words[0]], "commands")
        assert " ".join(words[: 2 if group and len(words) > 1 else 1]) in known, (where, words)


def test_every_option_a_message_names_is_one() -> None:
    options = {
        option
        for each in commands().values()
        for parameter in each.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    sent = named(OPTION)
    assert len(sent) > 100
    assert [each for each in sent if each[1] not in options | {"--help"}] == []


def test_every_extra_a_message_names_is_one() -> None:
    assert [each for each in named(EXTRA) if each[1] not in PROJECT["optional-dependencies"]] == []


def test_every_setting_a_message_names_is_read() -> None:
    settings = {
        f"CRA_{name.upper()}" for name in re.findall(r"^    (\w+):", (ROOT / "cra_mcp/settings.py").read_text(), re.M)
    }
    constants = {text for _, text in TEXTS if SETTING.fullmatch(text)}
    sent = {name for _, name in named(SETTING)}
    assert sent - settings - constants == set()


def test_the_wheel_has_every_specification(wheel: Path) -> None:
    there = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("cra_mcp/_data/specs/")}
    assert there == {path.name for path in (ROOT / "specs").glob("*.md")}


def test_the_wheel_prints_them(wheel: Path, tmp_path: Path) -> None:
    """From the wheel's own files, with this environment's dependencies."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); import cra_mcp"
    program += "; assert cra_mcp.__file__.startswith(sys.path[0]); from cra_mcp.faces.launch import main; main()"
    for name in documents():
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, str(tmp_path), "docs", name],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        source = ROOT / "specs" / (f"{name}.md" if name != "conformance" else "conformance/README.md")
        assert (done.returncode, done.stdout) == (0, source.read_bytes()), done.stderr


@pytest.mark.parametrize(
    "text", ["see specs/policy.md", "see tests/x", "README says how", "policy.md has it", "run benchmarks/load.py"]
)
def test_such_a_file_is_noticed(text: str) -> None:
    assert IN_CHECKOUT.search(text)
