"""CIRR's loader: published counts on the real files, both image layouts, broken records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.images import locate_images
from storage.benchmarks.registry import load_annotations
from tests.fakes.benchmark_layouts import CIRR_NAMES, cirr_records, touch, write_cirr, write_json


@pytest.mark.parametrize(
    ("split", "queries", "images", "references"),
    [("val", 4181, 2297, 2165), ("test1", 4148, 2315, 2178)],
)
def test_published_counts(
    shared_data: Path, split: str, queries: int, images: int, references: int
) -> None:
    loaded = load_annotations("cirr", shared_data / "annotations" / "cirr", split)
    groups = {frozenset((each.reference, *each.subset)) for each in loaded.queries}
    assert len(loaded.queries) == queries
    assert len(loaded.galleries[""]) == images
    assert len({each.reference for each in loaded.queries}) == references
    assert len(groups) == 503
    assert all(len(each.subset) == 5 for each in loaded.queries)
    assert {name for group in groups for name in group} == set(loaded.galleries[""])
    assert loaded.has_targets is (split == "val")
    assert loaded.protocol["exclude_reference"] is True


def test_validation_pair_ids_and_targets(shared_data: Path) -> None:
    loaded = load_annotations("cirr", shared_data / "annotations", "val")
    pair_ids = [int(each.query_id) for each in loaded.queries]
    assert (min(pair_ids), max(pair_ids), pair_ids[0]) == (12060, 38762, 12060)
    first = loaded.queries[0]
    assert (first.reference, first.targets) == ("dev-244-0-img0", ("dev-1028-1-img1",))
    assert first.text == "show three bottles of soft drink"
    assert all(each.targets[0] in each.subset for each in loaded.queries)


def test_small_split_is_read_field_by_field(tmp_path: Path) -> None:
    query = load_annotations("cirr", write_cirr(tmp_path), "val").queries[1]
    assert query.query_id == "101"
    assert query.reference == CIRR_NAMES[7]
    assert query.targets == (CIRR_NAMES[2],)
    assert query.subset == CIRR_NAMES[2:7]
    assert query.texts == ("caption 1",)


@pytest.mark.parametrize("above", ["", "img_raw"])
def test_images_are_found_in_both_layouts(tmp_path: Path, above: str) -> None:
    root = write_cirr(tmp_path)
    files = [root / above / "dev" / f"{name}.png" for name in CIRR_NAMES]
    touch(files)
    located = locate_images(load_annotations("cirr", root, "val"))
    assert located.missing == ()
    assert {name: Path(path) for name, path in located.image_paths.items()} == dict(
        zip(CIRR_NAMES, files, strict=True)
    )


@pytest.mark.parametrize("given", ["", "CIRR", "CIRR/cirr"])
def test_layout_of_the_published_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """`cirr/captions` beside `dev`, from each folder that a person may name, also as `.`."""
    write_cirr(tmp_path / "CIRR" / "cirr")
    files = [tmp_path / "CIRR" / "dev" / f"{name}.png" for name in CIRR_NAMES]
    touch(files)
    monkeypatch.chdir(tmp_path / given)
    for root in (tmp_path / given, Path()):
        located = locate_images(load_annotations("cirr", root, "val"))
        found = [Path(located.image_paths[name]).resolve() for name in CIRR_NAMES]
        assert found == files


def test_real_annotations_in_the_layout_of_the_published_programs(
    shared_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "CIRR").mkdir()
    (tmp_path / "CIRR" / "cirr").symlink_to(shared_data / "annotations" / "cirr")
    for split, count in (("val", 2297), ("test1", 2315)):
        loaded = load_annotations("cirr", tmp_path / "CIRR", split)
        folder = tmp_path / "CIRR" / ("dev" if split == "val" else split)
        touch([folder / f"{name}.png" for name in loaded.galleries[""]])
        located = locate_images(loaded)
        assert (len(located.image_paths), located.missing) == (count, ())


def _without(field: str) -> Any:
    records = cirr_records()
    del records[0][field]
    return records


def _with(**changed: Any) -> Any:
    first, *others = cirr_records()
    return [{**first, **changed}, *others]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (_without("caption"), "'caption' is absent"),
        (_with(pairid="100"), "'pairid' is '100', expected int"),
        (_with(pairid=101), "'101' occurs twice"),
        (_with(reference=CIRR_NAMES[7]), "not a member of its group"),
        (_with(img_set={"members": ["stranger", *CIRR_NAMES[:5]]}), "not an image of this split"),
        (_with(img_set={"members": [CIRR_NAMES[0]] * 6}), "occurs twice"),
        ([], "non-empty list"),
        ({"a": 1}, "non-empty list"),
        ([17], "is absent"),
    ],
)
def test_broken_captions_are_refused_by_place(tmp_path: Path, records: Any, said: str) -> None:
    root = write_cirr(tmp_path)
    write_json(root / "captions" / "cap.rc2.val.json", records)
    with pytest.raises(AnnotationError, match=said):
        load_annotations("cirr", root, "val")


@pytest.mark.parametrize("file", ["/etc/passwd", "../../secret.png", 7])
def test_image_paths_stay_below_the_root(tmp_path: Path, file: object) -> None:
    root = write_cirr(tmp_path)
    path = root / "image_splits" / "split.rc2.val.json"
    write_json(path, {**json.loads(path.read_text()), CIRR_NAMES[0]: file})
    with pytest.raises(AnnotationError, match="expected"):
        load_annotations("cirr", root, "val")
