"""The harder drawn benchmarks: two changes a query, and everything near its target.

The judge is `tests.fakes.world_reader`, which shares no code with the grammar.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from embedded_world import benchmarks
from embedded_world.benchmarks import WorldSize
from embedded_world.captions import caption
from embedded_world.edits import ONE_EDIT, random_edit
from embedded_world.harder import (
    inverse,
    lookalikes,
    write_harder_world,
    write_pointing_world,
)
from embedded_world.instruction_reader import apply_instruction, read_instruction
from embedded_world.scenes import is_held_out, sample_scenes
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import load_benchmark
from tests.fakes.noted_world import NotedWorld, noted_world
from tests.fakes.world_reader import Picture, edited, picture_of

SIZE = WorldSize(6, 5, 3, distractors=20, siblings=6, fashion_siblings=5)
NAMES = ("cirr", "circo", "fashioniq")
POINTS = {"above", "below", "both", "two", "of"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NotedWorld:
    """A harder world, and the scene of every picture file."""
    return noted_world(write_harder_world, tmp_path_factory.mktemp("harder"), SIZE, seed=7)


def loaded(world: NotedWorld, name: str) -> tuple[Benchmark, dict[str, Picture]]:
    """A benchmark through its real loader, and the content of each of its pictures."""
    benchmark = load_benchmark(name, world[0][name], "val")
    return benchmark, {
        n: picture_of(caption(world[1][str(p)])) for n, p in benchmark.image_paths.items()
    }


def changed(reference: Picture, other: Picture) -> set[int]:
    """Places in which two pictures differ; -1 for the background."""
    cells = enumerate(zip(reference[1], other[1], strict=True))
    return {place for place, (old, new) in cells if old != new} | (
        {-1} if reference[0] != other[0] else set()
    )


def merged(reference: Picture, first: Picture, second: Picture) -> Picture:
    """Both changes of the reference in one picture."""
    cells = tuple(
        one if one != old else other
        for old, one, other in zip(reference[1], first[1], second[1], strict=True)
    )
    return (first[0] if first[0] != reference[0] else second[0]), cells


@pytest.mark.parametrize("name", NAMES)
def test_each_query_asks_for_two_changes_and_the_gallery_has_each_half(
    world: NotedWorld, name: str
) -> None:
    benchmark, pictures = loaded(world, name)
    assert benchmark.missing == ()
    for query in benchmark.queries:
        gallery = benchmark.galleries[query.category]
        first, second = query.text.split(" and ")
        reference = pictures[query.reference]
        halves = [edited(reference, text) for text in (first, second)]
        assert all(changed(reference, half) for half in halves)
        assert not changed(reference, halves[0]) & changed(reference, halves[1])
        shown = {pictures[n] for n in gallery}
        assert set(halves) <= shown, query
        wanted = merged(reference, *halves)
        assert {n for n in gallery if pictures[n] == wanted} == set(query.targets)
        assert wanted not in (reference, *halves)


@pytest.mark.parametrize("name", NAMES)
def test_no_scene_is_of_training_and_lookalikes_are_in_the_gallery(
    world: NotedWorld, name: str
) -> None:
    benchmark, _ = loaded(world, name)
    scenes = {n: world[1][str(path)] for n, path in benchmark.image_paths.items()}
    assert all(map(is_held_out, scenes.values()))
    shown = set(scenes.values())
    if name != "circo":  # its targets are several drawings of one scene
        assert len(shown) == len(scenes)
    near = [
        sum(each in shown for each in lookalikes(scenes[query.targets[0]]))
        for query in benchmark.queries
    ]
    assert sum(near) >= len(near)


def test_a_cirr_group_is_asked_from_both_ends(world: NotedWorld) -> None:
    benchmark, pictures = loaded(world, "cirr")
    assert len(benchmark.queries) == 2 * SIZE.subsets
    assert len(pictures) == 6 * SIZE.subsets
    for there, back in zip(benchmark.queries[::2], benchmark.queries[1::2], strict=True):
        assert (there.reference, *there.targets) == (*back.targets, back.reference)
        assert {there.reference, *there.subset} == {back.reference, *back.subset}
        assert len(there.subset) == 5


@pytest.mark.parametrize("kind", ONE_EDIT)
def test_an_edit_can_be_taken_back(kind: str) -> None:
    rng = Random(kind)
    for before in sample_scenes(rng, 20, held_out=False, least=2, most=2):
        edit = random_edit(before, rng, [kind])
        assert inverse(edit, before).apply(edit.apply(before)) == before


def test_lookalikes_share_all_but_one_attribute() -> None:
    scene = sample_scenes(Random(1), 1, held_out=True, least=2)[0]
    near = lookalikes(scene)
    attributes = 8 - 1, 6 - 1, 2 - 1, 3 - 1  # colours, shapes, sizes, fills
    assert len(near) == len(set(near)) == len(scene.occupied) * sum(attributes)
    for other in near:
        [cell] = [c for c in range(9) if other.cells[c] != scene.cells[c]]
        pairs = zip(vars(other.thing(cell)).values(), vars(scene.thing(cell)).values(), strict=True)
        assert sum(new != old for new, old in pairs) == 1


def test_a_world_that_is_there_is_left_alone_and_is_not_the_usual_one(tmp_path: Path) -> None:
    size = WorldSize(1, 1, 1, distractors=1, siblings=1, fashion_siblings=1)
    root = write_harder_world(tmp_path, size, seed=0)["cirr"]
    stamp = (root / "world.json").stat().st_mtime_ns
    write_harder_world(tmp_path, size, seed=0)
    assert (root / "world.json").stat().st_mtime_ns == stamp
    assert json.loads((root / "world.json").read_text())["world"] == "harder"
    assert [*benchmarks.write_world(tmp_path, size, 0, ["cirr"])] == ["cirr"]
    assert "world" in json.loads((tmp_path / "circo" / "world.json").read_text())
    assert "world" not in json.loads((root / "world.json").read_text())


@pytest.fixture(scope="module")
def pointing(tmp_path_factory: pytest.TempPathFactory) -> NotedWorld:
    """A harder world whose texts point, and the scene of every picture file."""
    return noted_world(write_pointing_world, tmp_path_factory.mktemp("pointing"), SIZE, seed=7)


@pytest.mark.parametrize("name", NAMES)
def test_texts_that_point_mean_the_targets_and_the_gallery_has_each_half(
    pointing: NotedWorld, name: str
) -> None:
    benchmark, _ = loaded(pointing, name)
    shown = {n: pointing[1][str(path)] for n, path in benchmark.image_paths.items()}
    assert all(POINTS & set(query.text.split()) for query in benchmark.queries)
    clauses = {len(query.text.split(" and ")) for query in benchmark.queries}
    assert clauses == ({2} if name == "fashioniq" else {1, 2})
    for query in benchmark.queries:
        reference, gallery = shown[query.reference], benchmark.galleries[query.category]
        texts = query.text.split(" and ")
        wanted = apply_instruction(query.text, reference)
        assert {n for n in gallery if shown[n] == wanted} == set(query.targets)
        if len(texts) == 2:
            halves = {apply_instruction(text, reference) for text in texts}
        else:
            both = read_instruction(query.text, reference) or ()
            halves = {change.apply(reference) for change in both}
        assert len(halves) == 2
        assert halves <= {shown[n] for n in gallery} - {reference, wanted}


def test_the_plain_worlds_are_those_of_before(world: NotedWorld) -> None:
    """Texts that point take no numbers from their stream: published worlds stay as they were."""
    assert [query.text for query in loaded(world, "cirr")[0].queries[:2]] == [
        "shift the cyan triangle to the bottom left and change the yellow triangle in the center "
        "to purple",
        "at the bottom left shift the cyan triangle to the bottom right and change the purple "
        "triangle in the center to yellow",
    ]
