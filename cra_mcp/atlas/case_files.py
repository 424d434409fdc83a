"""Policy tests that belong to no package: those of the operator's policies.

Rule: the form of an overlay's tests, in JSON or YAML, and every problem at once.
Source: specs/atlas.md, "Policy tests".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cra_mcp.atlas.assembly import Item, entries_of
from cra_mcp.atlas.build import cases_of, tried_of
from cra_mcp.atlas.case_form import TestFile
from cra_mcp.atlas.checks import check_test
from cra_mcp.atlas.model import PolicyCase
from cra_mcp.atlas.overlay_loading import is_yaml, read_bounded
from cra_mcp.atlas.policy_file import read_value
from cra_mcp.atlas.shape import Place, as_model
from cra_mcp.errors import AtlasInvalidError, Problem
from cra_mcp.policy.model import ActionFacts

_SUFFIXES = frozenset({".json", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Policy tests, and the actions they bring to be tried on."""

    cases: tuple[PolicyCase, ...]
    tried: tuple[ActionFacts, ...]


def load_case_files(paths: Sequence[Path]) -> CaseFiles:
    """Read files of policy tests, and those that stand in folders.

    Raises:
        AtlasInvalidError: with every problem found.
    """
    problems: list[Problem] = []
    items: list[Item[TestFile]] = []
    tried: set[str] = set()
    for file in (file for path in paths for file in _files(path)):
        place = Place(file.name, "", problems)
        found = len(problems)
        value = read_value(read_bounded(file), place, yaml=is_yaml(file))
        for raw, at in entries_of(value, place) if len(problems) == found else ():
            part = as_model(TestFile, raw, at)
            if part is not None:
                items.append(Item(at, cast("Mapping[str, object]", raw), part))
                check_test(items[-1], tried)
    if problems:
        raise AtlasInvalidError(problems, hint='`cra-mcp docs atlas`, "Policy tests", says how to write them')
    return CaseFiles(
        tuple(case for item in items for case in cases_of(item)),
        tuple(action for item in items for action in tried_of(item)),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
