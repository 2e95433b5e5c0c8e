"""Complementary fusion: weighted sums of features, and the similarity they are ranked by.

CVSI, equations 8 to 10:

    q   = alpha * q_m + beta * q_f + (1 - alpha - beta) * q_v        (8)
    t_k = gamma * t_c + (1 - gamma) * t_v                            (9)
    the answer is argmax_k cos(q, t_k)                               (10)

All functions are pure; they take numpy arrays or torch tensors, and return the kind that was given.
Features lie in the last axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, get_args

from models.spelling import agreed

if TYPE_CHECKING:
    import numpy as np
    import torch

Array = TypeVar("Array", "np.ndarray[Any, Any]", "torch.Tensor")

Similarity: TypeAlias = Literal["cosine", "dot"]
SIMILARITIES: Final[tuple[str, ...]] = get_args(Similarity)

PartNorm: TypeAlias = Literal["unit", "as_is"]
PART_NORMS: Final[tuple[str, ...]] = get_args(PartNorm)
"""`unit` scales a part to length one before it is summed; `as_is` leaves its length to count."""

TINY: Final = 1e-12
"""A vector that is shorter counts as zero."""


def unit(features: Array) -> Array:
    """Scale every vector to length one; a zero vector stays zero."""
    length = (features * features).sum(-1)[..., None] ** 0.5
    return cast(Array, features / (length + (length < TINY)))


def fuse(
    parts: Mapping[str, Array],
    weights: Mapping[str, float],
    norms: Mapping[str, PartNorm] | None = None,
) -> Array:
    """Weighted sum of named parts, each scaled to length one first unless `norms` says `as_is`.

    Args:
        parts: Features by name, of one shape. Parts without a weight are ignored.
        weights: Weight by name; a part of weight 0 may be missing.
        norms: Exceptions from `unit`, by name.

    Returns:
        The sum, not normalised.

    Raises:
        ValueError: A weighted part is missing, shapes differ, or all weights are 0.
    """
    used = {name: weight for name, weight in weights.items() if weight != 0.0}
    if not used:
        raise ValueError(f"every weight is 0 in {dict(weights)}; nothing is left to rank by")
    missing = sorted(used.keys() - parts.keys())
    if missing:
        raise ValueError(
            f"{agreed(len(missing), 'feature')} {', '.join(missing)} "
            f"{agreed(len(missing), 'has a weight but was', 'have a weight but were')} not made; "
            f"there are {', '.join(sorted(parts)) or 'none'}"
        )
    shapes = {name: tuple(parts[name].shape) for name in used}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"features to be summed differ in shape: {shapes}")
    total = None
    for name, weight in used.items():
        norm = (norms or {}).get(name, "unit")
        if norm not in PART_NORMS:
            raise ValueError(f"norm of {name} is {norm!r}; one of {', '.join(PART_NORMS)}")
        part = unit(parts[name]) if norm == "unit" else parts[name]
        term = part if weight == 1.0 else weight * part
        total = term if total is None else total + term
    return cast(Array, total)


def query_weights(alpha: float, beta: float) -> dict[str, float]:
    """Equation 8 as weights by feature name: edited captions, fine-grained text, reference."""
    rest = round(1.0 - alpha - beta, 12)
    if alpha < 0 or beta < 0 or rest < 0:
        raise ValueError(
            f"alpha {alpha}, beta {beta} and 1 - alpha - beta = {rest} must not be negative"
        )
    return {"edited_captions": alpha, "fine_grained": beta, "reference_image": rest}


def gallery_weights(gamma: float) -> dict[str, float]:
    """Equation 9 as weights by feature name: captions and image."""
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma lies between 0 and 1, not {gamma}")
    return {"captions": gamma, "image": round(1.0 - gamma, 12)}


def for_search(gallery: Array, similarity: Similarity) -> Array:
    """Gallery vectors such that a plain dot product ranks by `similarity`.

    The query's own length never changes its ranking, so only the gallery needs scaling.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity is {similarity!r}; one of {', '.join(SIMILARITIES)}")
    return unit(gallery) if similarity == "cosine" else gallery


def similarities(query: Array, gallery: Array, similarity: Similarity = "cosine") -> Array:
    """Full matrix of similarities (Q, G); for small sets and tests; `search` for others."""
    query = unit(query) if similarity == "cosine" else query
    return cast(Array, query @ for_search(gallery, similarity).T)
