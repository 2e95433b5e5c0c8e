"""What each feature adds to a similarity, and methods with other weights.

With q = sum_f w_f u_f over query features and t = sum_g v_g over weighted gallery features, the
similarity <q, t / |t|> is the sum of <w_f u_f, t / |t|> over f, and of <q, v_g / |t|> over g.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.retrieval.fusion import unit
from models.retrieval.method_records import AnyRecipe, LateFusion, Recipe
from models.spelling import unknown

if TYPE_CHECKING:
    from models.retrieval.gallery import Rows

Floats = np.ndarray[Any, Any]

COMBINED: Final = "combined"
"""The query of a method that makes it by a function: it has no parts of its own."""
LARGEST: Final = 10.0
"""Largest weight, either sign."""


@dataclass(frozen=True)
class Weights:
    """Weights in place of a method's own.

    Attributes:
        query: Query feature -> weight.
        gallery: Gallery feature -> weight.
    """

    query: Mapping[str, float] = field(default_factory=dict)
    gallery: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.query or self.gallery)


@dataclass(frozen=True)
class Contribution:
    """The terms of one image's similarity; either side sums to it.

    Attributes:
        query: Query feature -> its term.
        gallery: Gallery feature -> its term.
    """

    query: Mapping[str, float]
    gallery: Mapping[str, float]


def reweighed(recipe: AnyRecipe, weights: Weights) -> AnyRecipe:
    """A recipe with other weights for some of its features.

    Raises:
        ValueError: a name that it does not weigh, a weight that is not a number from -10 to 10, a
            side without weight, or a recipe whose query a function makes.
    """
    for given, known in ((weights.query, recipe.query), (weights.gallery, recipe.gallery)):
        for name, weight in given.items():
            if name not in known:
                raise ValueError(unknown("feature of this method", name, known))
            if not (math.isfinite(weight) and abs(weight) <= LARGEST):
                raise ValueError(
                    f"the weight of {name} is a number from {-LARGEST:g} to {LARGEST:g}, not "
                    f"{weight}"
                )
    if isinstance(recipe, LateFusion):
        return replace(recipe, parts=tuple((w, _own(part, weights)) for w, part in recipe.parts))
    return _own(recipe, weights)


def _own(recipe: Recipe, weights: Weights) -> Recipe:
    query = {name: weights.query.get(name, own) for name, own in recipe.query.items()}
    gallery = {name: weights.gallery.get(name, own) for name, own in recipe.gallery.items()}
    if recipe.combine is not None and query != dict(recipe.query):
        raise ValueError(
            "a function makes this method's query of its features, so they have no weights to move"
        )
    return replace(recipe, query=query, gallery=gallery)


def contributions(
    recipe: AnyRecipe,
    made: Mapping[str, Floats],
    features: Mapping[str, Rows],
    places: Sequence[int],
) -> list[Contribution]:
    """The terms of the similarities between one query and some images.

    Args:
        recipe: How the method ranks.
        made: Query features (1, d) by name.
        features: Gallery features by name.
        places: Places of the images in the gallery.
    """
    at = np.asarray(places, dtype=np.int64)
    query, gallery = _terms(recipe, made, features, at)
    return [
        Contribution(
            {name: float(own[i]) for name, own in query.items()},
            {name: float(own[i]) for name, own in gallery.items()},
        )
        for i in range(len(at))
    ]


def _terms(
    recipe: AnyRecipe, made: Mapping[str, Floats], features: Mapping[str, Rows], at: Floats
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Feature -> (n,) terms, of either side."""
    if isinstance(recipe, LateFusion):
        sides: tuple[dict[str, Floats], dict[str, Floats]] = ({}, {})
        for weight, part in recipe.parts:
            length = float(np.linalg.norm(part.query_vectors(made, features)))
            for side, own in zip(sides, _terms(part, made, features, at), strict=True):
                for name, terms in own.items():
                    side[name] = side.get(name, 0.0) + terms * (weight / length if length else 0.0)
        return sides
    rows = {name: features[name][at].astype(np.float64) for name in recipe.gallery}
    parts = {name: _weighed(recipe, name, own, recipe.gallery) for name, own in rows.items()}
    target = np.sum(list(parts.values()), axis=0)
    length = np.linalg.norm(target, axis=1, keepdims=True)
    scale = 1.0 / np.where(length > 0, length, 1.0) if recipe.similarity == "cosine" else 1.0
    if recipe.combine is not None:
        asked = {COMBINED: recipe.query_vectors(made, features)[0]}
    else:
        asked = {name: _weighed(recipe, name, made[name], recipe.query)[0] for name in recipe.query}
    whole = np.sum(list(asked.values()), axis=0)
    query = {name: (target * scale) @ vector for name, vector in asked.items()}
    return query, {name: (part * scale) @ whole for name, part in parts.items()}


def _weighed(recipe: Recipe, name: str, own: Floats, weights: Mapping[str, float]) -> Floats:
    scaled = own if recipe.norms.get(name, "unit") == "as_is" else unit(own)
    return weights[name] * scaled
