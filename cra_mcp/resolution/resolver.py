"""Answers queries: what a requester may know and do for a goal, from memory where nothing has changed.

Rule: deciding is pure; what depends only on the outcome of the policies is built once per outcome and shared.
Source: specs/carp.md, "Resolution".
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

from cra_mcp.atlas.registry import Catalogue
from cra_mcp.policy.conditions import TRUE
from cra_mcp.policy.model import Conditions, Facts
from cra_mcp.policy.windows import Schedule
from cra_mcp.resolution.deciding import outcome_of
from cra_mcp.resolution.model import Answer, Outcome, Query
from cra_mcp.resolution.relevance import blocks_of, condition_of
from cra_mcp.resolution.scope import Scope, scope_of

_MEMO_SIZE = 512

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Resolver:
    """Answers queries against one catalogue. Holds nothing but memos, so it is replaced when the catalogue is."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._scopes: OrderedDict[Hashable, Scope] = OrderedDict()
        self._outcomes: OrderedDict[Hashable, Outcome] = OrderedDict()
        self._queries: OrderedDict[Query, _Known] = OrderedDict()
        # Blocks without conditions need no evaluation, and most atlases have no others.
        self._conditions = {
            (atlas.atlas_id, block.block_id): condition_of(atlas, block)
            for atlas in catalogue.atlases
            for block in atlas.context_blocks
            if block.conditions != Conditions()
        }
        self._schedules = tuple(
            (atlas.atlas_id, Schedule(window))
            for atlas in catalogue.atlases
            for window in {block.conditions.time_window for block in atlas.context_blocks}
            if window is not None
        )

    def answer(self, query: Query, facts: Facts, now_us: int) -> Answer:
        """What policy makes of every action the query considers, and the context for it.

        Raises:
            RequestError: ``unknown_atlas`` or ``unknown_capability``.
        """
        known = self._queries.get(query)
        if known is None:
            known = _remember(self._queries, query, lambda: _Known(self._scope(query)))
        policies = tuple([policy_set.outcome(facts, now_us) for policy_set in known.scope.policy_sets])
        left_out = self._left_out(facts, now_us) if self._conditions else _NOTHING
        key = (policies, left_out)
        found = known.answers.get(key)
        if found is None:
            found = _remember(known.answers, key, lambda: self._build(query, known.scope, facts, now_us, key))
        return found

    def ttl_seconds(self, query: Query, now_us: int, ttl_seconds: int) -> int:
        """``ttl_seconds``, cut at the next instant at which time can change what a considered atlas allows.

        Raises:
            RequestError: ``unknown_atlas`` or ``unknown_capability``.
        """
        boundary = self.next_boundary(query, now_us)
        return ttl_seconds if boundary is None else max(0, min(ttl_seconds, (boundary - now_us) // 1_000_000))

    def next_boundary(self, query: Query, now_us: int) -> int | None:
        """The first instant after ``now_us`` at which time can change what a considered atlas allows; None if it never does.

        Raises:
            RequestError: ``unknown_atlas`` or ``unknown_capability``.
        """
        scope = self._scope(query)
        changes = [policy_set.next_boundary(now_us) for policy_set in scope.policy_sets]
        if self._schedules:
            considered = {atlas.atlas_id for atlas in scope.atlases}
            changes += [each.next_change(now_us) for atlas_id, each in self._schedules if atlas_id in considered]
        return min((change for change in changes if change is not None), default=None)

    def _scope(self, query: Query) -> Scope:
        key = (query.atlas_ids, query.capabilities)
        found = self._scopes.get(key)
        return found or _remember(self._scopes, key, lambda: scope_of(self.catalogue, query))

    def _left_out(self, facts: Facts, now_us: int) -> frozenset[tuple[str, str]]:
        """Blocks whose condition doesn't hold or can't be evaluated: what is not known to be needed is not shown."""
        return frozenset(key for key, test in self._conditions.items() if test(facts, now_us) != TRUE)

    def _build(self, query: Query, scope: Scope, facts: Facts, now_us: int, key: "_AnswerKey") -> Answer:
        outcome = _remember(
            self._outcomes,
            (query.atlas_ids, query.capabilities, key[0]),
            lambda: outcome_of(scope, facts, now_us),
        )
        blocks = blocks_of(scope, query, key[1])
        timed = bool(self._conditions) or any(policy_set.timed for policy_set in scope.policy_sets)
        return Answer(outcome, blocks, tuple(block.block_id for block in blocks), timed)


_AnswerKey = tuple[tuple[object, ...], frozenset[tuple[str, str]]]
_NOTHING: frozenset[tuple[str, str]] = frozenset()


class _Known:
    """A query asked before: what it considers, and its answers by outcome."""

    __slots__ = ("answers", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.answers: OrderedDict[Hashable, Answer] = OrderedDict()


def _remember(memo: OrderedDict[K, T], key: K, build: Callable[[], T]) -> T:
    """Memo of bounded size, oldest out first. A lost race builds a value twice, which is harmless: values are equal."""
    found = memo.get(key)
    if found is None:
        found = memo[key] = build()
        if len(memo) > _MEMO_SIZE:
            memo.popitem(last=False)
    return found
