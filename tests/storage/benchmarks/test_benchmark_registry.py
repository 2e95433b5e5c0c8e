"""Choosing a benchmark: unknown names, splits, options and folders; image coverage."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.benchmarks.errors import BenchmarkError, MissingImages
from storage.benchmarks.images import image_coverage
from storage.benchmarks.indexing import index_category
from storage.benchmarks.registry import (
    BENCHMARKS,
    load_annotations,
    load_benchmark,
    protocol_options,
)
from tests.fakes.benchmark_layouts import CIRR_NAMES, touch, write_cirr


def _cirr_with_images(root: Path, names: tuple[str, ...]) -> Path:
    touch([root / "dev" / f"{name}.png" for name in names])
    return write_cirr(root)


def test_unknown_choices_list_the_known_ones(tmp_path: Path) -> None:
    root = write_cirr(tmp_path)
    with pytest.raises(BenchmarkError, match=r"No benchmark 'coco'\. Known: 'circo', 'cirr'"):
        load_annotations("coco", root, "val")
    with pytest.raises(
        BenchmarkError, match=r"split='test' is not known\. Allowed: 'train', 'val'"
    ):
        load_annotations("cirr", root, "test")
    with pytest.raises(BenchmarkError, match=r"no protocol option 'join'\. Known: 'exclude_ref"):
        load_annotations("cirr", root, "val", join="c1c2")
    with pytest.raises(BenchmarkError, match="exclude_reference=1 is not known"):
        load_annotations("cirr", root, "val", exclude_reference=1)
    with pytest.raises(BenchmarkError, match="no such folder"):
        load_annotations("cirr", root / "nowhere", "val")
    with pytest.raises(BenchmarkError, match=r"cap\.rc2\.test1\.json was not found \(looked at"):
        load_annotations("cirr", root, "test1")


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_states_its_reference_rule(name: str) -> None:
    assert "exclude_reference" in protocol_options(name)


def test_complete_images_are_accepted_and_recorded(tmp_path: Path) -> None:
    loaded = load_benchmark("cirr", _cirr_with_images(tmp_path, CIRR_NAMES), "val")
    assert image_coverage(loaded).found == 8
    assert loaded.protocol["image_coverage"] == {"needed": 8, "found": 8, "first_missing": ()}


def test_gaps_are_refused_with_coverage_names_and_remedy(tmp_path: Path) -> None:
    root = _cirr_with_images(tmp_path, CIRR_NAMES[:6])
    with pytest.raises(MissingImages, match="6 of 8 images found, 2 missing, first 'dev-6") as told:
        load_benchmark("cirr", root, "val")
    assert "allow_missing_images=true" in str(told.value)
    assert str(root / "dev" / "dev-6-0-img0.png") in str(told.value)


def test_allowed_gaps_keep_every_query(tmp_path: Path) -> None:
    # Image 3 is the target of query 0, image 7 the reference of query 1.
    root = _cirr_with_images(tmp_path, CIRR_NAMES[:3] + CIRR_NAMES[4:7])
    loaded = load_benchmark("cirr", root, "val", allow_missing=True)
    present = [name for name in loaded.galleries[""] if name in loaded.image_paths]
    view = index_category(loaded, "", present)
    assert view.gallery == CIRR_NAMES[:3] + CIRR_NAMES[4:7]
    assert view.targets.tolist() == [[-1], [2]]
    assert view.references.tolist() == [0, -1]
    assert view.target_counts.tolist() == [1, 1]
    assert view.subsets.tolist() == [[1, 2, -1, 3, 4], [2, -1, 3, 4, 5]]


def test_nothing_found_is_refused_even_when_gaps_are_allowed(tmp_path: Path) -> None:
    with pytest.raises(MissingImages, match="0 of 8 images found"):
        load_benchmark("cirr", write_cirr(tmp_path), "val", allow_missing=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not valid JSON"),
        (b'[{"pairid": NaN}]', "NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"1" * 5000, "not valid JSON"),
        (rb'[{"caption": "a \ud800 b"}]', r"not valid JSON .*'\\ud800'.*surrogates not allowed"),
        (rb'[{"caption": "\ud83d\ude00", "b": 1}]', "field"),  # a whole pair is read
    ],
)
def test_hostile_json_is_refused_with_its_path(tmp_path: Path, content: bytes, said: str) -> None:
    root = write_cirr(tmp_path)
    (root / "captions" / "cap.rc2.val.json").write_bytes(content)
    with pytest.raises(BenchmarkError, match=said) as told:
        load_annotations("cirr", root, "val")
    assert "cap.rc2.val.json" in str(told.value)
