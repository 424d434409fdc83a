"""Which policies could concern which actions, by their globs: found for all actions at once.

Rule: the same answer as asking every glob about every action, at a price that grows with the answer.
Source: specs/policy.md, "Globs".
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from cra_mcp.policy.conditions import compile_glob

_LAST = "\U0010ffff"


class ActionIndex:
    """Action ids, to be asked for those a glob matches."""

    def __init__(self, action_ids: Sequence[str]) -> None:
        self._ids = action_ids
        self._exact = {action_id: index for index, action_id in enumerate(action_ids)}
        self._forward = _Sorted(action_ids)
        self._backward = _Sorted([action_id[::-1] for action_id in action_ids])
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
        first, *middle, last = pattern.split("*")
        inner = max(middle, key=len, default="")
        near = (
            self._forward.beginning(first, inner)
            if len(first) >= len(last)
            else self._backward.beginning(last[::-1], inner[::-1])
        )
        matches = compile_glob(pattern)
        return [index for index in near if matches(self._ids[index])]


class _Sorted:
    """Texts in order, with the number of each."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._numbers = sorted(range(len(texts)), key=texts.__getitem__)
        self._texts = [texts[number] for number in self._numbers]
        self._joined = "\n".join(self._texts)  # one search of it is quicker than one of each
        self._starts = list(accumulate((len(text) + 1 for text in self._texts), initial=0))

    def beginning(self, prefix: str, inner: str) -> Sequence[int]:
        """Numbers of those that begin with ``prefix`` and have ``inner`` in them."""
        low, high = bisect_left(self._texts, prefix), bisect_left(self._texts, prefix + _LAST)
        if not inner:
            return self._numbers[low:high]
        found: list[int] = []
        starts, end = self._starts, self._starts[high]
        at = self._joined.find(inner, starts[low], end)
        while at >= 0:
            position = bisect_right(starts, at) - 1
            found.append(self._numbers[position])
            at = self._joined.find(inner, starts[position + 1], end)
        return found
