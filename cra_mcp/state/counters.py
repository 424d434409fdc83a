"""Counters of long windows, in the state database: they survive a restart, and all processes with the data folder share them.

Rule: what counts longer than a minute is kept, a session's counters excepted (a session ends with its process). Asking and
charging are one ``BEGIN IMMEDIATE`` transaction. Everything else is counted in memory and pays nothing for this.
Source: specs/policy.md, "Rate limits" and "Budgets".
"""

import json
import sqlite3
from collections.abc import Sequence

from cra_mcp.policy.counters import Counters, counter_key, wait_us
from cra_mcp.policy.model import Budget, Charge, Facts, Limit
from cra_mcp.policy.spending import Spending
from cra_mcp.state.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (
  charge_id INTEGER PRIMARY KEY,
  counter TEXT NOT NULL,
  charged_at_us INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  window_us INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS charges_by_counter ON charges (counter, charged_at_us, amount);
"""

MIN_WINDOW_US = 60_000_000
_SWEEP_EVERY = 256
_DROP_UNTIL = "DELETE FROM charges WHERE counter = ? AND charged_at_us <= ?"
_DROP_ONE = (
    "DELETE FROM charges WHERE charge_id = (SELECT charge_id FROM charges WHERE counter = ? AND charged_at_us >= ? "
    "ORDER BY charged_at_us, charge_id LIMIT 1)"
)
_DROP_BEYOND = (
    "DELETE FROM charges WHERE counter = ? AND charged_at_us < (SELECT charged_at_us FROM charges WHERE counter = ? "
    "ORDER BY charged_at_us DESC LIMIT 1 OFFSET ?)"
)
"""Of a limit, as many charges as it admits calls can matter, however the clock is set."""


class StoredCounters(Counters):
    """Counters of which those of long windows are kept. May be used from any thread.

    Args:
        database: made with ``SCHEMA``.
    """

    __slots__ = ("_database", "_until_sweep")

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._until_sweep = 1

    def blocks(self, limits: Sequence[Limit], charges: Sequence[Charge]) -> bool:
        """Tell whether charging these waits for a disk."""
        return any(map(_is_kept, limits)) or any(_is_kept(charge.budget) for charge in charges)

    def retry_after_us(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """As in memory.

        Raises:
            StateUnavailableError: the database can't be read.
        """
        if not _is_kept(limit):
            return super().retry_after_us(limit, facts, now_us)
        with self._database.reading() as connection:
            return _wait_us(connection, limit, facts, now_us)

    def spent(self, limit: Limit, facts: Facts, now_us: int) -> int:
        """As in memory. Raises as ``retry_after_us``."""
        if not _is_kept(limit):
            return super().spent(limit, facts, now_us)
        with self._database.reading() as connection:
            return _spending(connection, limit.window_us, _name(limit.limit_id, limit, facts)).within(
                limit.window_us, now_us
            )

    def room_after_us(self, charge: Charge, facts: Facts, now_us: int) -> int | None:
        """As in memory. Raises as ``retry_after_us``."""
        if not _is_kept(charge.budget):
            return super().room_after_us(charge, facts, now_us)
        with self._database.reading() as connection:
            return _room_after_us(connection, charge, facts, now_us)

    def cost(self, charge: Charge, facts: Facts, now_us: int) -> int:
        """As in memory. Raises as ``retry_after_us``."""
        budget = charge.budget
        if not _is_kept(budget):
            return super().cost(charge, facts, now_us)
        with self._database.reading() as connection:
            return _spending(connection, budget.window_us, _name(budget.budget_id, budget, facts)).within(
                budget.window_us, now_us
            )

    def take(self, limits: Sequence[Limit], facts: Facts, now_us: int, charges: Sequence[Charge] = ()) -> bool:
        """As in memory; nothing is charged if it can't be kept.

        Raises:
            StateUnavailableError: the database can't be written.
        """
        if not self.blocks(limits, charges):
            return super().take(limits, facts, now_us, charges)
        brief = [limit for limit in limits if not _is_kept(limit)]
        small = [charge for charge in charges if not _is_kept(charge.budget)]
        taken = False
        try:
            with self._database.transaction() as connection:
                for limit in limits:
                    if _is_kept(limit) and _wait_us(connection, limit, facts, now_us):
                        return False
                for charge in charges:
                    if _is_kept(charge.budget) and _room_after_us(connection, charge, facts, now_us) != 0:
                        return False
                taken = super().take(brief, facts, now_us, small)
                if not taken:
                    return False
                self._keep(connection, limits, charges, facts, now_us=now_us)
        except BaseException:
            if taken:
                super().give_back(brief, facts, now_us, small)
            raise
        return True

    def give_back(self, limits: Sequence[Limit], facts: Facts, taken_us: int, charges: Sequence[Charge] = ()) -> None:
        """As in memory. Raises as ``take``."""
        super().give_back(
            [limit for limit in limits if not _is_kept(limit)],
            facts,
            taken_us,
            [charge for charge in charges if not _is_kept(charge.budget)],
        )
        if not self.blocks(limits, charges):
            return
        with self._database.transaction() as connection:
            for limit in limits:
                if _is_kept(limit):
                    connection.execute(_DROP_ONE, (_name(limit.limit_id, limit, facts), taken_us))
            for charge in charges:
                if _is_kept(charge.budget):
                    _correct(connection, _budget_name(charge, facts), taken_us, charge.amount, 0)

    def settle(self, charge: Charge, facts: Facts, taken_us: int, cost: int) -> None:
        """As in memory. Raises as ``take``."""
        if not _is_kept(charge.budget):
            super().settle(charge, facts, taken_us, cost)
            return
        with self._database.transaction() as connection:
            _correct(connection, _budget_name(charge, facts), taken_us, charge.amount, cost)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _keep(
        self,
        connection: sqlite3.Connection,
        limits: Sequence[Limit],
        charges: Sequence[Charge],
        facts: Facts,
        *,
        now_us: int,
    ) -> None:
        for limit in limits:
            if _is_kept(limit):
                name = _name(limit.limit_id, limit, facts)
                _insert(connection, name, now_us, 1, limit.window_us)
                connection.execute(_DROP_BEYOND, (name, name, limit.max_calls - 1))
        for charge in charges:
            if _is_kept(charge.budget):
                name = _budget_name(charge, facts)
                at_us = _insert(connection, name, now_us, charge.amount, charge.budget.window_us)
                connection.execute(_DROP_UNTIL, (name, at_us - charge.budget.window_us))
        self._until_sweep -= 1
        if not self._until_sweep:
            self._until_sweep = _SWEEP_EVERY
            connection.execute("DELETE FROM charges WHERE charged_at_us + 2 * window_us <= ?", (now_us,))


def _is_kept(what: Limit | Budget) -> bool:
    return what.window_us > MIN_WINDOW_US and what.scope != "session"


def _name(counter_id: str, what: Limit | Budget, facts: Facts) -> str:
    return json.dumps(counter_key(counter_id, what.scope, facts))


def _budget_name(charge: Charge, facts: Facts) -> str:
    return _name(charge.budget.budget_id, charge.budget, facts)


def _wait_us(connection: sqlite3.Connection, limit: Limit, facts: Facts, now_us: int) -> int:
    name = _name(limit.limit_id, limit, facts)
    row = connection.execute(
        "SELECT charged_at_us, (SELECT MAX(charged_at_us) FROM charges WHERE counter = ?) FROM charges "
        "WHERE counter = ? ORDER BY charged_at_us DESC LIMIT 1 OFFSET ?",
        (name, name, limit.max_calls - 1),
    ).fetchone()
    return 0 if row is None else wait_us(row[0], row[1], limit, now_us)


def _room_after_us(connection: sqlite3.Connection, charge: Charge, facts: Facts, now_us: int) -> int | None:
    budget = charge.budget
    return _spending(connection, budget.window_us, _budget_name(charge, facts)).room_after_us(
        budget, charge.amount, now_us
    )


def _spending(connection: sqlite3.Connection, window_us: int, name: str) -> Spending:
    rows = connection.execute(
        "SELECT charged_at_us, amount FROM charges WHERE counter = ? ORDER BY charged_at_us, charge_id", (name,)
    ).fetchall()
    found = Spending(window_us)
    found.times = [row[0] for row in rows]
    found.amounts = [row[1] for row in rows]
    return found


def _insert(connection: sqlite3.Connection, name: str, now_us: int, amount: int, window_us: int) -> int:
    """Add a charge; one at an instant before the last counts as at that last one. Return the instant it counts at."""
    row = connection.execute("SELECT MAX(charged_at_us) FROM charges WHERE counter = ?", (name,)).fetchone()
    now_us = max(now_us, row[0]) if row[0] is not None else now_us
    connection.execute(
        "INSERT INTO charges (counter, charged_at_us, amount, window_us) VALUES (?, ?, ?, ?)",
        (name, now_us, amount, window_us),
    )
    return now_us


def _correct(connection: sqlite3.Connection, name: str, taken_us: int, amount: int, cost: int) -> None:
    """Put ``cost`` in the place of ``amount`` charged at ``taken_us``, or later if the clock had gone back."""
    connection.execute(
        "UPDATE charges SET amount = amount + ? WHERE charge_id = (SELECT charge_id FROM charges "
        "WHERE counter = ? AND charged_at_us >= ? AND amount >= ? ORDER BY charged_at_us, charge_id LIMIT 1)",
        (cost - amount, name, taken_us, amount),
    )
