"""The metric engine against hand-worked cases and a naive sort over name strings."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.metrics import (
    NOT_RANKED,
    average_precision,
    average_precision_at_k,
    average_precisions,
    by_aspect,
    negatives_found,
    percent,
    ranks_in_lists,
    ranks_in_score_blocks,
    ranks_in_scores,
    ranks_in_subset,
    recalls,
)


def naive_ranking(scores: np.ndarray, names: list[str], excluded: str | None = None) -> list[str]:
    """All names best first: a full stable sort, the excluded name filtered out."""
    ordered = [names[i] for i in np.argsort(-scores.astype(np.float64), kind="stable")]
    return [name for name in ordered if name != excluded]


def test_ranks_by_hand() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5]], np.float32)
    # Sorted: 1 (0.9), 2 (0.5), 3 (0.5, later in the gallery), 0.
    targets = np.array([[0, 1, 2, 3, -1]])
    assert ranks_in_scores(scores, targets).tolist() == [[3, 0, 1, 2, NOT_RANKED]]
    # Without image 2 the ones behind it move up, and image 2 has no rank.
    without = ranks_in_scores(scores, targets, np.array([2]))
    assert without.tolist() == [[2, 0, NOT_RANKED, 1, NOT_RANKED]]


def test_subset_ranks_by_hand() -> None:
    scores = np.array([[9.0, 0.3, 0.3, 0.7, 0.1], [9.0, 1.0, 1.0, 1.0, 1.0]], np.float32)
    subsets = np.array([[4, 3, 2, 1], [4, 3, 2, 1]])  # image 0, the best of all, is not a member
    assert ranks_in_subset(scores, subsets, np.array([2, 4])).tolist() == [2, 3]
    gaps = np.array([[4, -1, 2, 1], [4, 3, -1, 1]])
    assert ranks_in_subset(scores, gaps, np.array([2, -1])).tolist() == [1, NOT_RANKED]


def test_list_ranks_by_hand() -> None:
    lists = np.array([[7, 3, 5], [2, 9, -1]])
    targets = np.array([[5, 7, 4, -1], [9, -1, -1, -1]])
    assert ranks_in_lists(lists, targets).tolist() == [
        [2, 0, NOT_RANKED, NOT_RANKED],
        [1, NOT_RANKED, NOT_RANKED, NOT_RANKED],
    ]


def test_average_precision_by_hand() -> None:
    # Right answers at places 1, 3 and beyond the cut; three right answers.
    ranks = np.array([[2, 0, NOT_RANKED]])
    assert average_precision_at_k(ranks, np.array([3]), 5)[0] == pytest.approx((1 + 2 / 3) / 3)
    # The divisor is min(number of right answers, k): a perfect head of two scores 1.
    assert average_precision_at_k(np.array([[0, 1, 7]]), np.array([3]), 2)[0] == 1.0
    # At the cut itself: place 5 counts at k = 5, not at k = 4.
    fifth = np.array([[4]])
    assert average_precision_at_k(fifth, np.array([1]), 5)[0] == pytest.approx(1 / 5)
    assert average_precision_at_k(fifth, np.array([1]), 4)[0] == 0.0


def test_recall_counts_absent_targets_as_misses() -> None:
    got = recalls(np.array([0, 4, 5, NOT_RANKED]), (1, 5), "recall_subset")
    assert {name: values.tolist() for name, values in got.items()} == {
        "recall_subset@1": [1.0, 0.0, 0.0, 0.0],
        "recall_subset@5": [1.0, 1.0, 0.0, 0.0],
    }
    assert percent(got["recall_subset@5"]) == 50.0


def test_a_query_counts_in_each_of_its_aspects() -> None:
    ranks = np.array([[0, 30], [1, NOT_RANKED], [NOT_RANKED, 9]])
    values = average_precisions(ranks, np.array([2, 1, 2]), (10,))["map@10"]
    assert values.tolist() == [1 / 2, 1 / 2, (1 / 10) / 2]
    got = by_aspect("map@10", values, [("addition",), ("addition", "viewpoint"), ()])
    np.testing.assert_equal(got["map@10/addition"], [1 / 2, 1 / 2, np.nan])
    np.testing.assert_equal(got["map@10/viewpoint"], [np.nan, 1 / 2, np.nan])
    assert percent(got["map@10/viewpoint"]) == 50.0


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("exclude", [False, True])
def test_both_doors_equal_a_naive_sort(levels: int, dtype: type, exclude: bool) -> None:
    rng = np.random.default_rng(levels)
    queries, gallery, depth = 130, 97, 50
    names = [f"image {index}" for index in rng.permutation(gallery)]
    scores = rng.integers(-levels, levels, (queries, gallery)).astype(dtype)
    drawn = np.stack([rng.choice(gallery, 4, replace=False) for _ in range(queries)])
    references, targets = drawn[:, 0], drawn[:, 1:]
    rankings = [
        naive_ranking(row, names, names[reference] if exclude else None)
        for row, reference in zip(scores, references, strict=True)
    ]
    expected = [
        [ranking.index(names[target]) for target in row]
        for ranking, row in zip(rankings, targets, strict=True)
    ]
    excluded = references if exclude else None
    blocks = [scores[start : start + 37] for start in range(0, queries, 37)]
    streamed = ranks_in_score_blocks(iter(blocks), targets, excluded=excluded)
    assert streamed.full.tolist() == expected
    assert ranks_in_scores(scores, targets, excluded).tolist() == expected
    lists = np.array([[names.index(name) for name in ranking[:depth]] for ranking in rankings])
    cut = [[rank if rank < depth else NOT_RANKED for rank in row] for row in expected]
    assert ranks_in_lists(lists, targets).tolist() == cut


@pytest.mark.parametrize("levels", [1, 3, 50])
def test_group_ranks_equal_a_naive_sort(levels: int) -> None:
    rng = np.random.default_rng(levels)
    queries, gallery = 200, 40
    names = [f"image {index}" for index in range(gallery)]
    scores = rng.integers(0, levels, (queries, gallery)).astype(np.float32)
    subsets = np.stack([rng.choice(gallery, 5, replace=False) for _ in range(queries)])
    targets = subsets[np.arange(queries), rng.integers(0, 5, queries)]
    expected = [
        [name for name in naive_ranking(row, names) if int(name[6:]) in members].index(
            names[target]
        )
        for row, members, target in zip(scores, subsets, targets, strict=True)
    ]
    streamed = ranks_in_score_blocks([scores[:7], scores[7:]], targets, subsets=subsets)
    assert streamed.subset is not None
    assert streamed.subset.tolist() == expected


def test_average_precision_equals_a_loop_over_labels() -> None:
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(60)[:50] for _ in range(300)])
    counts = rng.integers(1, 24, 300)
    targets = np.full((300, 23), -1)
    for row, count in enumerate(counts):
        targets[row, :count] = rng.choice(60, count, replace=False)
    ranks = ranks_in_lists(lists, targets)
    for k in (5, 10, 25, 50):
        for row, count in enumerate(counts):
            labels = np.isin(lists[row], targets[row, :count])
            precision = np.cumsum(labels) / np.arange(1, 51) * labels
            expected = precision[:k].sum() / min(count, k)
            got = average_precision_at_k(ranks[row : row + 1], counts[row : row + 1], k)[0]
            assert got == pytest.approx(expected, abs=1e-12)


def test_whole_precision_equals_the_area_under_each_curve() -> None:
    """i-CIR's rule, as areas of trapezoids under precision over recall, point by point."""
    rng = np.random.default_rng(3)
    labels = rng.random((30, 12)) < 0.3
    labels[0] = [True] + [False] * 11
    labels[1] = True
    labels = labels[labels.any(axis=1)]
    ranks = np.full((len(labels), 12), NOT_RANKED)
    expected = []
    for row, own in enumerate(labels):
        (places,) = np.nonzero(own)
        ranks[row, : len(places)] = rng.permutation(places)
        area, found = 0.0, 0
        for place, right in enumerate(own):
            if right:
                before = found / place if place else 1.0
                found += 1
                area += (1 / len(places)) * (before + found / (place + 1)) / 2
        expected.append(area)
    got = average_precision(ranks, labels.sum(axis=1))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert got[0] == got[1] == 1.0
    # A right answer that was never ranked stays in the denominator.
    lost = np.array([[1, NOT_RANKED]])
    assert average_precision(lost, np.array([2])).tolist() == [0.5 * (0 / 1 + 1 / 2) / 2]


def test_images_named_as_wrong_by_hand() -> None:
    wrong = np.array([[0, 3, 11], [5, NOT_RANKED, NOT_RANKED], [10, 2**40, 12], [1, 2, 3]])
    hits = np.array([1, 2, NOT_RANKED, 0])
    got = negatives_found(wrong, hits, 10)
    assert got["neg@10"].tolist() == [0.2, 0.1, 0.0, 0.3]
    assert got["any_neg@10"].tolist() == [1, 1, 0, 1]
    assert got["neg_before_pos"].tolist() == [1, 0, 1, 0]
    none = negatives_found(np.empty((2, 0), np.int64), np.array([0, NOT_RANKED]), 10)
    assert [values.tolist() for values in none.values()] == [[0, 0]] * 3


def test_nan_is_refused_wherever_it_would_flatter() -> None:
    # A NaN target compares below nothing and would take rank 0.
    scores = np.ones((70, 5), np.float32)
    scores[66, 3] = np.nan
    with pytest.raises(ValueError, match="NaN in rows 64 to 69"):
        ranks_in_scores(scores, np.zeros(70, np.int64))
    with pytest.raises(ValueError, match="NaN"):
        ranks_in_subset(scores, np.tile([1, 2, 3], (70, 1)), np.full(70, 1))


def test_negative_infinity_is_an_ordinary_score() -> None:
    scores = np.array([[-np.inf, 1.0, -np.inf]], np.float32)
    assert ranks_in_scores(scores, np.array([2])).tolist() == [2]


def test_shapes_and_indices_that_disagree_are_refused() -> None:
    scores = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="must agree in rows"):
        ranks_in_scores(scores, np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"run from 0 to 4; allowed are -1 \(absent\) to 3"):
        ranks_in_scores(scores, np.array([0, 1, 4]))
    with pytest.raises(ValueError, match="targets run from -2"):
        ranks_in_scores(scores, np.array([0, -2, 1]))
    with pytest.raises(ValueError, match="excluded run from"):
        ranks_in_scores(scores, np.zeros(3, np.int64), np.array([0, 0, 9]))
    with pytest.raises(ValueError, match="hold 3 rows for 4 queries"):
        ranks_in_score_blocks([scores], np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="more rows than the 2 queries"):
        ranks_in_score_blocks([scores], np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="not a member of its group"):
        ranks_in_subset(scores, np.tile([0, 1], (3, 1)), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="at least one right answer"):
        average_precision_at_k(np.zeros((1, 1), np.int64), np.array([0]), 5)
