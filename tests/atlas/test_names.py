"""Published names."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.names import is_own_uri, is_reserved, prompt_name, published_name, takes_own_uri
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
    assert all(is_reserved(name) for name in ("CRA_start", "cra-start_session", "Cra-x"))
    assert problems(manifest(actions=[action("cra.start")])) == [
        ("atlas.json", "/actions/0/action_id", "reserved_name"),
    ]
    assert problems(manifest(actions=[action("crane.move")])) == []


def test_a_collision_is_located_at_the_second_action() -> None:
    actions = [action("a.b_c"), action("x.y"), action("a.b.c")]
    assert problems(manifest(actions=actions)) == [("atlas.json", "/actions/2/action_id", "name_collision")]


OWN = [
    "cra://sessions", "CRA://sessions", "cra:sessions", "ui://cra/trace", "UI://CRA/trace", "ui://%63ra/trace",
    "ui://%2563%72a/trace", "https://cra", "https://cra./x", "app://cra:80/x", "app://me@cra/x", "app:/cra/x", "app:cra",
    "ui:\\\\cra\\trace", "ui://c\u200bra/trace", "c\tra://x", "ui://\uff43\uff52\uff41/trace", "cra://", " cra://x",
]  # fmt: skip
OTHERS = [
    "app://crane/x", "app://x/cra", "app://x.cra/y", "app://cra.example/x", "crab://x", "app://x?cra", "app://x#cra", "",
    "app://cra@example/x", "http://x/ui://cra/trace", "no uri", "app://%ff%fe/x",
]  # fmt: skip


@pytest.mark.parametrize("uri", OWN)
def test_a_uri_of_the_runtime_is_known_however_it_is_written(uri: str) -> None:
    assert is_own_uri(uri)
    assert takes_own_uri(uri)


@pytest.mark.parametrize("uri", OTHERS)
def test_other_uris_are_anybodys(uri: str) -> None:
    assert not is_own_uri(uri)
    assert not takes_own_uri(uri)


@pytest.mark.parametrize(
    ("template", "taken"),
    [
        ("ui://{host}/trace", True),
        ("ui://{host}", True),
        ("ui://c{x}/trace", True),
        ("ui://{x}a/trace", True),
        ("ui://%63{x}/trace", True),
        ("ui://{x}:80/trace", True),
        ("ui://{x}@cra/trace", True),
        ("ui://cra/{page}", True),
        ("app://{x}@cra/trace", True),
        ("app://cra/{page}", True),
        ("ui://mine/{page}", False),
        ("ui://{x}.example/trace", False),
        ("ui://{x}@mine/trace", False),
        ("app://{host}/trace", False),
        ("note://{id}", False),
        ("app://x/{cra}", False),
    ],
)
def test_a_template_takes_no_uri_of_the_runtime(template: str, taken: bool) -> None:
    assert takes_own_uri(template) == taken


def test_a_context_pack_is_no_prompt_under_a_name_of_the_runtime() -> None:
    pack = {"pack_id": "start", "name": "Start", "content": "text"}
    mine = {**manifest(), "context_packs": [pack]}
    assert problems({**mine, "atlas_id": "com.example.cra"}) == [
        ("atlas.json", "/context_packs/0/pack_id", "reserved_name")
    ]
    assert problems({**mine, "atlas_id": "com.example.crane"}) == []
    assert prompt_name("com.example.a", "b") == "a_b"
    assert prompt_name("com.example.a", "b", shared=True).startswith("a_b_")
