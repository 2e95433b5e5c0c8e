"""The audit of composition against counts made query by query, and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.audit import first_hits, on_the_rest, solved_by_one
from models.retrieval.metrics import NOT_RANKED


def some_ranks(rng: np.random.Generator, *sizes: int) -> list[np.ndarray]:
    return [np.where(rng.random(n) < 0.2, NOT_RANKED, rng.integers(0, 20, n)) for n in sizes]


def test_the_best_ranked_of_several_right_answers_counts() -> None:
    ranks = np.array([[30, 2, NOT_RANKED], [NOT_RANKED, NOT_RANKED, NOT_RANKED], [0, 5, 7]])
    assert first_hits(ranks).tolist() == [2, NOT_RANKED, 0]
    assert first_hits(np.array([4, NOT_RANKED])).tolist() == [4, NOT_RANKED]


@pytest.mark.parametrize("depth", [1, 5, 10])
def test_counts_and_means_against_single_queries(depth: int) -> None:
    rng = np.random.default_rng(depth)
    sizes = (40, 7)
    image, text, own = (some_ranks(rng, *sizes) for _ in range(3))
    values = [rng.random(n) for n in sizes]
    solved = solved_by_one(image, text, depth)
    rest = on_the_rest({"m": values}, {"m": own}, image, text, depth, resamples=50)["m"]

    left: list[list[float]] = []
    by_image = by_text = by_both = found = 0
    for category in range(len(sizes)):
        left.append([])
        for row in range(sizes[category]):
            i, t = image[category][row] < depth, text[category][row] < depth
            by_image, by_text, by_both = by_image + i, by_text + t, by_both + (i and t)
            found += own[category][row] < depth
            if not (i or t):
                left[-1].append(100 * values[category][row])
    either = by_image + by_text - by_both
    assert (solved.image, solved.text, solved.both) == (by_image, by_text, by_both)
    assert (solved.queries, solved.either, solved.left) == (47, either, 47 - either)
    means = [sum(each) / len(each) for each in left if each]
    assert rest.value == pytest.approx(sum(means) / len(means))
    assert rest.gap == pytest.approx((found - either) / found)
    assert rest.interval is not None
    assert rest.gap_interval is not None
    assert rest.interval[0] <= rest.value <= rest.interval[1]
    assert rest.gap_interval[0] <= rest.gap <= rest.gap_interval[1]


def test_the_gap_by_hand() -> None:
    """Of ten queries the image solves one, the text another: a method that solves four has 1/2."""
    image, text = (np.full(10, NOT_RANKED) for _ in range(2))
    image[0], text[1] = 0, 0
    four = np.where(np.arange(10) < 4, 0, NOT_RANKED)
    one = np.where(np.arange(10) < 1, 0, NOT_RANKED)
    none = np.full(10, NOT_RANKED)
    hits = {"four": [four], "one": [one], "none": [none]}
    scores = {name: [(own[0] < 1).astype(float)] for name, own in hits.items()}
    found = on_the_rest(scores, hits, [image], [text], 1)
    assert (found["four"].gap, found["one"].gap, found["none"].gap) == (0.5, -1.0, None)
    assert [found[name].value for name in hits] == [25.0, 0.0, 0.0]
    assert found["none"].gap_interval is None


def test_where_one_modality_solves_everything_no_value_is_made_up() -> None:
    zero = np.zeros(3, np.int64)
    found = on_the_rest({"m": [np.ones(3)]}, {"m": [zero]}, [zero], [zero], 1)["m"]
    assert (found.value, found.interval, found.gap) == (None, None, 0.0)
    # A category in which nothing is left has no part in the mean.
    miss = np.full(3, NOT_RANKED)
    two = on_the_rest(
        {"m": [np.ones(3), np.zeros(3)]}, {"m": [zero, zero]}, [miss, zero], [miss, zero], 1
    )
    assert two["m"].value == 100.0
