"""Exact search by one query without making gallery vectors: each feature is multiplied apart.

With t = sum_g c_g x_g, where c_g is a feature's weight, divided by |x_g| where the feature counts
as a unit vector,

    cos(q, t) |q| = sum_g c_g <q, x_g> / |t|,    |t|^2 = sum_gh c_g c_h <x_g, x_h>.

The products <x_g, x_h> of an image's own features follow from no query and no weight, so that they
are made once for a gallery, and moved weights cost what a search costs. Scores differ from those
of made vectors by rounding: by 1e-6 at most for unit queries and positive weights.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from models.retrieval.fusion import TINY
from models.retrieval.gallery import MADE_ROWS, Rows
from models.retrieval.halves import HalfQuery
from models.retrieval.method_records import AnyRecipe, Recipe
from models.retrieval.search import (
    GALLERY_BLOCK,
    WIDE_BLOCK,
    Ints,
    RunningTopK,
    TopK,
    check_features,
    products,
)

Doubles: TypeAlias = npt.NDArray[np.float64]
OwnProducts: TypeAlias = Callable[[str, str], Doubles]
"""From two gallery features to the (G,) products of each image's two vectors (`own_products`)."""

logger = logging.getLogger(__name__)

ROUGH_BLOCK = 4 * GALLERY_BLOCK
"""Rows whose copies are multiplied at a time: enough for threads, few enough for a cache."""
_FEW = 64
"""One image in so many may be a candidate; more are not worth their random reads."""
_MANY = 8
"""Where more than one image in so many is asked for, reading all rows costs less."""
_SPARSE = 4
"""Where one row in so many is wanted, or more, all between the first and the last are multiplied:
picking rows costs more."""
_ROUNDING = 2.0**-22
"""Of a score, for its sum and its rounding to float32."""
_CANCELLED = 0.05
"""Where parts cancel to less than this share of their lengths, the vector is made: digits are
lost."""
_LOST = 1e-3
"""Where they cancel to less than this, only the vector itself tells."""


def own_products(one: Rows, other: Rows) -> Doubles:
    """(G,) dot products of two features of the same image, in double precision."""
    if other is one and one.halves is not None:
        squares = one.halves.squares
        # Copied: a view that is kept would hold all of a map whose file is gone.
        return squares.copy() if one.places is None else squares[one.places]
    found = np.empty(len(one))
    for start in range(0, len(one), MADE_ROWS):
        rows = slice(start, start + MADE_ROWS)
        left = one[rows].astype(np.float64)
        right = left if other is one else other[rows].astype(np.float64)
        found[rows] = np.vecdot(left, right)
    return found


def top_k_apart(
    recipe: AnyRecipe,
    vector: npt.NDArray[np.float32],
    features: Mapping[str, Rows],
    own: OwnProducts,
    k: int,
    excluded: Ints,
) -> TopK:
    """The k images that `top_k` finds in the gallery vectors of a recipe.

    Where all features have float16 copies, these find the candidates and the rows themselves rank
    them; the ranking is that of all rows.

    Args:
        recipe: How the method ranks.
        vector: (1, D) from its `query_vectors`.
        features: Gallery feature -> its (G, d) rows.
        own: The products of an image's own features.
        k: Images to return, no more than are left.
        excluded: (1, E) gallery indices that are not returned, -1 for none.

    Raises:
        ValueError: for disagreeing shapes, too large k, or features that are not finite.
    """
    check_features(vector, "queries")
    weighed = [(1.0, recipe)] if isinstance(recipe, Recipe) else recipe.parts
    widths = [features[next(iter(part.gallery))].matrix.shape[1] for _, part in weighed]
    asked = np.split(vector[0], np.cumsum(widths)[:-1])
    parts = [
        _Part(weight**0.5, part, query, features, own)
        for query, (weight, part) in zip(asked, weighed, strict=True)
    ]
    used = {name: part.query for part in parts for name in part.recipe.gallery}
    for name, query in used.items():
        check_features(features[name].matrix, name, len(query))
    count = len(next(iter(features.values())))
    if _MANY * k <= count and all(features[name].halves is not None for name in used):
        found = _by_candidates(parts, count, k, excluded)
        if found is not None:
            return found
    best = RunningTopK(k, excluded)
    for rows in _blocks(count, WIDE_BLOCK):
        best.update(_row(_scores(parts, rows)))
    return best.result()


def _by_candidates(parts: Sequence[_Part], count: int, k: int, excluded: Ints) -> TopK | None:
    """The exact ranking of the images that can be among the k best, as the copies have it.

    None where the copies cannot tell: too many images are near the k-th, or a number is not finite.
    """
    lowest = RunningTopK(k, excluded)  # the k-th of these is at most the k-th score
    most = 4 * k + count // _FEW
    places = np.empty(0, np.int64)
    rough, slack = np.empty(0), np.empty(0)
    for rows in _blocks(count, ROUGH_BLOCK):
        pairs = [part.rough(rows) for part in parts]
        found, reach = (functools.reduce(np.add, each) for each in zip(*pairs, strict=True))
        reach = reach + _ROUNDING * np.abs(found)
        if not np.isfinite(found).all():
            return None
        lowest.update(_row(found - reach))
        here = np.flatnonzero(found + reach >= lowest.least)
        places = np.concatenate([places, here + rows.start])
        rough, slack = np.concatenate([rough, found[here]]), np.concatenate([slack, reach[here]])
        if len(places) > most:
            kept = rough + slack >= lowest.least
            places, rough, slack = places[kept], rough[kept], slack[kept]
            if len(places) > most:
                return None
    kept = (rough + slack >= lowest.least) & ~np.isin(places, excluded)
    places, rough, slack = places[kept], rough[kept], slack[kept]
    if len(places) < k:
        return None
    exact = _scores(parts, places)
    if not (np.abs(exact - rough) <= slack).all():
        logger.warning("float16 copies of features are not what they should be; they are not used")
        return None
    best = RunningTopK(k)
    best.update(_row(exact))
    found = best.result()
    return TopK(places[found.indices], found.scores)


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _scores(parts: Sequence[_Part], rows: slice | Ints) -> Doubles:
    """(g,) similarities of some images."""
    return functools.reduce(np.add, (part.scores(rows) for part in parts))


def _row(scores: Doubles) -> torch.Tensor:
    return torch.from_numpy(scores.astype(np.float32)[None])


@dataclass(frozen=True)
class _Part:
    """One recipe of a query, with its share of the whole similarity.

    Attributes:
        share: What its similarities are multiplied with.
        query: (d,).
    """

    share: float
    recipe: Recipe
    query: npt.NDArray[np.float32]
    features: Mapping[str, Rows]
    own: OwnProducts

    @functools.cached_property
    def half(self) -> HalfQuery:
        """The query in float16."""
        return HalfQuery.of(self.query)

    def scores(self, rows: slice | Ints) -> Doubles:
        """(g,) similarities of some images."""
        factors, lengths, whole = self._fusion(rows)
        scores: Any = 0.0
        for name, factor in factors.items():
            scores = scores + factor * _products(self.query, self.features[name], rows)
        if whole is not None:
            cancelled = np.flatnonzero(whole < _CANCELLED * lengths)
            scores = scores / (whole + (whole < TINY))
            for start in range(0, len(cancelled), MADE_ROWS):
                few = cancelled[start : start + MADE_ROWS]
                at = few + rows.start if isinstance(rows, slice) else rows[few]
                shown = {name: self.features[name][at] for name in factors}
                scores[few] = products(self.query, self.recipe.gallery_vectors(shown))
        return self.share * np.asarray(scores)

    @np.errstate(over="ignore", invalid="ignore")  # of numbers that have no half
    def rough(self, rows: slice) -> tuple[Doubles, Doubles]:
        """(g,) similarities by the copies, and how far each may lie from that of the rows."""
        factors, lengths, whole = self._fusion(rows)
        scores: Any = 0.0
        slack: Any = 0.0
        for name, factor in factors.items():
            found = _rough_products(self.half, self.features[name], rows)
            scores = scores + factor * found
            length = self.own(name, name)[rows] ** 0.5
            slack = slack + np.abs(factor) * self.half.errors(found, length)
        if whole is not None:
            divisor = whole + (whole < TINY)
            scores, slack = scores / divisor, slack / divisor
            slack[whole < _LOST * lengths] = np.inf
        return self.share * scores, self.share * slack

    def _fusion(self, rows: slice | Ints) -> tuple[dict[str, Any], Any, Doubles | None]:
        """The factor of each feature, the length of all parts, and that of their sum.

        The last is None where similarities are not divided by it.
        """
        factors: dict[str, Any] = {}
        lengths: Any = 0.0
        for name, weight in self.recipe.gallery.items():
            length = self.own(name, name)[rows] ** 0.5
            is_unit = self.recipe.norms.get(name, "unit") == "unit"
            factors[name] = weight / (length + (length < TINY)) if is_unit else np.float64(weight)
            lengths = lengths + np.abs(factors[name]) * length
        if self.recipe.similarity != "cosine":
            return factors, lengths, None
        square: Any = 0.0
        for one, factor in factors.items():
            for other, second in factors.items():
                square = square + factor * second * self.own(*sorted((one, other)))[rows]
        return factors, lengths, np.maximum(square, 0.0) ** 0.5


def _products(
    query: npt.NDArray[np.float32], features: Rows, rows: slice | Ints
) -> npt.NDArray[np.float32]:
    places: Any = rows if features.places is None else features.places[rows]
    if isinstance(places, slice):
        return products(query, features.matrix[places])
    pieces = [places[start : start + MADE_ROWS] for start in range(0, len(places), MADE_ROWS)]
    return np.concatenate([products(query, features.matrix[each]) for each in pieces])


def _rough_products(half: HalfQuery, features: Rows, rows: slice) -> Doubles:
    halves: Any = features.halves and features.halves.vectors
    if features.places is None:
        return half.products(halves[rows])
    places = features.places[rows]
    first, last = places.min(), places.max() + 1
    if last - first <= _SPARSE * len(places):
        return half.products(halves[first:last])[places - first]
    pieces = [places[start : start + MADE_ROWS] for start in range(0, len(places), MADE_ROWS)]
    return np.concatenate([half.products(halves[each]) for each in pieces])
