"""Counters of rate limits: exact sliding windows, in memory.

Rule: no clock is read; the instant is an argument. No half-open span of ``window_us`` ever holds more than
``max_calls`` charged calls. An instant before one already charged counts as that one: a clock set back frees nothing.
Source: specs/policy.md, "Rate limits".
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from threading import Lock

from cra_mcp.policy.model import Facts, Limit

_Key = tuple[str, str, str, str]
_PRUNE_AT = 1_024


class _Calls:
    """Instants at which one counter was charged, oldest first, and the longest window they were charged under."""

    __slots__ = ("times", "window_us")

    def __init__(self) -> None:
        self.times: deque[int] = deque()
        self.window_us: int = 0


class Counters:
    """How often each limit was charged, by whom. May be used from any thread.

    Memory is bounded by the calls that still count, and a thousand idle counters.
    """

    __slots__ = ("_calls", "_lock", "_prune_at")

    def __init__(self) -> None:
        self._calls: dict[_Key, _Calls] = {}
        self._lock = Lock()
        self._prune_at = _PRUNE_AT

    def __len__(self) -> int:
        """Count the counters kept."""
        return len(self._calls)

    def retry_after_us(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """Tell how many microseconds until the limit admits a call; 0 if it does now."""
        with self._lock:
            return self._wait(limit, _key(limit, facts), now_us)

    def spent(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """Count the calls charged in the window that ends now."""
        with self._lock:
            calls = self._calls.get(_key(limit, facts))
            return 0 if calls is None else sum(time > now_us - limit.window_us for time in calls.times)

    def take(self, limits: Sequence[Limit], facts: Facts, now_us: int) -> bool:
        """Charge one call to every limit, or to none where one of them is spent.

        Returns:
            False if nothing was charged. Asking and charging are one step, so of two calls that were both told there is
            room for one, one gets False and must be refused.
        """
        with self._lock:
            keys = [_key(limit, facts) for limit in limits]
            if any(self._wait(limit, key, now_us) for limit, key in zip(limits, keys, strict=True)):
                return False
            for limit, key in zip(limits, keys, strict=True):
                self._charge(limit, key, now_us)
            if len(self._calls) >= self._prune_at:
                self._prune(now_us)
            return True

    def give_back(self, limits: Sequence[Limit], facts: Facts, taken_us: int) -> None:
        """Undo ``take(limits, facts, taken_us)`` for a call that could not go ahead after all."""
        with self._lock:
            for limit in limits:
                key = _key(limit, facts)
                calls = self._calls.get(key)
                if calls is None:
                    continue
                at = bisect_left(calls.times, taken_us)
                if at < len(calls.times):
                    del calls.times[at]
                if not calls.times:
                    del self._calls[key]

    def _wait(self, limit: Limit, key: _Key, now_us: int) -> int:
        calls = self._calls.get(key)
        if calls is None or len(calls.times) < limit.max_calls:
            return 0
        return max(0, calls.times[-limit.max_calls] + limit.window_us - now_us)

    def _charge(self, limit: Limit, key: _Key, now_us: int) -> None:
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls()
        times = calls.times
        calls.window_us = max(calls.window_us, limit.window_us)
        while times and times[0] + calls.window_us <= now_us:
            times.popleft()
        times.append(max(now_us, times[-1]) if times else now_us)

    def _prune(self, now_us: int) -> None:
        """Forget counters whose last call has left its window. Next due at twice the size, which spreads the cost."""
        live = {key: calls for key, calls in self._calls.items() if calls.times[-1] + calls.window_us > now_us}
        self._calls = live
        self._prune_at = max(_PRUNE_AT, 2 * len(live))


def _key(limit: Limit, facts: Facts) -> _Key:
    """Name the counter. Agents are told apart by tenant too: two tenants may each have an agent of one name."""
    scope = limit.scope
    if scope == "session":
        return (limit.limit_id, scope, "", facts.session_id)
    if scope == "agent":
        return (limit.limit_id, scope, facts.tenant, facts.agent_id)
    if scope == "tenant":
        return (limit.limit_id, scope, facts.tenant, "")
    return (limit.limit_id, scope, "", "")
