"""Bootstrap draws against one that scores every drawn query by itself."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.bootstrap import bootstrap, interval, mean_draws


def one_by_one(
    categories: list[dict[str, np.ndarray]], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """A loop over draws and queries, on the same stream of random numbers."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[list[float]]] = {}
    for metrics in categories:
        count = len(next(iter(metrics.values())))
        times = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        for name, values in metrics.items():
            own = []
            for draw in times:
                drawn = [v for v, n in zip(values, draw, strict=True) for _ in range(n)]
                kept = [100 * value for value in drawn if not np.isnan(value)]
                own.append(sum(kept) / len(kept) if kept else 0.0)
            parts.setdefault(name, []).append(own)
    return {name: np.mean(own, axis=0) for name, own in parts.items()}


@pytest.mark.parametrize("seed", [0, 7])
def test_draws_equal_a_loop_over_drawn_queries(seed: int) -> None:
    rng = np.random.default_rng(seed + 100)
    hits = (rng.random(40) < 0.4).astype(float)
    partial = np.where(rng.random(40) < 0.1, rng.random(40), np.nan)
    other = (rng.random(17) < 0.7).astype(float)
    categories = [
        {"recall@1/a": hits, "recall@1/average": hits, "map@10/rare": partial},
        {"recall@1/b": other, "recall@1/average": other},
    ]
    got = bootstrap(categories, resamples=60, seed=seed)
    expected = one_by_one(categories, 60, seed)
    assert got.keys() == expected.keys()
    for name, draws in expected.items():
        np.testing.assert_allclose(got[name], draws, atol=1e-10)
    # Whole numbers of hits are summed exactly: these are equal to the last digit.
    assert (got["recall@1/a"] == expected["recall@1/a"]).all()


def test_a_metric_of_few_queries_may_be_drawn_empty() -> None:
    values = np.array([1.0, np.nan, np.nan, np.nan])
    draws = bootstrap([{"map@10/rare": values}], resamples=200)["map@10/rare"]
    assert set(draws.tolist()) == {0.0, 100.0}


def test_intervals_and_means_by_hand() -> None:
    assert interval(np.arange(0.0, 201.0)) == (5.0, 195.0)
    assert mean_draws([np.array([0.0, 4.0]), np.array([2.0, 8.0])]).tolist() == [1.0, 6.0]


def test_the_same_queries_have_the_same_draws() -> None:
    better, worse = np.array([1.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    first = bootstrap([{"recall@1": better}], resamples=100)["recall@1"]
    second = bootstrap([{"recall@1": worse}], resamples=100)["recall@1"]
    assert (first >= second).all()  # paired: a hit more is a hit more in every draw
    assert (first == bootstrap([{"recall@1": better}], resamples=100)["recall@1"]).all()
