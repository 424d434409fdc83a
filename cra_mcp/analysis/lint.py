"""The linter: everything wrong with some atlases and overlays that load.

Source: specs/policy.md, "Linting".
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cra_mcp.analysis.findings import Finding
from cra_mcp.analysis.host_lint import lint_hosts, lint_secrets
from cra_mcp.analysis.policy_lint import lint_policies
from cra_mcp.analysis.subject import Subject, load_subject

_DIGITS = re.compile(r"([0-9]+)")


def lint_paths(paths: Sequence[tuple[str, Path]], policy_files: Sequence[Path] = ()) -> list[Finding]:
    """Load and lint. Raises as ``load_subject``."""
    return lint(load_subject(paths, policy_files))


def lint(subject: Subject) -> list[Finding]:
    """Every finding once, by file and place."""
    now = datetime.now(UTC)
    findings = {*lint_policies(subject, now), *lint_hosts(subject), *lint_secrets(subject)}
    return sorted(findings, key=lambda each: (each.file, _steps(each.pointer), each.code, each.message))


def _steps(pointer: str) -> list[list[tuple[int, int, str]]]:
    """For sorting: numbers by value."""
    return [
        [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _DIGITS.split(step)]
        for step in pointer.split("/")
    ]
