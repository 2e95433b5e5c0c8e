"""Fusion weights for each query, from signals that need no label.

A method's query is a sum of parts, each with one weight for all queries of a benchmark (CVSI's
alpha and beta). Here a gate says the weights of each query:

    w(q) = softmax(b + B x(q)),    score(q, t) = sum_a w_a(q) cos(q_a, t),

where x(q) are signals of how each part searches the gallery: margins and entropy of its best
scores, the parts' agreement, and the agreement of the captions behind a mean. The gallery's own
weights stay as they are. A gate is trained by `models.retrieval.query_weights_training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from models.retrieval.fusion import unit
from models.retrieval.gallery import Gallery
from models.retrieval.gate import Floats, Gate, softmax, spaces_of
from models.retrieval.method_records import AnyRecipe
from models.retrieval.search import Ints, TopK, top_k

BEST: Final = 10
"""Images of each part's own ranking that its signals are read from."""
ENTROPY_SCALE: Final = 0.05
"""Temperature of the softmax over a part's best cosines."""


@dataclass(frozen=True)
class Parts:
    """The parts of some queries, ready to be weighed.

    Attributes:
        names: The A query features.
        vectors: (A, Q, D) each part with length one in its own space, and 0 in the others.
        lengths: (A, Q) their lengths before that: of a mean of unit vectors, how far these agree.
        spaces: (A,) the number of each part's space.
    """

    names: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    lengths: Floats
    spaces: tuple[int, ...]

    def fused(self, weights: Floats) -> npt.NDArray[np.float32]:
        """(Q, D) query vectors under (Q, A) weights."""
        return np.einsum("qa,aqd->qd", weights.astype(np.float32), self.vectors)


def parts_of(recipe: AnyRecipe, queries: Mapping[str, npt.NDArray[Any]]) -> Parts:
    """The parts of a method's queries.

    Args:
        recipe: The method on a benchmark family.
        queries: Feature -> (Q, d).
    """
    spaces = spaces_of(recipe)
    widths = [queries[next(iter(space.query))].shape[1] for space in spaces]
    starts = np.cumsum([0, *widths])
    named = [(number, name) for number, space in enumerate(spaces) for name in space.query]
    count = len(queries[named[0][1]])
    vectors = np.zeros((len(named), count, starts[-1]), np.float32)
    for place, (number, name) in enumerate(named):
        vectors[place, :, starts[number] : starts[number + 1]] = unit(queries[name])
    return Parts(
        names=tuple(name for _, name in named),
        vectors=vectors,
        lengths=np.stack([np.linalg.norm(queries[name], axis=1) for _, name in named]),
        spaces=tuple(number for number, _ in named),
    )


def images_of(recipe: AnyRecipe, gallery: Mapping[str, Any]) -> Gallery:
    """(G, D) vectors of gallery images, each space's with length one, made in blocks."""
    spaces = spaces_of(recipe)

    def make(features: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate([space.gallery_vectors(features) for space in spaces], axis=1)

    return Gallery(gallery, make)


@dataclass(frozen=True)
class Searched:
    """What each part finds by itself.

    Attributes:
        indices: (A, Q, k) gallery indices, best first.
        scores: (A, Q, k) their cosines.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


Search: TypeAlias = Callable[[npt.NDArray[np.float32], int, Ints], TopK]
"""From (Q, D) vectors, k and (Q,) images that are not returned to the k best."""


def search_parts(
    parts: Parts,
    images: Gallery,
    references: Ints,
    best: int = BEST,
    search: Search | None = None,
) -> Searched:
    """Search a gallery with each part; a query's reference is never among what it finds, except
    in a gallery of one image.

    Args:
        parts: Of the queries.
        images: The gallery.
        references: (Q,) gallery index of each reference, -1 where it is not in the gallery.
        best: Images to find, fewer in a smaller gallery.
        search: Finds what a search in `images` finds; None: that.
    """

    def naive(own: npt.NDArray[np.float32], k: int, excluded: Ints) -> TopK:
        return top_k(own, images.blocks(), k, excluded=excluded)

    if len(images) == 1:
        references = np.full_like(references, -1)
    count = max(1, min(best, len(images) - 1))
    found = [(search or naive)(own, count, references) for own in parts.vectors]
    return Searched(
        np.stack([each.indices for each in found]), np.stack([each.scores for each in found])
    )


def signals(parts: Parts, searched: Searched) -> dict[str, Floats]:
    """Signal -> (Q,) its value for each query; no target is read.

    - `top:a`, `gap:a`, `lead:a`: the best cosine of a part; how far it is above the second; and
      above the mean of the best ten.
    - `entropy:a`: of softmax(best cosines / 0.05), in nats.
    - `agreement:a`: the length of a part before it was scaled: of captions' mean, their agreement.
    - `overlap:a,b`: share of the best ten that two parts have in common.
    - `cosine:a,b`: of two parts in one space.
    """
    found: dict[str, Floats] = {}
    for place, name in enumerate(parts.names):
        best = searched.scores[place][:, :BEST].astype(np.float64)
        found[f"top:{name}"] = best[:, 0]
        found[f"gap:{name}"] = best[:, 0] - best[:, min(1, best.shape[1] - 1)]
        found[f"lead:{name}"] = best[:, 0] - best.mean(axis=1)
        found[f"entropy:{name}"] = _entropy(best / ENTROPY_SCALE)
        found[f"agreement:{name}"] = parts.lengths[place].astype(np.float64)
    for a, b in combinations(range(len(parts.names)), 2):
        pair = f"{parts.names[a]},{parts.names[b]}"
        one, other = searched.indices[a][:, :BEST], searched.indices[b][:, :BEST]
        shared = (one[:, :, None] == other[:, None, :]).any(axis=2).mean(axis=1)
        found[f"overlap:{pair}"] = shared.astype(np.float64)
        if parts.spaces[a] == parts.spaces[b]:
            cosine = np.einsum("qd,qd->q", parts.vectors[a], parts.vectors[b])
            found[f"cosine:{pair}"] = cosine.astype(np.float64)
    return found


def weighed(
    recipe: AnyRecipe,
    gate: Gate,
    queries: Mapping[str, npt.NDArray[Any]],
    gallery: Mapping[str, Any],
    references: Ints,
    search: Search | None = None,
) -> tuple[Parts, Gallery, Floats]:
    """The parts of some queries, the gallery, and the gate's (Q, A) weights.

    Args:
        recipe: The method on the gate's benchmark family.
        gate: It weighs the method's parts.
        queries: Feature -> (Q, d).
        gallery: Feature -> rows of the gallery.
        references: (Q,) gallery index of each reference, -1 where it is not in the gallery.
        search: As in `search_parts`.
    """
    parts, images = parts_of(recipe, queries), images_of(recipe, gallery)
    searched = search_parts(parts, images, references, search=search)
    return parts, images, gate.weights(signals(parts, searched))


def weight_grid(parts: int, step: float) -> Floats:
    """(W, A) all weights on a grid that sum to 1.

    Args:
        parts: A.
        step: Of the grid; 1 / step is taken as a whole number.
    """
    steps = round(1 / step)
    rows = _compositions(steps, parts)
    return np.array(rows, np.float64) / steps


def shuffled(weights: Floats, seed: int = 0) -> Floats:
    """(Q, A) the weights of other queries: what is left of a gate that knows no query."""
    return np.asarray(np.random.default_rng(seed).permutation(weights, axis=0))


def same_for_all(row: Floats, of: npt.NDArray[Any]) -> Floats:
    """(Q, A) one row of weights (A,) for each of the Q rows of an array."""
    return np.broadcast_to(row, (len(of), len(row)))


def best_of_grid(grid: Floats, values: Sequence[npt.NDArray[Any]], weights: Floats) -> Floats:
    """For each query the weights of a grid that score best; the given ones where none is better.

    Args:
        grid: (W, A).
        values: W times (Q,) the score of each query under each row; NaN counts as 0.
        weights: (Q, A) taken where all rows score 0.
    """
    scored = np.nan_to_num(np.stack(values))
    best = grid[scored.argmax(axis=0)]
    return np.where(scored.max(axis=0)[:, None] > 0, best, weights)


def _compositions(total: int, parts: int) -> Sequence[tuple[int, ...]]:
    if parts == 1:
        return [(total,)]
    return [
        (first, *rest)
        for first in range(total + 1)
        for rest in _compositions(total - first, parts - 1)
    ]


def _entropy(logits: Floats) -> Floats:
    share = softmax(logits)
    return np.asarray(-(share * np.log(np.maximum(share, 1e-12))).sum(axis=-1))
