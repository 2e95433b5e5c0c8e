"""How much a method's scores depend on the wording of the modification texts.

    range = mean over queries of (largest - smallest score over the wordings),
    relative = range / mean over queries and wordings.

PinPoint (arXiv 2603.04598) reports a variation over paraphrases; its formula was not seen, this one
is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.retrieval.bootstrap import RESAMPLES, bootstrap, interval
from models.retrieval.metrics import Values, percent


@dataclass(frozen=True, slots=True)
class Spread:
    """One method over several wordings of each query's text.

    Attributes:
        queries: Queries that have a text in every wording; the others count nowhere.
        wordings: Percent of the metric under each wording.
        range: Mean range in points.
        interval: 95 % bootstrap interval over queries of the range.
        relative: The range as a share of the mean; None where the mean is 0.
    """

    queries: int
    wordings: tuple[float, ...]
    range: float
    interval: tuple[float, float]
    relative: float | None


def spread(
    values: Sequence[Sequence[Values]],
    told: Sequence[Sequence[bool]],
    resamples: int = RESAMPLES,
) -> Spread | None:
    """The spread of one metric; None where no query has a text in every wording.

    Args:
        values: For each wording and category (Q,) the score of each query, from 0 to 1.
        told: For each category, whether each query has a text in every wording.
        resamples: Bootstrap draws.
    """
    kept = [np.asarray(own, bool) for own in told]
    by_category = [
        np.stack([wording[place][mask] for wording in values])
        for place, mask in enumerate(kept)
        if mask.any()
    ]
    if not by_category:
        return None
    ranges = [np.ptp(own, axis=0) for own in by_category]
    draws = bootstrap([{"range": own} for own in ranges], resamples)["range"]
    wordings = np.mean([100.0 * own.mean(axis=1) for own in by_category], axis=0)
    size, mean = float(np.mean([percent(own) for own in ranges])), float(wordings.mean())
    return Spread(
        queries=int(sum(mask.sum() for mask in kept)),
        wordings=tuple(float(each) for each in wordings),
        range=size,
        interval=interval(draws),
        relative=size / mean if mean else None,
    )
