"""Scoring end to end on the real annotation files, against a naive oracle on name strings.

The oracle sorts every ranking in full, removes references by name and walks lists in Python;
scores take few values, so that most ranks are decided by ties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.benchmarks.errors import HiddenTargets, PredictionError
from storage.benchmarks.indexing import index_category
from storage.benchmarks.records import Benchmark, Query
from storage.benchmarks.registry import load_annotations
from tasks.scoring.metrics import metrics_from_lists, metrics_from_scores
from tasks.scoring.predictions import score_predictions, score_with_protocol
from tests.fakes.benchmark_layouts import (
    CIRR_NAMES,
    fashioniq_query,
    write_circo,
    write_circo_listing,
    write_cirr,
    write_fashioniq,
    write_json,
)

LEVELS = 30  # distinct scores; galleries hold thousands of images


def tied_scores(benchmark: Benchmark, category: str = "") -> np.ndarray:
    """(Q, G) random scores with many ties, better for right answers than for others."""
    rng = np.random.default_rng(0)
    view = index_category(benchmark, category)
    scores = rng.integers(0, LEVELS, (len(view.queries), len(view.gallery))).astype(np.float32)
    for row, targets in enumerate(view.targets):
        if rng.random() < 0.6:
            kept = targets[targets >= 0]
            scores[row, kept] = LEVELS + rng.integers(-1, 2, len(kept))
    return scores


def naive_rankings(benchmark: Benchmark, scores: np.ndarray, category: str = "") -> list[list[str]]:
    """Every query's full ranking as names, by a stable sort of the whole gallery."""
    names = np.array(benchmark.galleries[category])
    ordered = names[np.argsort(-scores, axis=1, kind="stable")].tolist()
    for ranking, query in zip(ordered, benchmark.queries_of(category), strict=True):
        if benchmark.exclude_reference:
            ranking.remove(query.reference)
    return ordered


def naive_recall(rankings: Sequence[Sequence[str]], queries: Sequence[Query], k: int) -> float:
    hits = [
        query.targets[0] in ranking[:k] for ranking, query in zip(rankings, queries, strict=True)
    ]
    return 100 * sum(hits) / len(hits)


def naive_map(rankings: Sequence[Sequence[str]], queries: Sequence[Query], k: int) -> float:
    values = []
    for ranking, query in zip(rankings, queries, strict=True):
        right, total = 0, 0.0
        for place, name in enumerate(ranking[:k], start=1):
            if name in query.targets:
                right += 1
                total += right / place
        values.append(total / min(len(query.targets), k))
    return 100 * sum(values) / len(values)


def blocks_of(scores: np.ndarray, rows: int = 333) -> list[np.ndarray]:
    return [scores[start : start + rows] for start in range(0, len(scores), rows)]


def test_cirr_equals_the_oracle_through_every_door(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "annotations" / "cirr"
    loaded = load_annotations("cirr", root, "val")
    scores = tied_scores(loaded)
    rankings = naive_rankings(loaded, scores)
    groups = [
        [name for name in ranking if name in query.subset]
        for ranking, query in zip(rankings, loaded.queries, strict=True)
    ]
    recall = {f"recall@{k}": naive_recall(rankings, loaded.queries, k) for k in (1, 5, 10, 50)}
    subset = {f"recall_subset@{k}": naive_recall(groups, loaded.queries, k) for k in (1, 2, 3)}
    average = {"average": (recall["recall@5"] + subset["recall_subset@1"]) / 2}
    assert recall["recall@1"] < recall["recall@50"] < 100

    views = {"": index_category(loaded)}
    by_scores = metrics_from_scores(loaded, views, {"": blocks_of(scores)})
    assert by_scores == pytest.approx({**recall, **subset, **average})

    def write(metric: str, lists: list[list[str]], depth: int) -> Path:
        rows = {
            query.query_id: names[:depth]
            for query, names in zip(loaded.queries, lists, strict=True)
        }
        return write_json(tmp_path / f"{metric}.json", {"version": "rc2", "metric": metric, **rows})

    file = write("recall", rankings, 50)
    assert score_predictions("cirr", "val", root, file) == pytest.approx(recall)
    file = write("recall_subset", groups, 3)
    assert score_predictions("cirr", "val", root, file) == pytest.approx(subset)


def test_circo_equals_the_oracle_with_and_without_listing(
    shared_data: Path, tmp_path: Path
) -> None:
    annotations = shared_data / "annotations" / "circo" / "annotations" / "val.json"
    listed, bare = tmp_path / "listed", tmp_path / "bare"
    for root in (listed, bare):
        write_json(root / "annotations" / "val.json", json.loads(annotations.read_text()))
    used = {
        int(name)
        for query in load_annotations("circo", bare, "val").queries
        for name in (query.reference, *query.targets)
    }
    write_circo_listing(listed, sorted(used | set(range(1, 4000))))
    loaded = load_annotations("circo", listed, "val")
    scores = tied_scores(loaded)
    rankings = naive_rankings(loaded, scores)
    expected = {f"map@{k}": naive_map(rankings, loaded.queries, k) for k in (5, 10, 25, 50)}
    expected |= {f"recall@{k}": naive_recall(rankings, loaded.queries, k) for k in (5, 10, 25, 50)}
    for aspect in {name for query in loaded.queries for name in query.aspects}:
        having = [row for row, query in enumerate(loaded.queries) if aspect in query.aspects]
        expected[f"map@10/{aspect}"] = naive_map(
            [rankings[row] for row in having], [loaded.queries[row] for row in having], 10
        )
    assert len(expected) == 4 + 4 + 9

    views = {"": index_category(loaded)}
    assert metrics_from_scores(loaded, views, {"": blocks_of(scores)}) == pytest.approx(expected)
    content = {str(row): [int(name) for name in names[:50]] for row, names in enumerate(rankings)}
    file = write_json(tmp_path / "circo.json", content)
    for root in (listed, bare):
        assert score_predictions("circo", "val", root, file) == pytest.approx(expected)


def test_fashioniq_equals_the_oracle_and_says_which_categories(
    shared_data: Path, tmp_path: Path
) -> None:
    root = shared_data / "annotations" / "fashioniq"
    loaded = load_annotations("fashioniq", root, "val")
    scores = {category: tied_scores(loaded, category) for category in loaded.categories}
    rankings = {
        category: naive_rankings(loaded, each, category) for category, each in scores.items()
    }
    expected = {
        f"recall@{k}/{category}": naive_recall(each, loaded.queries_of(category), k)
        for category, each in rankings.items()
        for k in (10, 50)
    }
    for k in (10, 50):
        both = [expected[f"recall@{k}/dress"], expected[f"recall@{k}/shirt"]]
        expected[f"recall@{k}/average"] = sum(both) / 2
    expected["average"] = (expected["recall@10/average"] + expected["recall@50/average"]) / 2

    views = {category: index_category(loaded, category) for category in loaded.categories}
    blocks = {category: blocks_of(each) for category, each in scores.items()}
    assert metrics_from_scores(loaded, views, blocks) == pytest.approx(expected)
    content = {
        category: {str(row): names[:50] for row, names in enumerate(each)}
        for category, each in rankings.items()
    }
    scored = score_with_protocol("fashioniq", "val", root, write_json(tmp_path / "f.json", content))
    assert scored.metrics == pytest.approx(expected)
    assert scored.protocol["average_over"] == "2 of 3 categories: dress, shirt"
    assert scored.protocol["gallery_size"] == {"dress": 3817, "shirt": 6346}
    assert scored.protocol["queries"] == 4055


def _hand_cirr(root: Path) -> tuple[Path, Any, dict[str, float]]:
    # Query 100 finds its target (image 3) at place 1, query 101 (image 2) at place 6.
    lists = {"100": [3, 1, 2, 4, 5, 6, 7], "101": [0, 1, 3, 4, 5, 2, 6]}
    named = {key: [CIRR_NAMES[image] for image in images] for key, images in lists.items()}
    expected = {"recall@1": 50.0, "recall@5": 50.0, "recall@10": 100.0, "recall@50": 100.0}
    return write_cirr(root), {"version": "rc2", "metric": "recall", **named}, expected


def _hand_circo(root: Path) -> tuple[Path, Any, dict[str, float]]:
    # Query 0: right answers 3 (the target) and 5 at places 2 and 1. Query 1: 9 at place 10.
    others = list(range(100, 150))
    lists = {"0": [5, 3, *others[:48]], "1": [*others[:9], 9, *others[9:49]]}
    expected = {
        "map@5": 50.0,
        "map@10": 100 * (1 + 1 / 10) / 2,
        "map@25": 100 * (1 + 1 / 10) / 2,
        "map@50": 100 * (1 + 1 / 10) / 2,
        "recall@5": 50.0,
        "recall@10": 100.0,
        "recall@25": 100.0,
        "recall@50": 100.0,
        "map@10/addition": 55.0,
        "map@10/negation": 100.0,
    }
    return write_circo(root), lists, expected


def _hand_fashioniq(root: Path) -> tuple[Path, Any, dict[str, float]]:
    names = [f"B{image}" for image in range(60)]
    queries = {
        "dress": [fashioniq_query("B0", "B9", "a", "b"), fashioniq_query("B0", "B10", "a", "b")],
        "toptee": [fashioniq_query("B0", "B59", "a", "b")],
    }
    write_fashioniq(root, {"dress": names, "toptee": names}, queries)
    lists = {"dress": {"0": names[:50], "1": names[:50]}, "toptee": {"0": names[:50]}}
    expected = {
        "recall@10/dress": 50.0,
        "recall@10/toptee": 0.0,
        "recall@10/average": 25.0,
        "recall@50/dress": 100.0,
        "recall@50/toptee": 0.0,
        "recall@50/average": 50.0,
        "average": 37.5,
    }
    return root, lists, expected


@pytest.mark.parametrize(
    ("name", "make"),
    [("cirr", _hand_cirr), ("circo", _hand_circo), ("fashioniq", _hand_fashioniq)],
)
def test_small_files_worked_by_hand(
    tmp_path: Path, name: str, make: Callable[[Path], tuple[Path, Any, dict[str, float]]]
) -> None:
    root, content, expected = make(tmp_path / name)
    file = write_json(tmp_path / "predictions.json", content)
    assert score_predictions(name, "val", root, file) == pytest.approx(expected)


def test_both_kinds_of_cirr_lists_give_the_summary(tmp_path: Path) -> None:
    loaded = load_annotations("cirr", write_cirr(tmp_path), "val")
    views = {"": index_category(loaded)}
    lists = {"": np.array([[3, 1, 2, 4, 5, 6, 7], [0, 1, 3, 4, 5, 2, 6]])}
    groups = {"": np.array([[1, 3, 2], [2, 3, 4]])}
    got = metrics_from_lists(loaded, views, lists, groups)
    assert (got["recall@5"], got["recall_subset@1"], got["average"]) == (50.0, 50.0, 50.0)


@pytest.mark.parametrize(("name", "split"), [("cirr", "test1"), ("circo", "test")])
def test_hidden_targets_can_only_be_scored_by_the_server(
    shared_data: Path, tmp_path: Path, name: str, split: str
) -> None:
    file = write_json(tmp_path / "predictions.json", {})
    with pytest.raises(HiddenTargets, match="only the benchmark's evaluation server"):
        score_predictions(name, split, shared_data / "annotations", file)


def test_file_of_another_split_is_recognised(shared_data: Path, tmp_path: Path) -> None:
    file = write_json(tmp_path / "test.json", {str(row): list(range(50)) for row in range(800)})
    with pytest.raises(PredictionError, match=r"580 are not of this split .* another split\?"):
        score_predictions("circo", "val", shared_data / "annotations", file)
