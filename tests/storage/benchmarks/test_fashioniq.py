"""FashionIQ's loader: published counts, caption joining, galleries, which files exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.fashioniq import join_captions
from storage.benchmarks.images import locate_images, needed_images
from storage.benchmarks.registry import load_annotations
from tests.fakes.benchmark_layouts import fashioniq_query, touch, write_fashioniq, write_json

# category, queries, gallery, unique references, targets and references only
VAL_COUNTS = [("dress", 2017, 3817, 1331, 2628), ("shirt", 2038, 6346, 1541, 3089)]


def _small(root: Path) -> Path:
    """Two categories that share image B3; shirt's first caption is empty."""
    galleries = {"shirt": ("B1", "B2", "B3", "B9"), "toptee": ("B3", "B4", "B5")}
    queries = {
        "shirt": [fashioniq_query("B1", "B2", "", "is red.")],
        "toptee": [fashioniq_query("B4", "B3", " is long,", "has dots? ")],
    }
    return write_fashioniq(root, galleries, queries)


@pytest.mark.parametrize(("category", "queries", "images", "references", "union"), VAL_COUNTS)
def test_published_counts_of_validation(
    shared_data: Path, category: str, queries: int, images: int, references: int, union: int
) -> None:
    root = shared_data / "annotations" / "fashioniq"
    asked = load_annotations("fashioniq", root, "val").queries_of(category)
    assert len(asked) == queries
    assert len({query.reference for query in asked}) == references
    for gallery, size in (("split", images), ("union", union)):
        loaded = load_annotations("fashioniq", root, "val", gallery=gallery)
        assert len(loaded.galleries[category]) == size
        assert loaded.protocol["gallery"] == gallery


def test_published_counts_of_training(shared_data: Path) -> None:
    loaded = load_annotations("fashioniq", shared_data / "annotations", "train")
    assert {key: len(names) for key, names in loaded.galleries.items()} == {"dress": 11452}
    assert len(loaded.queries) == 5985


def test_absent_category_is_said_in_the_protocol(shared_data: Path) -> None:
    protocol = load_annotations("fashioniq", shared_data / "annotations", "val").protocol
    assert protocol["absent_categories"] == ("toptee",)
    assert protocol["average_over"] == "2 of 3 categories: dress, shirt"
    assert protocol["empty_captions"] == 1


@pytest.mark.parametrize(
    ("captions", "join", "texts"),
    [
        (("is red.", " is long, "), "c1c2", ("is red and is long",)),
        (("is red.", " is long, "), "c2c1", ("is long and is red",)),
        (("is red", "is long"), "both", ("is red and is long", "is long and is red")),
        (("", "is long"), "both", ("is long",)),
        (("is red", " ?. "), "c2c1", ("is red",)),
        (("", ""), "both", ("",)),
        (("no. 5, please?", "a"), "c1c2", ("no. 5, please and a",)),
    ],
)
def test_captions_are_stripped_and_joined(
    captions: tuple[str, str], join: str, texts: tuple[str, ...]
) -> None:
    assert join_captions(captions, join) == texts


@pytest.mark.parametrize(
    ("captions", "join", "texts"),
    [
        (("is red.", ""), "c1c2", ("is red and ",)),
        (("", "is long"), "both", (" and is long", "is long and ")),
        (("is red", " ?. "), "c2c1", (" and is red",)),
        (("is red", "is long"), "c2c1", ("is long and is red",)),
    ],
)
def test_an_empty_side_can_be_kept_as_published_programs_do(
    captions: tuple[str, str], join: str, texts: tuple[str, ...]
) -> None:
    assert join_captions(captions, join, "keep") == texts


def test_the_rule_for_empty_sides_is_in_the_protocol(tmp_path: Path) -> None:
    for rule in ("drop", "keep"):
        loaded = load_annotations("fashioniq", _small(tmp_path / rule), "val", empty_side=rule)
        assert (loaded.protocol["empty_side"], loaded.protocol["empty_captions"]) == (rule, 1)
    assert loaded.queries[0].text.startswith(" and ")  # the last one loaded keeps them
    with pytest.raises(AnnotationError, match="'drop', 'keep'"):
        load_annotations("fashioniq", _small(tmp_path / "x"), "val", empty_side="both")


def test_real_query_with_an_empty_caption_has_one_reading(shared_data: Path) -> None:
    loaded = load_annotations("fashioniq", shared_data / "annotations", "val", join="both")
    single = [query for query in loaded.queries if len(query.texts) == 1]
    assert [(query.reference, query.texts) for query in single] == [
        ("B005PQ02G6", ("is grey with a design on the back",))
    ]


def test_query_carries_both_readings(tmp_path: Path) -> None:
    query = load_annotations("fashioniq", _small(tmp_path), "val", join="both").queries[1]
    assert query.query_id == "toptee/0"
    assert (query.category, query.captions) == ("toptee", ("is long", "has dots"))
    assert query.texts == ("is long and has dots", "has dots and is long")


def test_union_gallery_keeps_the_split_order(tmp_path: Path) -> None:
    loaded = load_annotations("fashioniq", _small(tmp_path), "val", gallery="union")
    assert loaded.galleries == {"shirt": ("B1", "B2"), "toptee": ("B3", "B4")}


def test_image_shared_by_categories_is_needed_once_and_any_extension_is_found(
    tmp_path: Path,
) -> None:
    root = _small(tmp_path)
    touch([root / "images" / name for name in ("B1.jpg", "B2.png", "B3.jpg", "B3.png", "B4.jpeg")])
    located = locate_images(load_annotations("fashioniq", root, "val"))
    assert needed_images(located) == ("B1", "B2", "B3", "B9", "B4", "B5")
    assert {name: Path(path).name for name, path in located.image_paths.items()} == {
        "B1": "B1.jpg",
        "B2": "B2.png",
        "B3": "B3.jpg",
        "B4": "B4.jpeg",
    }
    assert located.missing == ("B9", "B5")


def test_categories_can_be_chosen_and_absent_ones_are_named(tmp_path: Path) -> None:
    root = _small(tmp_path)
    assert load_annotations("fashioniq", root, "val", categories=["toptee"]).categories == (
        "toptee",
    )
    with pytest.raises(AnnotationError, match=r"cap\.dress\.val\.json or .* is absent"):
        load_annotations("fashioniq", root, "val", categories=["dress"])
    with pytest.raises(AnnotationError, match=r"'hat' is not known\. Allowed: 'dress'"):
        load_annotations("fashioniq", root, "val", categories=["hat"])


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (fashioniq_query("B1", "B5", "a", "b"), "'B5' is not an image of the shirt split"),
        (fashioniq_query("B1", "B2", "a"), "exactly two captions"),
        ({"candidate": "B1", "target": "B2", "captions": ["a", 3]}, "exactly two captions"),
        ({"candidate": "B1", "target": "B2"}, "'captions' is absent"),
        ({"candidate": 1, "target": "B2", "captions": ["a", "b"]}, "'candidate' is 1"),
    ],
)
def test_broken_records_are_refused(tmp_path: Path, record: Any, said: str) -> None:
    write_fashioniq(tmp_path, {"shirt": ("B1", "B2")}, {"shirt": [record]})
    with pytest.raises(AnnotationError, match=said):
        load_annotations("fashioniq", tmp_path, "val")


@pytest.mark.parametrize("names", [("B1", "../x"), ("B1", "B1"), ("B1", 4), "B1"])
def test_broken_splits_are_refused(tmp_path: Path, names: Any) -> None:
    record = fashioniq_query("B1", "B1", "a", "b")
    root = write_fashioniq(tmp_path, {"shirt": ("B1",)}, {"shirt": [record]})
    write_json(root / "image_splits" / "split.shirt.val.json", names)
    with pytest.raises(AnnotationError, match=r"split\.shirt\.val\.json"):
        load_annotations("fashioniq", root, "val")
