"""Which elements of two sequences belong together: a shortest edit script, in bounded time.

Rule: pure. The work is bounded by the number of edits looked for, whatever the sequences hold: traces come from outside.
Source: E. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), the greedy algorithm.
"""

from collections.abc import Hashable, Sequence
from itertools import zip_longest

Pair = tuple[int | None, int | None]
"""Positions in the first and in the second sequence; None where it has no such element."""

MAX_EDITS = 500
"""Additions and removals that are looked for; in sequences that differ in more, elements after the common start go by position."""


def align(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[Pair]:
    """Pair equal elements, in order, with as few left over as possible; after ``MAX_EDITS`` of those, by position.

    Returns:
        Every position of both sequences once, in order.
    """
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    middle = _middle(old[start : len(old) - end], new[start : len(new) - end])
    pairs: list[Pair] = [(at, at) for at in range(start)]
    pairs += [(_moved(one, start), _moved(other, start)) for one, other in middle]
    pairs += [(len(old) - left, len(new) - left) for left in range(end, 0, -1)]
    return pairs


def _moved(at: int | None, by: int) -> int | None:
    return at + by if at is not None else None


def _middle(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[Pair]:
    if not old or not new:
        return [*((at, None) for at in range(len(old))), *((None, at) for at in range(len(new)))]
    trails = _trails(old, new)
    return _by_position(old, new) if trails is None else _walk_back(trails, len(old), len(new))


def _trails(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[dict[int, int]] | None:
    """For each number of edits the furthest place reached on each diagonal; None where ``MAX_EDITS`` don't lead to the end."""
    reached = {1: 0}
    trails: list[dict[int, int]] = []
    for edits in range(min(len(old) + len(new), MAX_EDITS) + 1):
        trails.append(reached.copy())
        for diagonal in range(-edits, edits + 1, 2):
            down = _goes_down(reached, diagonal, edits)
            x = reached[diagonal + 1] if down else reached[diagonal - 1] + 1
            y = x - diagonal
            while x < len(old) and y < len(new) and old[x] == new[y]:
                x, y = x + 1, y + 1
            reached[diagonal] = x
            if x >= len(old) and y >= len(new):
                return trails
    return None


def _goes_down(reached: dict[int, int], diagonal: int, edits: int) -> bool:
    """Whether the best way to a diagonal is an addition."""
    if diagonal == -edits:
        return True
    return diagonal != edits and reached[diagonal - 1] < reached[diagonal + 1]


def _walk_back(trails: list[dict[int, int]], x: int, y: int) -> list[Pair]:
    pairs: list[Pair] = []
    for edits in range(len(trails) - 1, -1, -1):
        reached, diagonal = trails[edits], x - y
        down = _goes_down(reached, diagonal, edits)
        before = diagonal + 1 if down else diagonal - 1
        from_x = reached[before]
        from_y = from_x - before
        while x > (from_x if down else from_x + 1):  # equal elements after the edit
            x, y = x - 1, y - 1
            pairs.append((x, y))
        if edits:
            pairs.append((None, from_y) if down else (from_x, None))
        x, y = from_x, from_y
    return pairs[::-1]


def _by_position(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[Pair]:
    pairs: list[Pair] = []
    for at, (one, other) in enumerate(zip_longest(old, new)):
        first, second = at if at < len(old) else None, at if at < len(new) else None
        if first is not None and second is not None and one != other:
            pairs += [(first, None), (None, second)]
        else:
            pairs.append((first, second))
    return pairs
