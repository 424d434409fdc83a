"""Several atlases side by side."""

import pytest

from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import AtlasConflictError, RequestError
from tests.atlas.conftest import action, load, manifest


def atlas(name: str, *action_ids: str) -> object:
    return load(manifest(atlas_id=f"com.example.{name}", actions=[action(each) for each in action_ids]))


def test_actions_are_in_load_order_then_manifest_order() -> None:
    catalogue = Catalogue().with_atlas(atlas("b", "z.z", "a.a")).with_atlas(atlas("a", "m.m"))
    assert [each.action_id for _, each in catalogue.actions()] == ["z.z", "a.a", "m.m"]
    assert [each.atlas_id for each in catalogue.atlases] == ["com.example.b", "com.example.a"]


def test_an_action_is_found_by_id_and_by_published_name() -> None:
    first = atlas("a", "t.read")
    catalogue = Catalogue().with_atlas(first)
    assert catalogue.find("t.read") == (first, first.actions[0])
    assert catalogue.by_published_name("t_read") == (first, first.actions[0])
    assert catalogue.find("t_read") is None
    assert catalogue.by_published_name("t.read") is None
    assert catalogue.get("com.example.a") is first


def test_every_change_is_a_new_catalogue_of_the_next_version() -> None:
    empty = Catalogue()
    one = empty.with_atlas(atlas("a", "t.read"))
    two = one.without("com.example.a")
    assert [empty.version, one.version, two.version] == [0, 1, 2]
    assert empty.find("t.read") is None
    assert one.find("t.read") is not None
    assert two.find("t.read") is None
    assert two.get("com.example.a") is None


@pytest.mark.parametrize(
    ("second", "word"),
    [
        (("a", "x.y"), "loaded already"),
        (("b", "t.read"), "action id t.read"),
        (("b", "t.read_all", "t.x"), "published name t_read_all"),
    ],
)
def test_what_one_atlas_has_another_cannot_claim(second: tuple[str, ...], word: str) -> None:
    catalogue = Catalogue().with_atlas(atlas("a", "t.read", "t.read.all"))
    with pytest.raises(AtlasConflictError, match=word) as caught:
        catalogue.with_atlas(atlas(*second))
    assert caught.value.code == "atlas_conflict"
    assert caught.value.hint


def test_unloading_what_is_not_loaded_is_an_error() -> None:
    with pytest.raises(RequestError) as caught:
        Catalogue().without("com.example.a")
    assert caught.value.code == "unknown_atlas"


def test_a_name_is_free_again_when_its_atlas_is_gone() -> None:
    catalogue = Catalogue().with_atlas(atlas("a", "t.read")).without("com.example.a").with_atlas(atlas("b", "t.read"))
    assert catalogue.find("t.read") is not None
