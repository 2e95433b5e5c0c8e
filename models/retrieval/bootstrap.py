"""Bootstrap intervals over queries, from the score of each query.

Every metric is a mean over queries (and then over categories), so that a draw of queries with
replacement is a weighted mean of single queries' scores: one multinomial draw of weights per
category serves all metrics, and the draws of two methods on one benchmark are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.retrieval.metrics import Values

RESAMPLES = 400

Draws: TypeAlias = npt.NDArray[np.float64]
"""(R,) a metric's percent in each draw."""


def bootstrap(
    categories: Sequence[Mapping[str, Values]], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Draws]:
    """Each metric in each draw of queries, drawn within each category.

    The product is taken metric by metric: one product with all metrics at once sums in another
    order, and would change the last digit of intervals that ledgers hold.

    Args:
        categories: For each category, metric -> (Q,) the score of each query, from 0 to 1; NaN
            where the metric does not count the query.
        resamples: R, how many draws.
        seed: Of the draws.

    Returns:
        Metric -> (R,) percent, the mean over the categories that have the metric.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Draws]] = {}
    for metrics in categories:
        count = len(next(iter(metrics.values())))
        times = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
        for name, values in metrics.items():
            counted = ~np.isnan(values)
            drawn = times if counted.all() else np.ascontiguousarray(times[:, counted])
            weight = np.maximum(drawn.sum(axis=1), 1)
            parts.setdefault(name, []).append(drawn @ (100.0 * values[counted]) / weight)
    return {name: np.mean(drawn, axis=0) for name, drawn in parts.items()}


def mean_draws(draws: Sequence[Draws]) -> Draws:
    """(R,) the mean over several benchmarks' draws of one metric, each (R,)."""
    return np.asarray(np.mean(draws, axis=0))


def interval(draws: Draws) -> tuple[float, float]:
    """The central 95 % of (R,) draws."""
    return float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))


def mean(values: Draws | Sequence[float]) -> float:
    """The mean of draws, or of one metric over several benchmarks."""
    return float(np.mean(values))
