"""Counters of long windows: exact, kept, shared, and fail closed."""

import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Budget, Charge, Facts, Limit
from cra_mcp.state.counters import SCHEMA, StoredCounters
from cra_mcp.state.database import Database, StateUnavailableError
from tests.atlas.conftest import action, manifest

HOUR_US = 3_600_000_000
LIMIT = Limit("l", 3, HOUR_US)
BRIEF = Limit("brief", 2, 1_000_000)
BUDGET = Budget("b", 5_000_000, HOUR_US)
FACTS = Facts("bot", "s1")


def stored(folder: Path | None) -> StoredCounters:
    return StoredCounters(Database(None if folder is None else folder / "state.sqlite3", SCHEMA))


def charge(amount: int, budget: Budget = BUDGET) -> Charge:
    return Charge(budget, amount, budget.budget_id)


def steps_of(gaps: list[int], kinds: list[str]) -> st.SearchStrategy[list[tuple[int, str, int, str]]]:
    kind = st.sampled_from(kinds)
    return st.lists(
        st.tuples(st.sampled_from(gaps), kind, st.integers(0, 3_000_000), st.sampled_from(["bot", "other"])),
        max_size=25,
    )


GAPS = [HOUR_US // 3, 0, 1, HOUR_US // 4, HOUR_US - 1, HOUR_US]
STEPS = steps_of(GAPS, ["limit", "budget", "both", "undo", "settle"])
# With the clock set back, a call that is given back may leave more counted on disk than in memory: never less.
STEPS_BACK = steps_of([*GAPS, -HOUR_US // 3, -2 * HOUR_US], ["limit", "budget", "both", "settle"])


@given(st.one_of(STEPS, STEPS_BACK))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_counts_as_what_is_in_memory(steps: list[tuple[int, str, int, str]]) -> None:
    kept, memory, now_us = stored(None), Counters(), 10 * HOUR_US
    try:
        for gap, what, amount, agent in steps:
            now_us = max(now_us + gap, HOUR_US)
            facts = Facts(agent, "s1")
            limits = [LIMIT] if what in {"limit", "both", "undo"} else []
            charges = [charge(amount)] if what != "limit" else []
            assert kept.retry_after_us(LIMIT, facts, now_us) == memory.retry_after_us(LIMIT, facts, now_us)
            assert kept.room_after_us(charge(amount), facts, now_us) == memory.room_after_us(
                charge(amount), facts, now_us
            )
            taken = kept.take(limits, facts, now_us, charges)
            assert taken == memory.take(limits, facts, now_us, charges)
            if taken and what == "undo":
                kept.give_back(limits, facts, now_us, charges)
                memory.give_back(limits, facts, now_us, charges)
            if taken and what == "settle":
                kept.settle(charges[0], facts, now_us, amount // 2)
                memory.settle(charges[0], facts, now_us, amount // 2)
            assert kept.cost(charge(0), facts, now_us) == memory.cost(charge(0), facts, now_us)
    finally:
        kept.close()


def test_counters_of_long_windows_survive_a_restart_and_brief_ones_and_those_of_sessions_do_not(tmp_path: Path) -> None:
    own = Limit("own", 1, HOUR_US, "session")
    first = stored(tmp_path)
    assert first.take([LIMIT, BRIEF, own], FACTS, HOUR_US, [charge(4_000_000)])
    first.close()
    second = stored(tmp_path)
    assert (second.spent(LIMIT, FACTS, HOUR_US), second.spent(BRIEF, FACTS, HOUR_US)) == (1, 0)
    assert second.spent(own, FACTS, HOUR_US) == 0
    assert second.cost(charge(0), FACTS, HOUR_US) == 4_000_000
    assert second.room_after_us(charge(1_000_001), FACTS, HOUR_US) == HOUR_US
    second.close()


def test_a_clock_set_back_frees_nothing_early_after_a_restart_too(tmp_path: Path) -> None:
    first = stored(tmp_path)
    for _ in range(3):
        assert first.take([LIMIT], FACTS, 10 * HOUR_US, [charge(1_000_000)])
    first.close()
    second, back_us = stored(tmp_path), 8 * HOUR_US
    assert not second.take([LIMIT], FACTS, back_us)
    assert second.retry_after_us(LIMIT, FACTS, back_us) == 3 * HOUR_US
    assert second.cost(charge(0), FACTS, back_us) == 3_000_000
    assert second.room_after_us(charge(3_000_000), FACTS, back_us) == 3 * HOUR_US
    assert not second.take([], FACTS, back_us, [charge(3_000_000)])
    assert second.take([], FACTS, back_us, [charge(1_000_000)]), (
        "there is room for one more, which counts as at the last"
    )
    assert second.room_after_us(charge(2_000_000), FACTS, 11 * HOUR_US - 1) == 1
    assert second.take([LIMIT], FACTS, 11 * HOUR_US, [charge(5_000_000)])
    second.close()


def test_nothing_is_written_where_no_long_window_is_charged(tmp_path: Path) -> None:
    counters = stored(tmp_path)
    brief = Budget("brief", 10, 60_000_000)
    assert not counters.blocks([BRIEF], [charge(1, brief)])
    assert counters.take([BRIEF], FACTS, 0, [charge(1, brief)])
    assert counters.room_after_us(charge(10, brief), FACTS, 0) == 60_000_000
    assert counters.cost(charge(0, brief), FACTS, 0) == 1
    counters.settle(charge(1, brief), FACTS, 0, 0)
    counters.give_back([BRIEF], FACTS, 0)
    assert not (tmp_path / "state.sqlite3").exists()


def test_all_or_nothing_is_charged_whatever_is_kept(tmp_path: Path) -> None:
    counters = stored(tmp_path)
    for _ in range(2):
        assert counters.take([BRIEF], FACTS, 0)
    assert not counters.take([LIMIT, BRIEF], FACTS, 0)
    assert not counters.take([LIMIT], FACTS, 0, [charge(5_000_001)])
    for _ in range(3):
        assert counters.take([LIMIT], FACTS, 0)
    assert not counters.take([LIMIT], FACTS, 0, [charge(1)])
    assert counters.spent(LIMIT, FACTS, 0) == 3
    assert counters.cost(charge(0), FACTS, 0) == 0
    counters.close()


def test_old_charges_are_swept(tmp_path: Path) -> None:
    counters = stored(tmp_path)
    assert counters.take([LIMIT], Facts("gone", "s"), -HOUR_US)
    many = Limit("many", 1_000, HOUR_US)
    for at in range(300):
        assert counters.take([many], FACTS, HOUR_US + at)
    counters.close()
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        assert connection.execute("SELECT COUNT(*) FROM charges WHERE counter LIKE '%gone%'").fetchone() == (0,)
    connection.close()


def test_64_callers_in_threads_with_connections_of_their_own_get_exactly_what_there_is(tmp_path: Path) -> None:
    shared = [stored(tmp_path) for _ in range(4)]
    taken: list[bool] = []

    def one(at: int) -> None:
        taken.append(shared[at % 4].take([LIMIT], FACTS, HOUR_US, [charge(1_000_000)]))

    threads = [threading.Thread(target=one, args=(at,)) for at in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == [False] * 61 + [True] * 3
    for each in shared:
        each.close()


PROCESS = """
import sys
from pathlib import Path
from cra_mcp.policy.model import Facts, Limit
from cra_mcp.state.counters import SCHEMA, StoredCounters
from cra_mcp.state.database import Database
counters = StoredCounters(Database(Path(sys.argv[1]), SCHEMA))
print(sum(counters.take([Limit("l", 25, 3_600_000_000)], Facts("bot", "s"), 10**12) for _ in range(20)))
"""


def test_processes_share_a_limit_exactly(tmp_path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path / "state.sqlite3")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert sum(int(process.communicate(timeout=60)[0]) for process in running) == 25


def test_a_database_that_can_not_be_used_refuses_and_gives_back_what_was_taken(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_bytes(b"x" * 4_096)
    counters = stored(tmp_path)
    with pytest.raises(StateUnavailableError):
        counters.retry_after_us(LIMIT, FACTS, 0)
    with pytest.raises(StateUnavailableError):
        counters.take([LIMIT, BRIEF], FACTS, 0)
    assert counters.spent(BRIEF, FACTS, 0) == 0


def test_what_was_charged_in_memory_is_given_back_if_the_rest_can_not_be_kept(tmp_path: Path) -> None:
    counters = stored(tmp_path)
    assert counters.take([LIMIT], FACTS, 0)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON charges BEGIN SELECT RAISE(ABORT, 'full'); END")
    connection.close()
    with pytest.raises(StateUnavailableError):
        counters.take([LIMIT, BRIEF], FACTS, 0)
    assert (counters.spent(BRIEF, FACTS, 0), counters.spent(LIMIT, FACTS, 0)) == (0, 1)
    counters.close()


ATLAS = manifest(
    actions=[{**action("t.read"), "executor": {"type": "python", "callable": "json:loads"}}, action("t.none")],
    policies=[
        {
            "policy_id": "day",
            "type": "rate_limit",
            "parameters": {"max_calls": 1, "window_seconds": 86_400, "scope": "global"},
        }
    ],
)


def call(folder: Path) -> str | None:
    with CRARuntime(RuntimeConfig(data_dir=folder)) as runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        session = runtime.create_session("bot", "g")
        outcome = runtime.execute_blocking(session.session_id, "t.none", {})
    return outcome.fault.code if outcome.fault is not None else None


def test_a_limit_of_a_day_holds_over_a_restart_of_the_runtime(tmp_path: Path) -> None:
    assert [call(tmp_path), call(tmp_path)] == ["no_executor", "rate_limited"]


def test_a_call_that_can_not_be_counted_is_refused(tmp_path: Path) -> None:
    assert call(tmp_path) == "no_executor"
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        connection.execute("DROP TABLE charges")
        connection.execute("CREATE TABLE charges (anything INTEGER)")
    connection.close()
    assert call(tmp_path) == "state_unavailable"


PRICED = manifest(
    actions=[
        {
            **action("t.buy", parameters_schema={"type": "object", "properties": {"usd": {"type": "number"}}}),
            "executor": {"type": "python", "callable": "builtins:dict"},
        }
    ],
    policies=[
        {
            "policy_id": "purse",
            "type": "budget",
            "parameters": {
                "max_cost": 3,
                "unit": "usd",
                "window_seconds": 3_600,
                "scope": "global",
                "cost": "result.usd",
                "reserve": 1,
            },
        }
    ],
)


def buy(folder: Path, usd: float) -> tuple[str, object]:
    """The status of a purchase, and what the trace says it has cost."""
    with CRARuntime(RuntimeConfig(data_dir=folder)) as runtime:
        runtime.load_atlas_from_json(json.dumps(PRICED))
        session = runtime.create_session("bot", "g")
        outcome = runtime.execute_blocking(session.session_id, "t.buy", {"usd": usd})
        costs = [event.payload.get("costs") for event in runtime.get_trace(session.session_id)]
    return outcome.status, next((each[0]["cost"] for each in costs if each), None)


def test_a_kept_budget_is_settled_and_holds_over_a_restart(tmp_path: Path) -> None:
    assert [buy(tmp_path, 0.5), buy(tmp_path, 2), buy(tmp_path, 0)] == [
        ("success", 0.5),
        ("success", 2),
        ("denied", None),
    ]


def test_a_cost_that_can_not_be_kept_leaves_the_reserve_spent(tmp_path: Path) -> None:
    assert buy(tmp_path, 0) == ("success", 0)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON charges BEGIN SELECT RAISE(ABORT, 'full'); END")
    connection.close()
    assert buy(tmp_path, 0) == ("success", 1.0)
