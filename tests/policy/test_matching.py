"""Finding the actions of globs for all at once."""

import time

from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.policy.conditions import compile_globs
from cra_mcp.policy.matching import ActionIndex

IDS = st.text("ab.\n", max_size=6)
GLOBS = st.text("ab.*\n", max_size=6)


@given(st.lists(IDS, unique=True, max_size=12), st.lists(GLOBS, min_size=1, max_size=3))
def test_the_index_finds_what_asking_every_glob_about_every_action_finds(ids: list[str], globs: list[str]) -> None:
    found = list(ActionIndex(ids).matching(globs))
    matches = compile_globs(globs)
    assert sorted(found) == [at for at, action_id in enumerate(ids) if matches(action_id)]


def test_a_glob_whose_only_mark_is_in_the_middle_is_found_quickly_among_many_actions() -> None:
    index = ActionIndex([f"payment{copy}x{number:03}.read" for copy in range(50) for number in range(200)])
    started = time.process_time()
    found = [len(list(index.matching([f"payment*x{number:03}.*"]))) for number in range(200)]
    assert found == [50] * 200
    assert time.process_time() - started < 0.5  # asking each about each takes several times as long
