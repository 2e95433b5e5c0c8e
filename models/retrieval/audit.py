"""How much of a benchmark one modality alone solves, and how methods do on the rest.

A query is *solved* at rank k by a ranking that holds any of its right answers among its first k
(the audit of CIRCUS, arXiv 2605.14787, with K = 10). With H the share of queries that a method
solves, and H_either the share that the image alone or the text alone solves,

    composition gap = (H - H_either) / H.

CIRCUS describes its gap as normalised, and its formula was not on the pages that could be read:
this one is ours. It is 1 where nothing is solved by one modality, and below 0 for a method that
solves less than both single modalities together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.retrieval.bootstrap import RESAMPLES, Draws, bootstrap, interval
from models.retrieval.metrics import Ranks, Values, percent


@dataclass(frozen=True, slots=True)
class Solved:
    """Queries that one modality alone solves at a rank.

    Attributes:
        depth: The rank k.
        queries: All queries.
        image: Solved by the image alone.
        text: Solved by the text alone.
        both: Solved by each of the two alone.
    """

    depth: int
    queries: int
    image: int
    text: int
    both: int

    @property
    def either(self) -> int:
        """Queries that the image alone or the text alone solves."""
        return self.image + self.text - self.both

    @property
    def left(self) -> int:
        """Queries that neither solves: the rest."""
        return self.queries - self.either


@dataclass(frozen=True, slots=True)
class OnTheRest:
    """One method on the queries that neither modality alone solves at a rank.

    Attributes:
        value: Its metric on them in percent; None where none is left.
        interval: 95 % bootstrap interval over them.
        gap: Its composition gap; None where it solves no query.
        gap_interval: 95 % bootstrap interval over all queries.
    """

    value: float | None
    interval: tuple[float, float] | None
    gap: float | None
    gap_interval: tuple[float, float] | None


def first_hits(ranks: Ranks) -> Ranks:
    """(Q,) the rank of each query's best-ranked right answer, from ranks (Q,) or (Q, T)."""
    return np.asarray(ranks.reshape(len(ranks), -1).min(axis=1))


def solved_by_one(image: Sequence[Ranks], text: Sequence[Ranks], depth: int) -> Solved:
    """How many queries each modality alone solves.

    Args:
        image: For each category (Q,) the first hits of the image alone.
        text: Those of the text alone.
        depth: The rank k, from 1.
    """
    by_image, by_text = np.concatenate(image) < depth, np.concatenate(text) < depth
    counts = (int(np.sum(hits)) for hits in (by_image, by_text, by_image & by_text))
    return Solved(depth, len(by_image), *counts)


def on_the_rest(
    values: Mapping[str, Sequence[Values]],
    hits: Mapping[str, Sequence[Ranks]],
    image: Sequence[Ranks],
    text: Sequence[Ranks],
    depth: int,
    resamples: int = RESAMPLES,
) -> dict[str, OnTheRest]:
    """Every method on the queries that neither modality alone solves, on the same draws.

    A metric's value is the mean over the queries that are left, then over the categories in which
    any is left.

    Args:
        values: Method -> for each category (Q,) the score of each query, from 0 to 1.
        hits: Method -> for each category (Q,) its first hits; the same methods.
        image: For each category (Q,) the first hits of the image alone.
        text: Those of the text alone.
        depth: The rank k, from 1.
        resamples: Bootstrap draws.
    """
    either = [(i < depth) | (t < depth) for i, t in zip(image, text, strict=True)]
    rest = [
        {method: own[place][~solved] for method, own in values.items()}
        for place, solved in enumerate(either)
        if not solved.all()
    ]
    draws = bootstrap(rest, resamples) if rest else {}
    single = np.concatenate(either).astype(np.float64)
    found = {m: (np.concatenate(own) < depth).astype(np.float64) for m, own in hits.items()}
    # The reserved name cannot be a method's: a method has a name.
    shares = bootstrap([{**found, "": single}], resamples)
    made = {}
    for method in values:
        gaps = _gaps(shares[method], shares[""])
        own = float(found[method].mean())
        made[method] = OnTheRest(
            value=float(np.mean([percent(each[method]) for each in rest])) if rest else None,
            interval=interval(draws[method]) if rest else None,
            gap=1.0 - float(single.mean()) / own if own else None,
            gap_interval=interval(gaps) if own and len(gaps) else None,
        )
    return made


def _gaps(own: Draws, either: Draws) -> Draws:
    """The composition gap in each draw in which the method solves a query."""
    counted = own > 0
    return np.asarray(1.0 - either[counted] / own[counted])
