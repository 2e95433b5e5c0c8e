"""The benchmark of a whole root: both forms give the same, on a root that the checks find whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.million import STEPS, main
from bench.million_root import NAME, Place, pictures

COUNT = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(Path(tmp_path_factory.mktemp("million")), COUNT)
    assert STEPS["make_source"](made) == {}
    assert STEPS["take_in"](made) == {"result": COUNT, "new": COUNT}
    for step in ("make_captions", "make_features", "make_gallery"):
        assert STEPS[step](made)["shards"] == 1
    return made


def test_no_two_pictures_are_alike() -> None:
    assert len({*pictures(0, 300), *pictures(300, 300)}) == 600


def test_the_root_is_whole(place: Place) -> None:
    from storage.checks.root import check_root

    assert not check_root(place.root).faults
    assert STEPS["take_in"](place) == {"result": COUNT, "new": 0}
    assert STEPS["take_in_naive"](place)["result"] == COUNT
    assert place.ids.len() == COUNT


@pytest.mark.parametrize("step", ["plan_complete", "plan_lacking", "scattered", "all_vectors"])
def test_both_forms_give_the_same(place: Place, step: str) -> None:
    own, bare = STEPS[step](place)["result"], STEPS[f"{step}_naive"](place)["result"]
    assert own == pytest.approx(bare) if isinstance(own, float) else own == bare
    assert step != "plan_lacking" or len(own) == 1  # twelve have no features
    assert step != "plan_complete" or not own


@pytest.mark.slow  # torch
def test_both_searches_find_the_same(place: Place) -> None:
    assert STEPS["search"](place)["result"] == STEPS["search_naive"](place)["result"]


def test_further_images_come_under_another_name(place: Place) -> None:
    from storage.collections.collection import Collection

    assert STEPS["take_in_more"](place)["result"] == 1
    assert len(Collection.open(place.root, NAME).image_ids()) == COUNT


@pytest.mark.slow  # whole commands
def test_the_benchmark_runs_in_small(tmp_path: Path) -> None:
    assert len(main(Place(tmp_path, COUNT))) == 14
