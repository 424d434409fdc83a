"""Counters of rate limits and budgets: exact sliding windows, in memory.

Rule: no clock is read; the instant is an argument. No half-open span of ``window_us`` ever holds more than
``max_calls`` charged calls. An instant before one already charged counts as that one: a clock set back frees nothing.
Source: specs/policy.md, "Rate limits" and "Budgets".
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from threading import Lock

from cra_mcp.policy.model import Charge, Facts, Limit, Scope
from cra_mcp.policy.spending import Spending

_Key = tuple[str, ...]
_PRUNE_AT = 1_024


class _Calls:
    """Instants at which one counter was charged, oldest first: as many as can matter, never fewer."""

    __slots__ = ("keep", "times", "window_us")

    def __init__(self) -> None:
        self.times: deque[int] = deque()
        self.keep: int = 0
        self.window_us: int = 0


class Counters:
    """How often each limit was charged, by whom. May be used from any thread.

    A counter keeps no more instants than its limit admits calls, and is forgotten after its last call left the window;
    a thousand may stay longer.
    """

    __slots__ = ("_calls", "_lock", "_prune_at", "_spending")

    def __init__(self) -> None:
        self._calls: dict[_Key, _Calls] = {}
        self._spending: dict[_Key, Spending] = {}
        self._lock = Lock()
        self._prune_at = _PRUNE_AT

    def __len__(self) -> int:
        """Count the counters kept."""
        return len(self._calls) + len(self._spending)

    def blocks(self, limits: Sequence[Limit], charges: Sequence[Charge]) -> bool:
        """Tell whether charging these waits for a disk."""
        return False

    def close(self) -> None:
        """Close what was opened."""

    def retry_after_us(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """Tell how many microseconds until the limit admits a call; 0 if it does now."""
        calls = self._calls.get(_key(limit, facts))
        if calls is None:
            return 0
        times = calls.times
        if len(times) < limit.max_calls:
            return 0
        return wait_us(times[-limit.max_calls], times[-1], limit, now_us)

    def spent(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """Count the calls charged in the window that ends now."""
        with self._lock:
            calls = self._calls.get(_key(limit, facts))
            if calls is None or not calls.times:
                return 0
            since = max(now_us, calls.times[-1]) - limit.window_us
            return sum(time > since for time in calls.times)

    def room_after_us(self, charge: Charge, facts: Facts, now_us: int) -> int | None:
        """Tell how many microseconds until a budget has room for a charge; 0 if it has now, None if it never does."""
        with self._lock:
            return self._room_after_us(charge, facts, now_us)

    def cost(self, charge: Charge, facts: Facts, now_us: int) -> int:
        """Add up what was taken from a charge's budget in the window that ends now, in millionths."""
        with self._lock:
            spending = self._spending.get(counter_key(charge.budget.budget_id, charge.budget.scope, facts))
            return 0 if spending is None else spending.within(charge.budget.window_us, now_us)

    def take(self, limits: Sequence[Limit], facts: Facts, now_us: int, charges: Sequence[Charge] = ()) -> bool:
        """Charge one call to every limit and budget, or to none where one of them is spent.

        Returns:
            False if nothing was charged. Asking and charging are one step: of two calls that were both told there is
            room for one more, one gets False, and must be refused.
        """
        with self._lock:
            for limit in limits:
                if self.retry_after_us(limit, facts, now_us):
                    return False
            for charge in charges:
                if self._room_after_us(charge, facts, now_us) != 0:
                    return False
            for limit in limits:
                self._charge(limit, _key(limit, facts), now_us)
            for charge in charges:
                self._spend(charge, facts, now_us)
            if len(self) >= self._prune_at:
                self._prune(now_us)
            return True

    def give_back(self, limits: Sequence[Limit], facts: Facts, taken_us: int, charges: Sequence[Charge] = ()) -> None:
        """Undo ``take(limits, facts, taken_us, charges)`` for a call that could not go ahead after all."""
        with self._lock:
            for limit in limits:
                key = _key(limit, facts)
                calls = self._calls.get(key)
                if calls is not None:
                    self._discharge(key, calls, taken_us)
            for charge in charges:
                self._correct(charge, facts, taken_us, 0)

    def settle(self, charge: Charge, facts: Facts, taken_us: int, cost: int) -> None:
        """Put what a call has cost, in millionths, in the place of what was reserved for it."""
        with self._lock:
            self._correct(charge, facts, taken_us, cost)

    def _room_after_us(self, charge: Charge, facts: Facts, now_us: int) -> int | None:
        budget = charge.budget
        spending = self._spending.get(counter_key(budget.budget_id, budget.scope, facts))
        if spending is None:
            return 0 if charge.amount <= budget.max_cost else None
        return spending.room_after_us(budget, charge.amount, now_us)

    def _spend(self, charge: Charge, facts: Facts, now_us: int) -> None:
        budget = charge.budget
        key = counter_key(budget.budget_id, budget.scope, facts)
        spending = self._spending.get(key)
        if spending is None:
            spending = self._spending[key] = Spending(budget.window_us)
        spending.window_us = max(spending.window_us, budget.window_us)
        spending.charge(charge.amount, now_us)

    def _correct(self, charge: Charge, facts: Facts, taken_us: int, cost: int) -> None:
        spending = self._spending.get(counter_key(charge.budget.budget_id, charge.budget.scope, facts))
        if spending is not None:
            spending.correct(taken_us, charge.amount, cost)

    def _charge(self, limit: Limit, key: _Key, now_us: int) -> None:
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls()
        calls.keep = max(calls.keep, limit.max_calls)
        calls.window_us = max(calls.window_us, limit.window_us)
        times = calls.times
        times.append(max(now_us, times[-1]) if times else now_us)
        while len(times) > calls.keep:  # after appending: whoever reads meanwhile finds enough
            times.popleft()

    def _discharge(self, key: _Key, calls: _Calls, taken_us: int) -> None:
        """Drop the first instant from ``taken_us`` on: that very one, or a later one if the clock had gone back."""
        times = calls.times.copy()
        at = bisect_left(times, taken_us)
        if at < len(times):
            del times[at]
        calls.times = times
        if not times:
            del self._calls[key]

    def _prune(self, now_us: int) -> None:
        """Forget counters whose last call has left its window. Next due at twice the size, which spreads the cost."""
        live = {key: calls for key, calls in self._calls.items() if calls.times[-1] + calls.window_us > now_us}
        self._calls = live
        self._spending = {key: each for key, each in self._spending.items() if not each.is_over(now_us)}
        self._prune_at = max(_PRUNE_AT, 2 * len(self))


def wait_us(oldest_us: int, last_us: int, limit: Limit, now_us: int) -> int:
    """Microseconds until a limit admits a call; 0 if it does now.

    Args:
        oldest_us: when the last but ``max_calls - 1`` call was charged.
        last_us: when the last one was; an instant before it counts as that one.
        limit: the limit.
        now_us: the instant.
    """
    left_us = oldest_us + limit.window_us
    return 0 if left_us <= max(now_us, last_us) else left_us - now_us


def counter_key(name: str, scope: Scope, facts: Facts) -> tuple[str, ...]:
    """Name a counter. Agents are told apart by tenant too: two tenants may each have an agent of one name."""
    if scope == "agent":
        return name, scope, facts.tenant, facts.agent_id
    if scope == "session":
        return name, scope, facts.session_id
    if scope == "tenant":
        return name, scope, facts.tenant
    return (name,)


def _key(limit: Limit, facts: Facts) -> _Key:
    return counter_key(limit.limit_id, limit.scope, facts)
