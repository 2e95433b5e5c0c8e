"""The metrics that each benchmark names, worked out by hand from ranks."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.metrics import NOT_RANKED
from storage.benchmarks.facts import Metrics
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.records import Query
from storage.benchmarks.registry import BENCHMARKS
from tasks.scoring.metrics import query_metrics, summed_up


def view(*aspects: tuple[str, ...], counts: tuple[int, ...] = ()) -> IndexedCategory:
    """As many queries as there are tuples of aspects."""
    one = np.zeros((len(aspects), 1), np.int64)
    queries = tuple(Query(str(i), "r", "t", aspects=own) for i, own in enumerate(aspects))
    return IndexedCategory((), queries, one[:, 0], one, np.array(counts or one[:, 0] + 1), one)


def metrics(
    name: str,
    views: dict[str, IndexedCategory],
    ranks: dict[str, np.ndarray] | None,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    chosen = BENCHMARKS[name].metrics
    return summed_up(chosen, query_metrics(chosen, views, ranks, groups))


def test_circo_metrics_by_hand() -> None:
    ranks = np.array([[0, 30], [1, NOT_RANKED], [NOT_RANKED, 9]])
    asked = view(("addition",), ("addition", "viewpoint"), (), counts=(2, 1, 2))
    got = metrics("circo", {"": asked}, {"": ranks})
    # Only the annotated target counts, not the right answer at place 10 of the last query.
    assert got["recall@5"] == got["recall@10"] == pytest.approx(200 / 3)
    assert got["map@5"] == pytest.approx(100 * (1 / 2 + 1 / 2 + 0) / 3)
    assert got["map@10"] == pytest.approx(100 * (1 / 2 + 1 / 2 + (1 / 10) / 2) / 3)
    assert got["map@50"] == pytest.approx(100 * ((1 + 2 / 31) / 2 + 1 / 2 + 1 / 20) / 3)
    assert got["map@10/addition"] == pytest.approx(50.0)
    assert got["map@10/viewpoint"] == pytest.approx(50.0)
    assert list(got)[-2:] == ["map@10/addition", "map@10/viewpoint"]


def test_fashioniq_averages_are_unweighted() -> None:
    ranks = {"dress": np.array([[0], [9], [10], [49]]), "shirt": np.array([[50]])}
    views = {"dress": view((), (), (), ()), "shirt": view(())}
    got = metrics("fashioniq", views, ranks)
    assert list(got.items()) == [
        ("recall@10/dress", 50.0),
        ("recall@10/shirt", 0.0),
        ("recall@10/average", 25.0),
        ("recall@50/dress", 100.0),
        ("recall@50/shirt", 0.0),
        ("recall@50/average", 50.0),
        ("average", 37.5),
    ]
    with pytest.raises(ValueError, match="at least one"):
        metrics("fashioniq", {}, {})


def test_cirr_summary_is_the_mean_of_two() -> None:
    asked, ranks, groups = view((), (), ()), np.array([[0], [4], [60]]), np.array([0, 1, 4])
    got = metrics("cirr", {"": asked}, {"": ranks}, groups)
    assert got["recall@1"] == pytest.approx(100 / 3)
    assert got["recall@5"] == got["recall@50"] == pytest.approx(200 / 3)
    assert got["recall_subset@2"] == pytest.approx(200 / 3)
    assert got["average"] == pytest.approx((200 / 3 + 100 / 3) / 2)
    # One of the two files alone gives its own metrics and no average.
    recall = metrics("cirr", {"": asked}, {"": ranks})
    subset = metrics("cirr", {"": asked}, None, groups)
    assert list(recall) == ["recall@1", "recall@5", "recall@10", "recall@50"]
    assert list(subset) == ["recall_subset@1", "recall_subset@2", "recall_subset@3"]
    assert got == {**recall, **subset, "average": got["average"]}


def test_rankings_that_give_no_metric_are_refused() -> None:
    with pytest.raises(ValueError, match="rankings of the gallery, of the groups, or both"):
        metrics("cirr", {"": view(())}, None)
    with pytest.raises(ValueError, match="no groups"):
        metrics("circo", {"": view(())}, None, np.array([0]))


def test_facts_name_metrics_that_are_computed() -> None:
    with pytest.raises(ValueError, match=r"metrics recall@3; known: recall@1, recall@5"):
        Metrics(main="recall@3", recalls=(1, 5))
    with pytest.raises(ValueError, match="metrics recall@5"):
        Metrics(main="recall@5", recalls=(5,), by_category=True)
    for facts in BENCHMARKS.values():
        assert facts.metrics.main in facts.columns
        assert facts.metrics.main in facts.terminal_columns
        assert facts.offered_splits
