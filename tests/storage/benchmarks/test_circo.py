"""CIRCO's loader: published counts on the real files, the listing's two states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from storage.benchmarks.errors import AnnotationError, MissingImages
from storage.benchmarks.images import locate_images, require_images
from storage.benchmarks.registry import load_annotations
from tests.fakes.benchmark_layouts import circo_records, touch, write_circo, write_json

VAL_ASPECTS = {
    "cardinality": 37,
    "addition": 80,
    "negation": 21,
    "direct_addressing": 119,
    "compare_change": 86,
    "comparative_statement": 50,
    "statement_with_conjunction": 164,
    "spatial_relations_background": 100,
    "viewpoint": 54,
}


def test_published_counts_of_validation(shared_data: Path) -> None:
    loaded = load_annotations("circo", shared_data / "annotations" / "circo", "val")
    counts = [len(query.targets) for query in loaded.queries]
    assert len(loaded.queries) == 220
    assert len({query.reference for query in loaded.queries}) == 220
    assert (min(counts), max(counts), round(sum(counts) / 220, 2)) == (1, 14, 4.16)
    assert Counter(name for query in loaded.queries for name in query.aspects) == VAL_ASPECTS
    assert loaded.queries[0].targets[0] == "355099"
    assert loaded.protocol["exclude_reference"] is False


def test_published_counts_of_test(shared_data: Path) -> None:
    loaded = load_annotations("circo", shared_data / "annotations" / "circo", "test")
    assert len(loaded.queries) == 800
    assert len({query.reference for query in loaded.queries}) == 798
    assert not loaded.has_targets


@pytest.mark.parametrize("inside", [".", "annotations"])
def test_annotations_folder_itself_is_accepted(tmp_path: Path, inside: str) -> None:
    root = write_circo(tmp_path, ids=range(1, 10))
    assert len(load_annotations("circo", root / inside, "val").galleries[""]) == 9


def test_gallery_follows_the_listing_and_images_are_found(tmp_path: Path) -> None:
    ids = [9, 1, 2, 3, 5]
    root = write_circo(tmp_path, ids=ids)
    folder = root / "COCO2017_unlabeled" / "unlabeled2017"
    touch([folder / f"{image:012d}.jpg" for image in ids])
    loaded = require_images(locate_images(load_annotations("circo", root, "val")))
    assert loaded.galleries[""] == ("9", "1", "2", "3", "5")
    assert Path(loaded.image_paths["9"]) == folder / "000000000009.jpg"


def test_without_listing_encoding_is_refused_and_says_what_is_missing(tmp_path: Path) -> None:
    loaded = load_annotations("circo", write_circo(tmp_path), "val")
    with pytest.raises(MissingImages, match=r"image_info_unlabeled2017\.json was not found"):
        require_images(locate_images(loaded), allow_missing=True)


def test_shared_concept_is_an_option_and_off(tmp_path: Path) -> None:
    root = write_circo(tmp_path)
    plain = load_annotations("circo", root, "val")
    told = load_annotations("circo", root, "val", use_shared_concept=True)
    assert plain.queries[0].text == "has thing 0"
    assert told.queries[0].text == "a dog that has thing 0"
    assert told.protocol["use_shared_concept"] is True


def test_annotated_target_comes_first(tmp_path: Path) -> None:
    records = circo_records()
    records[0] |= {"gt_img_ids": [5, 3], "target_img_id": 3}
    root = write_circo(tmp_path)
    write_json(root / "annotations" / "val.json", records)
    assert load_annotations("circo", root, "val").queries[0].targets == ("3", "5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gt_img_ids": [5]}, "hold the target 3"),
        ({"gt_img_ids": [3, 3]}, "occurs twice"),
        ({"gt_img_ids": [3, None]}, "must be ids"),
        ({"reference_img_id": 3}, "among its own targets"),
        ({"reference_img_id": True}, "expected int"),
        ({"id": 7}, r"ids must be 0\.\.1"),
    ],
)
def test_broken_records_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    first, second = circo_records()
    write_json(tmp_path / "annotations" / "val.json", [{**first, **change}, second])
    with pytest.raises(AnnotationError, match=said):
        load_annotations("circo", tmp_path, "val")


def test_listing_with_a_path_or_a_repeated_id_is_refused(tmp_path: Path) -> None:
    root = write_circo(tmp_path, ids=[1, 1])
    with pytest.raises(AnnotationError, match="id 1 occurs twice"):
        load_annotations("circo", root, "val")
    path = root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    write_json(path, {"images": [{"id": 1, "file_name": "../../../x.jpg"}]})
    with pytest.raises(AnnotationError, match="bare file name"):
        load_annotations("circo", root, "val")
