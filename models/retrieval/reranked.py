"""The order of a second stage: some images by its scores, the others as the first stage has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def reranked(ranked: Sequence[str], scores: Mapping[str, float], count: int) -> list[str]:
    """The first images of a ranking in the order of their scores, the others behind them.

    Args:
        ranked: Images, best first, by the first stage.
        scores: Image -> score of the second stage, of the first `count` at least.
        count: K, how many are ordered again. Equal scores keep the first stage's order.

    Raises:
        KeyError: one of them has no score.
    """
    first = sorted(ranked[:count], key=lambda image: -scores[image])
    return [*first, *ranked[count:]]
