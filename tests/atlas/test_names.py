"""Published names."""

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.names import is_reserved, published_name
from tests.atlas.conftest import action, manifest, problems

HOST_SAFE = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,39}")
SEGMENT = st.text("abcz019_-", min_size=1, max_size=30)


def test_dots_and_slashes_become_underscores() -> None:
    assert published_name("ticket.get") == "ticket_get"
    assert published_name("files/read.text") == "files_read_text"


def test_forty_characters_stay_and_forty_one_are_cut() -> None:
    fits, longer = "a." + "b" * 38, "a." + "b" * 39
    assert published_name(fits) == "a_" + "b" * 38
    digest = hashlib.sha256(longer.encode()).hexdigest()
    assert published_name(longer) == "a_" + "b" * 29 + "_" + digest[:8]


@given(st.lists(SEGMENT, min_size=1, max_size=5))
def test_every_action_id_has_a_host_safe_name(segments: list[str]) -> None:
    action_id = "a." + ".".join(segment.lstrip("_-") or "x" for segment in segments)
    assert HOST_SAFE.fullmatch(published_name(action_id))


def test_long_ids_that_begin_alike_have_different_names() -> None:
    assert published_name("a." + "b" * 40 + "c") != published_name("a." + "b" * 40 + "d")


def test_control_tools_keep_their_names() -> None:
    assert is_reserved("cra_start_session")
    assert not is_reserved("crane_move")
    assert problems(manifest(actions=[action("cra.start")])) == [
        ("atlas.json", "/actions/0/action_id", "reserved_name"),
    ]
    assert problems(manifest(actions=[action("crane.move")])) == []


def test_a_collision_is_located_at_the_second_action() -> None:
    actions = [action("a.b_c"), action("x.y"), action("a.b.c")]
    assert problems(manifest(actions=actions)) == [("atlas.json", "/actions/2/action_id", "name_collision")]
