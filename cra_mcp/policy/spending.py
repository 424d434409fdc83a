"""What one budget has been charged: amounts and instants, added up over a sliding window.

Rule: whole millionths, so sums are exact. No half-open span of ``window_us`` holds more than was let in. To stay small, many old
charges are counted as if they were younger, by at most a hundredth of the window: that can refuse a call a little longer than
need be, never admit one.
Source: specs/policy.md, "Budgets".
"""

from bisect import bisect_left, bisect_right

from cra_mcp.policy.model import Budget

MAX_ENTRIES = 4_096
PARTS = 128
"""A window is cut into so many parts. Charges of one part may be added up, at the instant of its last."""


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
        """Count those of one part of a window as at the last of them. Parts lie still, so that merging again moves nothing on."""
        part_us = max(1, self.window_us // PARTS)
        merged: dict[int, tuple[int, int]] = {}
        for time, amount in zip(self.times, self.amounts, strict=True):
            merged[time // part_us] = time, merged.get(time // part_us, (0, 0))[1] + amount
        self.times = [time for time, _ in merged.values()]
        self.amounts = [amount for _, amount in merged.values()]
