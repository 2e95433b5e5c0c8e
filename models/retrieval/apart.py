"""Exact search by one query without making gallery vectors: each feature is multiplied apart.

With t = sum_g c_g x_g, where c_g is a feature's weight, divided by |x_g| where the feature counts
as a unit vector,

    cos(q, t) |q| = sum_g c_g <q, x_g> / |t|,    |t|^2 = sum_gh c_g c_h <x_g, x_h>.

The products <x_g, x_h> of an image's own features follow from no query and no weight, so that they
are made once for a gallery, and moved weights cost what a search costs. Scores differ from those
of made vectors by rounding: by 1e-6 at most for unit queries and positive weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from models.retrieval.fusion import TINY
from models.retrieval.gallery import MADE_ROWS, Rows
from models.retrieval.method_records import AnyRecipe, Recipe
from models.retrieval.search import (
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

_CANCELLED = 0.05
"""Where parts cancel to less than this share of their lengths, the vector is made: digits are
lost."""


def own_products(one: Rows, other: Rows) -> Doubles:
    """(G,) dot products of two features of the same image, in double precision."""
    found = np.empty(len(one))
    for start in range(0, len(one), MADE_ROWS):
        rows = slice(start, start + MADE_ROWS)
        left = one[rows].astype(np.float64)
        right = left if other is one else other[rows].astype(np.float64)
        found[rows] = np.einsum("nd,nd->n", left, right)
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
    parts = [(1.0, recipe)] if isinstance(recipe, Recipe) else recipe.parts
    widths = [features[next(iter(part.gallery))].matrix.shape[1] for _, part in parts]
    asked = np.split(vector[0], np.cumsum(widths)[:-1])
    best = RunningTopK(k, excluded)
    count = len(next(iter(features.values())))
    for start in range(0, count, WIDE_BLOCK):
        rows = slice(start, min(start + WIDE_BLOCK, count))
        scores: Doubles = np.zeros(rows.stop - start)
        for query, (weight, part) in zip(asked, parts, strict=True):
            scores += weight**0.5 * _scores(part, query, features, own, rows)
        best.update(torch.from_numpy(scores.astype(np.float32)[None]))
    return best.result()


def _scores(
    recipe: Recipe,
    query: npt.NDArray[np.float32],
    features: Mapping[str, Rows],
    own: OwnProducts,
    rows: slice,
) -> Doubles:
    """(g,) similarities of some images."""
    factors: dict[str, Any] = {}
    lengths: Any = 0.0
    scores: Any = 0.0
    for name, weight in recipe.gallery.items():
        length = own(name, name)[rows] ** 0.5
        is_unit = recipe.norms.get(name, "unit") == "unit"
        factors[name] = weight / (length + (length < TINY)) if is_unit else np.float64(weight)
        lengths = lengths + np.abs(factors[name]) * length
        scores = scores + factors[name] * _products(query, features[name], name, rows)
    if recipe.similarity == "cosine":
        square: Any = 0.0
        for one, factor in factors.items():
            for other, second in factors.items():
                square = square + factor * second * own(*sorted((one, other)))[rows]
        whole = np.maximum(square, 0.0) ** 0.5
        cancelled = np.flatnonzero(whole < _CANCELLED * lengths)
        scores = scores / (whole + (whole < TINY))
        for start in range(0, len(cancelled), MADE_ROWS):
            few = cancelled[start : start + MADE_ROWS]
            shown = {name: features[name][rows.start + few] for name in recipe.gallery}
            scores[few] = recipe.gallery_vectors(shown) @ query
    return np.asarray(scores)


def _products(
    query: npt.NDArray[np.float32], features: Rows, name: str, rows: slice
) -> npt.NDArray[np.float32]:
    check_features(features.matrix, name, len(query))
    if features.places is None:
        return products(query, features.matrix[rows])
    places = features.places[rows]
    pieces = [places[start : start + MADE_ROWS] for start in range(0, len(places), MADE_ROWS)]
    return np.concatenate([products(query, features.matrix[each]) for each in pieces])
