"""Submission files: exact contents, and refusals before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from storage.benchmarks import circo as circo_file
from storage.benchmarks import cirr as cirr_file
from storage.benchmarks.errors import SubmissionError
from storage.benchmarks.indexing import index_category
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import BENCHMARKS, load_annotations
from storage.benchmarks.submissions import SubmissionFile, write_submission
from tests.fakes.benchmark_layouts import (
    CIRR_NAMES,
    fashioniq_query,
    write_circo,
    write_cirr,
    write_fashioniq,
)

# Gallery indices without the reference (0, then 7), and members only.
RANKINGS = np.array([[3, 1, 2, 4, 5, 6, 7], [6, 5, 4, 3, 2, 1, 0]])
SUBSETS = np.array([[5, 4, 3], [2, 3, 6]])


def cirr_submission(
    loaded: Benchmark, rankings: np.ndarray, subsets: np.ndarray
) -> tuple[SubmissionFile, ...]:
    return cirr_file.cirr_submission(loaded, {"": rankings}, {"": subsets})


def circo_submission(loaded: Benchmark, rankings: np.ndarray) -> tuple[SubmissionFile, ...]:
    return circo_file.circo_submission(loaded, {"": rankings}, {})


@pytest.fixture
def cirr(tmp_path: Path) -> Benchmark:
    return load_annotations("cirr", write_cirr(tmp_path / "cirr", "test1"), "test1")


@pytest.fixture
def circo(tmp_path: Path) -> Benchmark:
    ids = range(1000, 1060)
    return load_annotations("circo", write_circo(tmp_path / "circo", "test", ids), "test")


def test_cirr_files_hold_names_under_pair_ids(cirr: Benchmark, tmp_path: Path) -> None:
    recall, subset = write_submission(cirr_submission(cirr, RANKINGS, SUBSETS), tmp_path / "out")
    assert recall != subset
    assert json.loads(recall.read_text()) == {
        "version": "rc2",
        "metric": "recall",
        "100": [CIRR_NAMES[image] for image in RANKINGS[0]],
        "101": [CIRR_NAMES[image] for image in RANKINGS[1]],
    }
    assert json.loads(subset.read_text()) == {
        "version": "rc2",
        "metric": "recall_subset",
        "100": [CIRR_NAMES[image] for image in SUBSETS[0]],
        "101": [CIRR_NAMES[image] for image in SUBSETS[1]],
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [recall.name, subset.name]


def test_circo_file_holds_integers(circo: Benchmark, tmp_path: Path) -> None:
    rankings = np.array([np.arange(60), np.arange(59, -1, -1)])
    (path,) = write_submission(circo_submission(circo, rankings), tmp_path)
    written = json.loads(path.read_text())
    assert list(written) == ["0", "1"]
    assert written["0"] == list(range(1000, 1050))
    assert written["1"] == list(range(1059, 1009, -1))


@pytest.mark.parametrize(
    ("rankings", "subsets", "said"),
    [
        (np.array([[0, 1, 2, 3, 4, 5, 6], RANKINGS[1]]), SUBSETS, "reference image 'dev-0"),
        (np.array([[1, 1, 2, 3, 4, 5, 6], RANKINGS[1]]), SUBSETS, "occurs twice"),
        (RANKINGS[:, :6], SUBSETS, "6 names, exactly 7"),
        (RANKINGS[:1], SUBSETS, "one row for each of 2 queries"),
        (RANKINGS.astype(float), SUBSETS, "expected integers"),
        (RANKINGS - 1, SUBSETS, "run from -1 to 6; the gallery has indices 0 to 7"),
        (RANKINGS, np.array([[6, 4, 3], [2, 3, 6]]), "'dev-6-0-img0' is not one of"),
        (RANKINGS, np.array([[0, 4, 3], [2, 3, 6]]), "reference image"),
    ],
)
def test_bad_cirr_rankings_make_no_file(
    cirr: Benchmark, rankings: np.ndarray, subsets: np.ndarray, said: str
) -> None:
    with pytest.raises(SubmissionError, match=said):
        cirr_submission(cirr, rankings, subsets)


def test_submission_of_real_size_fits_the_server_limit(shared_data: Path) -> None:
    loaded = load_annotations("cirr", shared_data / "annotations", "test1")
    view = index_category(loaded)
    rows = np.arange(4148)[:, None]
    rankings = (view.references[:, None] + 1 + rows + np.arange(50)) % 2315
    clash = (rankings == view.references[:, None]).any(axis=1)
    rankings[clash] = (view.references[clash, None] + 1 + np.arange(50)) % 2315
    recall, subset = cirr_submission(loaded, rankings, view.subsets[:, :3])
    assert 3_000_000 < len(recall.payload) < 5_000_000
    assert len(json.loads(subset.payload)) == 4148 + 2


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    names = tuple(f"dev-{'x' * 400_000}-{image}" for image in range(8))
    loaded = load_annotations("cirr", write_cirr(tmp_path, "test1", names), "test1")
    with pytest.raises(SubmissionError, match="the server takes 5 MB"):
        cirr_submission(loaded, RANKINGS, SUBSETS)


def test_two_files_never_share_a_path(tmp_path: Path) -> None:
    files = [SubmissionFile("a.json", b"1"), SubmissionFile("a.json", b"2")]
    with pytest.raises(SubmissionError, match="must be distinct"):
        write_submission(files, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_circo_without_listing_cannot_name_indices(tmp_path: Path) -> None:
    loaded = load_annotations("circo", write_circo(tmp_path, "test"), "test")
    with pytest.raises(SubmissionError, match=r"image_info_unlabeled2017\.json was not found"):
        circo_submission(loaded, np.zeros((2, 50), np.int64))


def test_cirr_and_circo_have_servers() -> None:
    have = [name for name, facts in BENCHMARKS.items() if facts.submission is not None]
    assert have == ["cirr", "circo"]


def test_an_image_without_a_coco_id_is_in_no_circo_file(tmp_path: Path) -> None:
    root = write_fashioniq(
        tmp_path,
        {"": ["B1", "B2"]},
        {"": [fashioniq_query("B1", None, "a", "b")]},
        "test",
    )
    loaded = load_annotations("fashioniq", root, "test")
    with pytest.raises(SubmissionError, match="named by COCO id"):
        circo_submission(loaded, np.zeros((1, 50), np.int64))
