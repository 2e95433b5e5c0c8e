"""A gate: a linear model of the weights of each query. `query_weights` has its signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.retrieval.method_records import AnyRecipe, LateFusion, Recipe

Floats: TypeAlias = "npt.NDArray[np.float64]"


def spaces_of(recipe: AnyRecipe) -> tuple[Recipe, ...]:
    """The recipes of a method, each in a space of its own.

    Raises:
        ValueError: A recipe combines its features by a function, or ranks by the dot product.
    """
    spaces = recipe_parts(recipe)
    if any(space.combine is not None or space.similarity != "cosine" for space in spaces):
        raise ValueError(
            "weights for each query need a method that sums its features and ranks by the cosine"
        )
    return spaces


def spaces_apart(recipe: AnyRecipe) -> LateFusion:
    """The spaces end to end, each with weight 1: what vectors of weighed parts are ranked by."""
    return LateFusion(tuple((1.0, space) for space in spaces_of(recipe)))


def recipe_parts(recipe: AnyRecipe) -> tuple[Recipe, ...]:
    """The one recipe, or those of a late fusion."""
    return tuple(p for _, p in recipe.parts) if isinstance(recipe, LateFusion) else (recipe,)


def part_names(recipe: AnyRecipe) -> tuple[str, ...]:
    """The query features that are weighed apart, in the order of weights."""
    return tuple(name for space in spaces_of(recipe) for name in space.query)


@dataclass(frozen=True)
class Gate:
    """What says the weights of each query of one benchmark family.

    Attributes:
        parts: The A query features that are weighed.
        signals: The F signals that are read.
        mean: (F,) of the signals over the training triplets.
        scale: (F,) their standard deviations; 1 where a signal did not vary.
        bias: (A,) b.
        matrix: (A, F) B.
        fixed: (A,) the best weights for all training queries alike, for comparison.
    """

    parts: tuple[str, ...]
    signals: tuple[str, ...]
    mean: Floats
    scale: Floats
    bias: Floats
    matrix: Floats
    fixed: Floats

    def weights(self, found: Mapping[str, Floats]) -> Floats:
        """(Q, A) positive weights that sum to 1, from `signals`."""
        return softmax(self.bias + self.standardised(found) @ self.matrix.T)

    def standardised(self, found: Mapping[str, Floats]) -> Floats:
        """(Q, F) signals in the units of the training triplets."""
        values = np.stack([found[name] for name in self.signals], axis=1)
        return (values - self.mean) / self.scale


def require_parts(gate: Gate, recipe: AnyRecipe, where: str) -> None:
    """Refuse a gate that weighs other parts than a method has.

    Raises:
        ValueError: The message names both.
    """
    if gate.parts != part_names(recipe):
        raise ValueError(
            f"{where} weighs {', '.join(gate.parts)}, the method sums "
            f"{', '.join(part_names(recipe))}: train it for this method (cirflow run train-weights)"
        )


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
