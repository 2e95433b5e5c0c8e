"""The drawn benchmarks: the right answers are those that the instruction makes of the reference.

The judge is `tests.fakes.world_reader`, which shares no code with the grammar.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from embedded_world import benchmarks, drawing
from embedded_world.benchmarks import Gallery, WorldSize, write_world
from embedded_world.captions import caption, parse_caption, varied_caption
from embedded_world.drawing import CELL, draw, draw_batch
from embedded_world.scenes import THEMES, content, is_held_out, sample_scenes
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import load_benchmark
from tests.fakes.noted_world import NotedWorld, noted_world
from tests.fakes.world_reader import PLACES, Picture, edited, fits, picture_of, showing

SIZE = WorldSize(subsets=20, circo_queries=25, fashion_queries=12, distractors=20)
SPLITS = [("cirr", "val"), ("cirr", "test1"), ("circo", "val"), ("fashioniq", "val")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NotedWorld:
    """A drawn world, and the scene of every picture file."""
    return noted_world(write_world, tmp_path_factory.mktemp("world"), SIZE, seed=11)


def loaded(world: NotedWorld, name: str, split: str) -> tuple[Benchmark, dict[str, Picture]]:
    """A benchmark through its real loader, and the content of each of its pictures."""
    roots, drawn = world
    benchmark = load_benchmark(name, roots[name], split)
    pictures = {n: picture_of(caption(drawn[p])) for n, p in benchmark.image_paths.items()}
    return benchmark, pictures


def test_every_scene_is_held_out_and_no_training_scene_ever_is(
    world: NotedWorld,
) -> None:
    drawn = world[1]
    assert len(drawn) > 400
    assert all(is_held_out(scene) for scene in drawn.values())
    trained = {content(s) for s in sample_scenes(Random(0), 3000, held_out=False)}
    assert trained.isdisjoint(content(scene) for scene in drawn.values())
    # The split itself, by the documented rule: one content hash in twenty.
    some = sample_scenes(Random(1), 400, held_out=True) + sample_scenes(
        Random(2), 400, held_out=False
    )
    for scene in some:
        digest = hashlib.sha256(f"scene {content(scene)}".encode()).digest()
        assert is_held_out(scene) == (int.from_bytes(digest[:8], "big") % 20 == 0)


@pytest.mark.parametrize(("name", "split"), [s for s in SPLITS if s[1] != "test1"])
def test_targets_are_exactly_the_pictures_that_the_instruction_asks_for(
    world: NotedWorld, name: str, split: str
) -> None:
    benchmark, pictures = loaded(world, name, split)
    assert benchmark.missing == ()
    for query in benchmark.queries:
        gallery = {n: pictures[n] for n in benchmark.galleries[query.category]}
        wanted = pictures[query.reference]
        for text in query.captions or (query.text,):
            wanted = merged(pictures[query.reference], wanted, text)
        assert showing(wanted, gallery) == set(query.targets), query
        assert query.reference not in query.targets


def merged(reference: Picture, sofar: Picture, text: str) -> Picture:
    """Apply the changes that a text makes in the reference to the result so far.

    Every text speaks of the reference: its thing is looked for there.
    """
    after = edited(reference, text)
    cells = tuple(
        new if new != old else current
        for old, new, current in zip(reference[1], after[1], sofar[1], strict=True)
    )
    return (after[0] if after[0] != reference[0] else sofar[0]), cells


def test_the_file_of_a_picture_shows_what_it_was_drawn_from(
    world: NotedWorld,
) -> None:
    """Mean colour of solid things by hand-measured boxes, on files as the loaders find them."""
    solid = {
        "red": (215, 35, 35),
        "orange": (245, 140, 25),
        "yellow": (245, 222, 45),
        "green": (40, 160, 70),
        "blue": (40, 80, 215),
        "purple": (125, 50, 165),
        "pink": (245, 140, 190),
        "cyan": (60, 205, 220),
    }
    checked = 0
    for name, split in SPLITS:
        benchmark, pictures = loaded(world, name, split)
        for image_name in list(pictures)[::5]:
            with Image.open(benchmark.image_paths[image_name]) as image:
                pixels = np.asarray(image.convert("RGB"), np.float32)
            assert pixels.shape == (96, 96, 3)
            for cell, looks in enumerate(pictures[image_name][1]):
                if looks is None or looks[1] != "solid":
                    continue
                y, x = (cell // 3) * CELL + CELL // 2, (cell % 3) * CELL + CELL // 2
                middle = pixels[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))
                nearest = min(solid, key=lambda c: np.abs(np.array(solid[c]) - middle).sum())
                assert nearest == looks[2], (image_name, PLACES[cell], looks, middle)
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("split", ["val", "test1"])
def test_cirr_groups_have_six_distinct_members_that_differ_little(
    world: NotedWorld, split: str
) -> None:
    benchmark, pictures = loaded(world, "cirr", split)
    assert len(benchmark.queries) == 2 * SIZE.subsets
    assert len(pictures) == 6 * SIZE.subsets
    assert len(set(pictures.values())) == len(pictures)  # no two show the same
    for query in benchmark.queries:
        group = {query.reference, *query.subset}
        assert len(group) == 6
        if split == "val":
            assert query.targets[0] in query.subset
        else:
            assert query.targets == ()
        shown = [pictures[name] for name in group]
        for one, other in itertools.combinations(shown, 2):
            assert 1 <= differences(one, other) <= 6
    if split == "test1":
        records = json.loads((world[0]["cirr"] / "captions" / "cap.rc2.test1.json").read_text())
        assert not any("target_hard" in r or "target_soft" in r for r in records)


def differences(one: Picture, other: Picture) -> int:
    """Places (cells and background) in which two pictures differ."""
    pairs = zip(one[1], other[1], strict=True)
    return (one[0] != other[0]) + sum(a != b for a, b in pairs)


def test_circo_queries_have_several_targets_and_hidden_splits_none(
    world: NotedWorld,
) -> None:
    benchmark, pictures = loaded(world, "circo", "val")
    assert [query.query_id for query in benchmark.queries] == [
        str(i) for i in range(SIZE.circo_queries)
    ]
    for query in benchmark.queries:
        assert len(query.targets) >= 2
        assert query.aspects
        contents = {pictures[name] for name in query.targets}
        wanted = edited(pictures[query.reference], query.text)
        left_open = any(looks and None in looks[:2] for looks in wanted[1])
        assert left_open == (len(contents) > 1)
    hidden = load_benchmark("circo", world[0]["circo"], "test")
    assert not any(query.targets for query in hidden.queries)
    assert hidden.galleries == benchmark.galleries


def test_both_orders_of_fashioniq_captions_lead_to_the_same_scene(
    world: NotedWorld,
) -> None:
    benchmark, pictures = loaded(world, "fashioniq", "val")
    assert set(benchmark.galleries) == set(THEMES)
    for query in benchmark.queries:
        reference = pictures[query.reference]
        first, second = query.captions
        one = merged(reference, edited(reference, first), second)
        other = merged(reference, edited(reference, second), first)
        assert one == other
        assert fits(one, pictures[query.targets[0]])
        assert 1 <= differences(reference, one) <= 4
        shapes = {
            looks[3]
            for p in benchmark.galleries[query.category]
            for looks in pictures[p][1]
            if looks
        }
        assert shapes <= set(THEMES[query.category])


def test_captions_parse_back_to_the_scene_they_describe() -> None:
    rng = Random(5)
    for scene in sample_scenes(rng, 300, held_out=True):
        assert parse_caption(caption(scene)) == scene
        background, cells = picture_of(caption(scene))
        assert background == scene.background
        for thing, looks in zip(scene.cells, cells, strict=True):
            said = None if thing is None else (thing.size, thing.fill, thing.colour, thing.shape)
            assert looks == said
        assert parse_caption(varied_caption(scene, rng, shuffle=True, synonyms=0.5)) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a photo of a dog",
        "at the top a small red",
        "at the top a small solid red circle",  # the word order of the grammar, cut
        "at the top a small solid red circle, at the top a large solid blue star",
        "at the top a small solid red circle, on a mauve background",
        "on a white background, on a black background",
        "at the top a small solid red circle on a white background",
        "at the top a small solid red circlet, on a white background",
    ],
)
def test_what_is_not_wholly_a_caption_is_not_read_as_one(text: str) -> None:
    scene = parse_caption(text)
    if text == "at the top a small solid red circle":
        assert scene is not None  # a caption may leave the background open
        assert scene.background is None
    else:
        assert scene is None


def test_drawing_depends_on_scene_and_seed_alone() -> None:
    scenes = sample_scenes(Random(3), 12, held_out=True)
    once = [np.asarray(draw(scene, seed)) for seed, scene in enumerate(scenes)]
    drawing._masks.cache_clear()  # as in a new process that draws in another order
    again = {seed: np.asarray(draw(scenes[seed], seed)) for seed in reversed(range(12))}
    assert all(np.array_equal(once[seed], again[seed]) for seed in range(12))
    other = np.asarray(draw(scenes[0], 1))
    assert not np.array_equal(once[0], other)
    assert np.abs(once[0].astype(int) - other.astype(int)).mean() < 25  # pose and noise only
    batch = draw_batch(scenes, np.random.default_rng(7))
    assert np.array_equal(batch, draw_batch(scenes, np.random.default_rng(7)))
    cell = scenes[0].occupied[0]
    thing = replace(scenes[0].thing(cell), size=None)
    with pytest.raises(ValueError, match="not said"):
        draw(scenes[0].put(cell, thing), 0)


def test_the_world_is_the_same_in_another_process_and_another_with_another_seed(
    tmp_path: Path, repository: Path
) -> None:
    size = WorldSize(subsets=2, circo_queries=2, fashion_queries=1, distractors=2)
    write_world(tmp_path / "here", size, seed=4)
    program = (
        "import sys; from pathlib import Path; from embedded_world.benchmarks import *;"
        "size = WorldSize(subsets=2, circo_queries=2, fashion_queries=1, distractors=2);"
        "[WRITERS[n](Path(sys.argv[1]) / n, size, 4) for n in reversed(WRITERS)]"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "there")],
        cwd=repository,
        env=os.environ | {"PYTHONHASHSEED": "77"},
        check=True,
        timeout=120,
    )
    write_world(tmp_path / "elsewhere", size, seed=5)
    here, there = digests(tmp_path / "here"), digests(tmp_path / "there")
    assert here == there
    assert len(here) > 40
    elsewhere = digests(tmp_path / "elsewhere")
    assert not any(
        elsewhere.get(path) == digest
        for path, digest in here.items()
        if path.endswith((".png", ".jpg"))
    )


def digests(root: Path) -> Mapping[str, str]:
    """Hash of every file but the notes, by path."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "world.json"
    }


def test_a_drawn_world_is_kept_and_a_world_of_another_size_is_drawn_again(tmp_path: Path) -> None:
    size = WorldSize(subsets=1, circo_queries=1, fashion_queries=1, distractors=1)
    roots = write_world(tmp_path, size, seed=0)
    before = stamps(tmp_path)
    assert write_world(tmp_path, size, seed=0) == roots
    assert stamps(tmp_path) == before
    write_world(tmp_path, WorldSize(2, 1, 1, 1), seed=0)
    queries = json.loads((roots["cirr"] / "captions" / "cap.rc2.val.json").read_text())
    assert len(queries) == 4


def stamps(root: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file())


def test_a_smaller_world_in_the_same_folder_leaves_no_pictures_of_the_larger_one(
    tmp_path: Path,
) -> None:
    write_world(tmp_path, WorldSize(2, 2, 2, 2), seed=0)
    roots = write_world(tmp_path, WorldSize(1, 1, 1, 1), seed=1)
    benchmark = load_benchmark("cirr", roots["cirr"], "val")
    files = {str(path) for path in (roots["cirr"] / "dev").iterdir()}
    assert files == set(benchmark.image_paths.values())


def test_a_world_whose_drawing_was_interrupted_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = WorldSize(1, 1, 1, 1)
    write_world(tmp_path / "a", size, seed=0)
    intact = digests(tmp_path / "a")

    def interrupted(folder: Path, gallery: Gallery, suffix: str, seed: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(benchmarks, "_write_pictures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path / "a", size, seed=1)  # annotations are written, no pictures
    write_world(tmp_path / "a", size, seed=0)
    assert digests(tmp_path / "a") == intact


def test_a_scene_whose_neighbours_are_all_taken_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With this seed a FashionIQ-like target has fewer neighbours than siblings are asked for."""
    monkeypatch.setattr(benchmarks, "_DRAWS", 500)
    monkeypatch.setattr(benchmarks, "_write_pictures", lambda *_: None)
    benchmarks.write_fashioniq(tmp_path, WorldSize(), seed=61)
    for path in tmp_path.glob("image_splits/*.json"):
        names = json.loads(path.read_text())
        assert len(set(names)) == len(names) >= 2 * WorldSize().fashion_queries
