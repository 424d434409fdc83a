"""Which policies could concern which actions, by their globs: found for all actions at once.

Rule: the same answer as asking every glob about every action, at a price that grows with the answer.
Source: specs/policy.md, "Globs".
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from cra_mcp.policy.conditions import compile_glob

_LAST = "\U0010ffff"


class ActionIndex:
    """Action ids, to be asked for those a glob matches."""

    def __init__(self, action_ids: Sequence[str]) -> None:
        self._ids = action_ids
        self._exact = {action_id: index for index, action_id in enumerate(action_ids)}
        self._forward = sorted((action_id, index) for index, action_id in enumerate(action_ids))
        self._backward = sorted((action_id[::-1], index) for index, action_id in enumerate(action_ids))
        self._known: dict[str, Sequence[int]] = {}

    def matching(self, globs: Iterable[str]) -> Iterable[int]:
        """Numbers of the actions that at least one of ``globs`` matches, each once."""
        patterns = tuple(globs)
        if len(patterns) == 1:
            return self._of(patterns[0])
        return {index for pattern in patterns for index in self._of(pattern)}

    def _of(self, pattern: str) -> Sequence[int]:
        found = self._known.get(pattern)
        if found is None:
            found = self._known[pattern] = self._look(pattern)
        return found

    def _look(self, pattern: str) -> Sequence[int]:
        if "*" not in pattern:
            return [self._exact[pattern]] if pattern in self._exact else []
        if pattern == "*":
            return range(len(self._ids))
        first, _, rest = pattern.partition("*")
        last = rest.rpartition("*")[2]
        near = _beginning(self._forward, first) if len(first) >= len(last) else _beginning(self._backward, last[::-1])
        matches = compile_glob(pattern)
        return [index for index in near if matches(self._ids[index])]


def _beginning(entries: Sequence[tuple[str, int]], prefix: str) -> Iterable[int]:
    low = bisect_left(entries, (prefix,))
    high = bisect_left(entries, (prefix + _LAST,))
    return [index for _, index in entries[low:high]]
