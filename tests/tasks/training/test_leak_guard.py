"""The guard list: images taken out by content and by name, and the account of it."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from storage.collections.collection import ingest
from storage.collections.known import UnknownCollection
from storage.locations.location import Location
from tasks.query_sets import BenchmarkRef
from tasks.stages.pair_samples import PairSample, PairSource
from tasks.training.leak_guard import (
    Exclusion,
    Ward,
    as_json,
    describe,
    parse_guard,
    stem,
    usable_rows,
    ward_of,
    without_guarded,
)
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.drawn import draw_folder


def test_by_content_and_by_name_by_hand() -> None:
    rows = pl.DataFrame(
        {
            "image_id": ["1", "2", "3", "3", "4"],
            "meta_class": ["x"] * 5,
            "path": ["a/own.png", "b/DEV-7.jpg", "c/other.png", "c/dev-9.png", "t.tar!d/free.png"],
        }
    )
    ward = Ward("cirr val", frozenset({"1", "99"}), frozenset({"dev-7", "dev-9", "own"}))
    kept, account = without_guarded(rows, "pool", [ward])
    assert kept["image_id"].to_list() == ["4"]  # 3 goes with both of its files
    assert account == [Exclusion("cirr val", "pool", 1, 2, True, 3)]
    kept, account = without_guarded(rows, "pool", [ward], by_name=False)
    assert kept["image_id"].to_list() == ["2", "3", "3", "4"]
    assert account == [Exclusion("cirr val", "pool", 1, 0, True, 3)]
    kept, account = without_guarded(rows, "pool", [Ward("unseen", None, frozenset({"free"}))])
    assert kept["image_id"].to_list() == ["1", "2", "3", "3"]
    assert account == [Exclusion("unseen", "pool", 0, 1, False, 1)]
    assert "names only, images not available" in describe(account[0])


def test_an_nlvr2_set_goes_with_its_guarded_image() -> None:
    rows = pl.DataFrame(
        {
            "image_id": ["1", "2", "3", "4", "5"],
            "meta_class": [""] * 5,
            "path": [f"dev/dev-{name}.png" for name in ("7-0-img0", "7-3-img1", "70-0-img0")]
            + ["test1/test1-7-0-img0.png", "free.png"],
        }
    )
    ward = Ward("cirr val", None, frozenset({"dev-7-0-img0", "000000123"}))
    kept, account = without_guarded(rows, "pool", [ward])
    assert kept["image_id"].to_list() == ["3", "4", "5"]
    assert account == [Exclusion("cirr val", "pool", 0, 1, False, 2, by_set=1)]
    assert describe(account[0]).endswith("1 of equal name, 1 more of the same NLVR2 sets")
    for choice in ({"by_set": False}, {"by_name": False}):
        _, without = without_guarded(rows, "pool", [ward], **choice)
        assert without[0].by_set == 0
        assert "by_set" not in as_json(without)[0]  # keys of earlier samples stay


def test_stems() -> None:
    assert [stem(p) for p in ("a/B.c.PNG", "x.tar!d/e.jpg", "x.tar!e.jpg", "dev-1-0-img0")] == [
        "b.c",
        "e",
        "e",
        "dev-1-0-img0",
    ]


def test_guards_as_typed() -> None:
    assert parse_guard("cirr-val") == "cirr-val"
    assert parse_guard("cirr:test1:/data/a:b") == BenchmarkRef(
        name="cirr", split="test1", root="/data/a:b", allow_missing=True
    )
    for wrong in ("cirr:val", "cirr::x", ":val:x"):
        with pytest.raises(ValueError, match="BENCHMARK:SPLIT:FOLDER"):
            parse_guard(wrong)


def test_a_collection_guards_another(tmp_path: Path) -> None:
    pictures = draw_folder(tmp_path / "pool" / "all", 8, seed=3)
    test = tmp_path / "test"
    test.mkdir()
    shutil.copy(pictures[0], test / "renamed.png")  # equal content, another name
    draw_folder(tmp_path / "other", 2, seed=4)[0].rename(test / pictures[1].name)  # equal name
    root = str(tmp_path / "root")
    ingest(Location(root), tmp_path / "pool", "pool")
    ingest(Location(root), test, "test")
    sources = (PairSource(collection="pool"),)
    free = PairSample(sources=sources, count=56)
    guarded = PairSample(sources=sources, count=30, guard=("test",))
    assert guarded.pools(root).exclusions == (Exclusion("test", "pool", 1, 1, True, 2),)
    assert len(guarded.ids(root)) == 6
    assert len(free.ids(root)) == 8
    assert guarded.identity(root) != free.identity(root)
    by_content = PairSample(sources=sources, count=42, guard=("test",), guard_names=False)
    assert len(by_content.ids(root)) == 7
    with pytest.raises(UnknownCollection, match="'tset'"):
        PairSample(sources=sources, count=2, guard=("tset",)).pairs(root)


@pytest.mark.parametrize(("split", "images"), [("val", 2297), ("test1", 2315)])
def test_real_annotations_without_images_guard_by_name(
    shared_data: Path, tmp_path: Path, split: str, images: int
) -> None:
    ref = parse_guard(f"cirr:{split}:{shared_data / 'annotations' / 'cirr'}")
    ward = ward_of(str(tmp_path), ref)
    assert ward.image_ids is None
    assert len(ward.stems) == ward.not_at_hand == images
    assert all(name.startswith(("dev-", "test1-")) for name in ward.stems)


def test_an_ingested_benchmark_guards_by_content_too(tmp_path: Path) -> None:
    write_cirr(tmp_path / "cirr")
    pictures = draw_folder(tmp_path / "cirr" / "dev", 8, seed=5)
    for name, picture in zip(CIRR_NAMES, pictures, strict=True):
        picture.rename(picture.with_name(f"{name}.png"))
    ref = parse_guard(f"cirr:val:{tmp_path / 'cirr'}")
    assert isinstance(ref, BenchmarkRef)
    root = str(tmp_path / "root")
    assert ward_of(root, ref).image_ids is None  # on disk, but not ingested yet
    ingest(Location(root), tmp_path / "cirr" / "dev", ref.collection_name)
    ids = {sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "cirr/dev").iterdir()}
    assert ward_of(root, ref) == Ward("cirr val", frozenset(ids), frozenset(CIRR_NAMES))

    pool = tmp_path / "pool"
    draw_folder(pool, 5, seed=6)
    shutil.copy(tmp_path / "cirr" / "dev" / f"{CIRR_NAMES[2]}.png", pool / "copy.png")
    ingest(Location(root), pool, "pool")
    sample = PairSample(sources=(PairSource(collection="pool"),), count=20, guard=(ref,))
    assert sample.pools(root).exclusions == (Exclusion("cirr val", "pool", 1, 0, True, 8),)
    assert not ids & set(sample.ids(root))
    assert len(usable_rows(root, "pool")) == 6


def test_specs_of_guarded_samples_hold_no_path(tmp_path: Path) -> None:
    write_cirr(tmp_path / "cirr")
    draw_folder(tmp_path / "pool", 3, seed=6)
    root = str(tmp_path / "root")
    ingest(Location(root), tmp_path / "pool", "pool")
    ref = parse_guard(f"cirr:val:{tmp_path / 'cirr'}")
    sample = PairSample(sources=(PairSource(collection="pool"),), count=6, guard=(ref,))
    assert str(tmp_path) not in str(sample.identity(root))
