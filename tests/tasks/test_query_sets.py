"""One benchmark in two places below one root: both are joined, by the paths of each."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from storage.collections.collection import ingest
from storage.collections.names import NameTaken
from storage.locations.location import Location
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.drawn import draw_folder


def world(folder: Path, seed: int) -> BenchmarkRef:
    """A CIRR-like benchmark with its images."""
    write_cirr(folder)
    for name, picture in zip(CIRR_NAMES, draw_folder(folder / "dev", 8, seed=seed), strict=True):
        picture.rename(picture.with_name(f"{name}.png"))
    return BenchmarkRef(name="cirr", root=str(folder), split="val", collection="cirr-val-seed-0")


def bring_in(root: str, ref: BenchmarkRef) -> None:
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)


def test_the_same_world_in_two_places(tmp_path: Path) -> None:
    """As two runs with one root and two out folders do, one overtaking the other."""
    root = str(tmp_path / "tables")
    first = world(tmp_path / "a", seed=5)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = first.model_copy(update={"root": str(tmp_path / "b")})
    ids = {
        name: sha256((tmp_path / "a" / "dev" / f"{name}.png").read_bytes()).hexdigest()
        for name in CIRR_NAMES
    }
    bring_in(root, first)
    bring_in(root, second)  # before the first has read its images
    assert load_query_set(root, first).image_ids == ids
    assert load_query_set(root, second).image_ids == ids


def test_another_world_does_not_take_the_name(tmp_path: Path) -> None:
    root = str(tmp_path / "tables")
    first, other = world(tmp_path / "a", seed=5), world(tmp_path / "b", seed=6)
    bring_in(root, first)
    with pytest.raises(NameTaken, match="another root"):
        bring_in(root, other)
    assert len(load_query_set(root, first).image_ids) == len(CIRR_NAMES)
    with pytest.raises(ValueError, match="is not in the collection"):
        load_query_set(root, other)
