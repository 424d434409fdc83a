"""Findings of the linter: what they are called, how grave they are, and where they stand.

Source: specs/policy.md, "Linting".
"""

from dataclasses import dataclass
from typing import Final, Literal

from cra_mcp.analysis.subject import Written

Level = Literal["error", "warning", "note"]
LEVELS: Final[tuple[Level, ...]] = ("note", "warning", "error")

CODES: Final[dict[str, Level]] = {
    "secret": "error",
    "rejected_schema": "error",
    "unreachable_policy": "warning",
    "shadowed_policy": "warning",
    "duplicate_policy": "warning",
    "constant_condition": "warning",
    "useless_allow": "warning",
    "unknown_argument": "warning",
    "impossible_condition": "warning",
    "unguarded_argument": "warning",
    "past_timestamp": "warning",
    "unreachable_budget": "warning",
    "comma_in_glob": "warning",
    "unknown_role": "warning",
    "unmatched_glob": "warning",
    "undeclared_action": "warning",
    "uncovered_risk": "warning",
    "long_name": "warning",
    "rejected_property": "warning",
    "ignored_keyword": "warning",
    "misspelt_keyword": "warning",
    "undeclared_arguments": "warning",
    "translated_schema": "note",
    "rewritten_pattern": "note",
    "loosened_schema": "note",
    "returns_not_object": "note",
}
"""Every code and its level. Codes are stable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at. ``pointer`` is RFC 6901, into ``file``."""

    code: str
    file: str
    pointer: str
    message: str

    @property
    def level(self) -> Level:
        """How grave it is."""
        return CODES[self.code]

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "code": self.code,
            "level": self.level,
            "file": self.file,
            "pointer": self.pointer,
            "message": self.message,
        }


def found(code: str, where: Written, below: str, message: str) -> Finding:
    """A finding about a part of what is written."""
    return Finding(code, where.file, where.pointer + below, message)


def is_grave(finding: Finding, level: Level) -> bool:
    """Whether a finding is of a level, or above it."""
    return LEVELS.index(finding.level) >= LEVELS.index(level)
