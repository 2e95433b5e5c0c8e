"""Unlabelled collections: the edits between two pictures of a class, and the files on disk."""

import hashlib
from collections import Counter
from itertools import combinations as pairs_of
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from embedded_world import unlabelled_collections
from embedded_world.drawing import draw_batch
from embedded_world.edits import ONE_EDIT, Edit
from embedded_world.scenes import Scene, Thing, content, make_scene
from embedded_world.unlabelled_collections import (
    COLLECTIONS,
    UnlabelledSize,
    combinations,
    draw_classes,
    draw_slot,
    write_unlabelled,
)
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location

CLASS_SIZES = {"ranges": (4, 8), "sets": (12, 12)}
RED = Thing("small", "solid", "red", "circle")
BLUE = Thing("large", "striped", "blue", "star")
SIZE = UnlabelledSize(ranges=60, sets=40)


def kind_between(before: Scene, after: Scene) -> str | None:
    """The one edit that leads from a scene to another, told without the grammar; else None."""
    ground = before.background != after.background
    cells = [i for i in range(9) if before.cells[i] != after.cells[i]]
    if ground or not cells:
        return "background" if ground and not cells else None
    old, new = before.cells[cells[0]], after.cells[cells[0]]
    if len(cells) == 2:
        other = cells[1]
        swapped = (before.cells[other], after.cells[other]) == (new, old)
        return "move" if swapped and None in (old, new) else None
    if len(cells) > 2:
        return None
    if old is None or new is None:
        return "add" if old is None else "remove"
    slots = [s for s in ("size", "fill", "colour", "shape") if getattr(old, s) != getattr(new, s)]
    return slots[0] if len(slots) == 1 else "replace"


def test_every_combination_of_the_slots_is_a_scene_of_the_class() -> None:
    base = make_scene("white", {0: RED, 4: BLUE})
    slots = [
        (None, Edit("remove", 4)),
        (None, Edit("background", background="black"), Edit("background", background="gray")),
    ]
    expected = {
        make_scene(ground, things)
        for ground in ("white", "black", "gray")
        for things in ({0: RED}, {0: RED, 4: BLUE})
    }
    assert set(combinations(base, slots)) == expected
    assert len(combinations(base, slots)) == 6


@pytest.mark.parametrize("kind", ONE_EDIT)
def test_what_a_slot_does_is_one_edit_of_its_kind_and_keeps_off_other_slots(kind: str) -> None:
    base = make_scene("white", {0: RED, 4: BLUE})
    for seed in range(20):
        slot = draw_slot(base, kind, Random(seed), frozenset({4, 8}))
        assert slot is not None
        assert slot[0] is None
        for edit in filter(None, slot[1:]):
            after = edit.apply(base)
            assert (after.cells[4], after.cells[8]) == (BLUE, None)
            told = kind_between(base, after)
            assert told == kind or (kind == "replace" and told in ONE_EDIT)


def test_a_slot_without_room_is_none() -> None:
    base = make_scene("white", {0: RED})
    everywhere = frozenset(range(9))
    assert draw_slot(base, "background", Random(0), frozenset({None})) is None
    assert draw_slot(base, "colour", Random(0), everywhere) is None
    assert draw_slot(base, "add", Random(0), everywhere) is None
    assert draw_slot(base, "move", Random(0), everywhere - {0}) is None


@pytest.mark.parametrize("name", COLLECTIONS)
def test_no_scene_is_held_out_and_classes_repeat_nothing(name: str) -> None:
    classes = draw_classes(name, 1500, seed=3)
    least, most = CLASS_SIZES[name]
    assert 1500 <= sum(map(len, classes)) < 1500 + most
    for scenes in classes:
        assert least <= len(scenes) <= most
        assert len(set(map(content, scenes))) == len(scenes)
        for scene in scenes:
            assert 1 <= len(scene.occupied) <= 3
            digest = hashlib.sha256(f"scene {content(scene)}".encode()).digest()
            assert int.from_bytes(digest[:8], "big") % 20 != 0


def test_pairs_of_a_range_are_mostly_one_edit_apart_of_every_kind_and_sets_differ_more() -> None:
    one_edit = {}
    for name in COLLECTIONS:
        kinds: Counter[str | None] = Counter()
        for scenes in draw_classes(name, 4000, seed=1):
            kinds.update(kind_between(a, b) for a, b in pairs_of(scenes, 2))
        one_edit[name] = 1 - kinds[None] / kinds.total()
        assert all(kinds[kind] > 0.01 * kinds.total() for kind in ONE_EDIT), kinds
    assert one_edit["ranges"] > 0.45
    assert one_edit["sets"] < one_edit["ranges"] - 0.1


def test_every_file_is_the_drawing_of_its_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Scene, np.ndarray]] = []

    def noting(scenes: list[Scene], rng: np.random.Generator) -> np.ndarray:
        pictures = draw_batch(scenes, rng)
        drawn.extend(zip(scenes, pictures, strict=True))
        return pictures

    monkeypatch.setattr(unlabelled_collections, "draw_batch", noting)
    folders = write_unlabelled(tmp_path, SIZE, seed=5)
    paths = [path for name in COLLECTIONS for path in sorted(folders[name].rglob("*.png"))]
    classes = [c for name in COLLECTIONS for c in draw_classes(name, getattr(SIZE, name), seed=5)]
    assert [scene for scene, _ in drawn] == [scene for scenes in classes for scene in scenes]
    for path, (_, picture) in zip(paths, drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), picture)


def test_the_same_seed_draws_the_same_and_another_seed_nothing_of_it(tmp_path: Path) -> None:
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_unlabelled(tmp_path / folder, SIZE, seed)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")
    hashes = [{sha for _, sha in files_below(tmp_path / folder)} for folder in ("a", "c")]
    assert not hashes[0] & hashes[1]


def files_below(folder: Path) -> set[tuple[str, str]]:
    """Relative path and hash of every picture."""
    return {
        (str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest())
        for p in folder.rglob("*.png")
    }


def test_what_is_there_is_left_and_another_size_leaves_nothing_behind(tmp_path: Path) -> None:
    folders = write_unlabelled(tmp_path, SIZE, seed=5)
    picture = min(folders["ranges"].rglob("*.png"))
    written = picture.stat().st_mtime_ns
    write_unlabelled(tmp_path, SIZE, seed=5)
    assert picture.stat().st_mtime_ns == written
    smaller = UnlabelledSize(ranges=20, sets=20)
    write_unlabelled(tmp_path, smaller, seed=5)
    counts = {name: len(list(folder.rglob("*.png"))) for name, folder in folders.items()}
    assert counts == {n: sum(map(len, draw_classes(n, 20, seed=5))) for n in COLLECTIONS}


def test_ingest_takes_class_folders_as_meta_classes(tmp_path: Path) -> None:
    folders = write_unlabelled(tmp_path / "pictures", SIZE, seed=5)
    tables = Location(str(tmp_path / "tables"))
    ingest(tables, folders["ranges"], "ranges")
    members = Collection.open(tables, "ranges").rows()
    classes = draw_classes("ranges", SIZE.ranges, seed=5)
    expected = {f"ranges-{i:05d}": len(scenes) for i, scenes in enumerate(classes)}
    assert Counter(members["meta_class"]) == expected
