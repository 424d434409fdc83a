"""What one budget has been charged: amounts and instants, added up over a sliding window.

Rule: whole millionths, so sums are exact. No half-open span of ``window_us`` holds more than was let in. To stay small, many old
charges are counted as if they were somewhat younger: that can refuse a call, never admit one.
Source: specs/policy.md, "Budgets".
"""

from bisect import bisect_left, bisect_right

from cra_mcp.policy.model import Budget

MAX_ENTRIES = 4_096


class Spending:
    """Charges of one counter, oldest first. Not safe by itself: whoever has it holds the lock."""

    __slots__ = ("amounts", "times", "window_us")

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self.times: list[int] = []
        self.amounts: list[int] = []

    def room_after_us(self, budget: Budget, amount: int, now_us: int) -> int | None:
        """Microseconds until ``amount`` fits into the budget; 0 if it does now, None if it never does."""
        if amount > budget.max_cost:
            return None
        first = bisect_right(self.times, self._at(now_us) - budget.window_us)
        over = sum(self.amounts[first:]) + amount - budget.max_cost
        if over <= 0:
            return 0
        while over > 0:  # ends: without any of them there is room
            over -= self.amounts[first]
            first += 1
        return self.times[first - 1] + budget.window_us - now_us

    def within(self, window_us: int, now_us: int) -> int:
        """What was charged in the window that ends now."""
        return sum(self.amounts[bisect_right(self.times, self._at(now_us) - window_us) :])

    def charge(self, amount: int, now_us: int) -> None:
        """Add a charge; one at an instant before the last counts as at that last one."""
        now_us = self._at(now_us)
        gone = bisect_right(self.times, now_us - self.window_us)
        del self.times[:gone], self.amounts[:gone]
        self.times.append(now_us)
        self.amounts.append(amount)
        if len(self.times) > MAX_ENTRIES:
            self._merge()

    def correct(self, taken_us: int, amount: int, cost: int) -> None:
        """Put ``cost`` in the place of ``amount`` charged at ``taken_us``; nothing, if that has left the window."""
        for at in range(bisect_left(self.times, taken_us), len(self.times)):
            if self.amounts[at] >= amount:  # that very one, or a later one if the clock had gone back
                self.amounts[at] += cost - amount
                return

    def is_over(self, now_us: int) -> bool:
        """Whether its last charge has left the window."""
        return not self.times or self.times[-1] + self.window_us <= now_us

    def _at(self, now_us: int) -> int:
        return max(now_us, self.times[-1]) if self.times else now_us

    def _merge(self) -> None:
        """Count each second one of the older half as at the next."""
        half = len(self.times) // 4 * 2
        self.amounts[:half] = [self.amounts[at] + self.amounts[at + 1] for at in range(0, half, 2)]
        self.times[:half] = self.times[1:half:2]
