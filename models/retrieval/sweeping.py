"""The best images under many weights, multiplying features once: of fused parts or of spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from models.retrieval.search import (
    Features,
    Ints,
    RunningTopK,
    TopK,
    as_float32,
    check_features,
    products_of_each,
)

Similarity = Literal["cosine", "dot"]


class Sliceable(Protocol):
    """Gallery rows that are there, mapped, or made when a block of them is asked for."""

    def __len__(self) -> int:
        """G, the number of rows."""

    def __getitem__(self, rows: slice, /) -> Features:
        """(g, d) some of them."""


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """Weights of the base query features and of the base gallery features, in their order."""

    query: tuple[float, ...]
    gallery: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BaseSimilarities:
    """The dot products that every linear fusion of the same features needs.

    Attributes:
        cross: (A, B, Q, G) dot products of every query feature with every gallery feature.
        query_gram: (Q, A, A) dot products among one query's features.
        gallery_gram: (G, B, B) dot products among one image's features.
    """

    cross: npt.NDArray[np.float32]
    query_gram: npt.NDArray[np.float64]
    gallery_gram: npt.NDArray[np.float64]


def base_similarities(queries: Sequence[Features], gallery: Sequence[Features]) -> BaseSimilarities:
    """Dot products from which every linear fusion follows.

    Args:
        queries: A base query features, each (Q, d).
        gallery: B base gallery features, each (G, d); for a large gallery one block of it, as
            the result holds A x B x Q x G numbers.
    """
    for features, what in ((queries, "queries"), (gallery, "gallery")):
        if not features or any(each.shape != features[0].shape for each in features):
            raise ValueError(f"{what}: give base features of one shape.")
        for each in features:
            check_features(each, what, queries[0].shape[1])
    left, right = [as_float32(each) for each in queries], [as_float32(each) for each in gallery]
    cross = np.empty((len(left), len(right), len(left[0]), len(right[0])), np.float32)
    for a, query in enumerate(left):
        for b, image in enumerate(right):
            cross[a, b] = products_of_each(query, image)
    return BaseSimilarities(cross, _gram(left), _gram(right))


def fused_scores(
    base: BaseSimilarities, weights: FusionWeights, similarity: Similarity = "cosine"
) -> npt.NDArray[np.float32]:
    """(Q, G) similarity of the fused vectors, without making them (CVSI eq. 8 to 10).

    With q = sum_a u_a q_a and t = sum_b v_b t_b, q.t = sum_ab u_a v_b (q_a . t_b), and the
    norms follow from the Gram matrices in the same way.

    Args:
        base: From ``base_similarities``.
        weights: One weight for each base feature; 0 leaves it out.
        similarity: ``cosine``, or ``dot`` of the fused vectors as they come.

    Raises:
        ValueError: for the wrong number of weights, or a fused vector of length zero.
    """
    u, v = np.asarray(weights.query, np.float64), np.asarray(weights.gallery, np.float64)
    if (len(u), len(v)) != base.cross.shape[:2]:
        raise ValueError(
            f"{len(u)} query and {len(v)} gallery weights for {base.cross.shape[0]} query and "
            f"{base.cross.shape[1]} gallery features; give one each."
        )
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity={similarity!r}; allowed are 'cosine' and 'dot'.")
    scores = np.zeros(base.cross.shape[2:], np.float32)
    for a, b in np.argwhere(np.outer(u, v)):
        scores += np.float32(u[a] * v[b]) * base.cross[a, b]
    if similarity == "cosine":
        scores /= _fused_norms(base.query_gram, u, "query")[:, None]
        scores /= _fused_norms(base.gallery_gram, v, "gallery")
    return scores


def sweep_top_k(
    queries: Sequence[Features],
    gallery: Sequence[Sliceable],
    sweep: Sequence[FusionWeights],
    k: int,
    *,
    similarity: Similarity = "cosine",
    excluded: Ints | None = None,
    gallery_block: int = 4096,
) -> list[TopK]:
    """The top k under each of several weights, multiplying features once.

    Args:
        queries: A base query features, each (Q, d).
        gallery: B base gallery features, each (G, d): arrays, memory maps, or made in blocks.
        sweep: The weights to try.
        k: How many to return.
        similarity: As in ``fused_scores``.
        excluded: As in ``top_k``.
        gallery_block: Gallery rows at a time; memory is A x B x Q x this many numbers.
    """
    running = [RunningTopK(k, excluded) for _ in sweep]
    for start in range(0, len(gallery[0]) if gallery else 0, gallery_block):
        base = base_similarities(queries, [each[start : start + gallery_block] for each in gallery])
        for weights, best in zip(sweep, running, strict=True):
            best.update(torch.from_numpy(fused_scores(base, weights, similarity)))
    return [best.result() for best in running]


def blended_top_k(
    parts: Sequence[tuple[Features, Sliceable]],
    sweep: Sequence[Sequence[float]],
    k: int,
    *,
    excluded: Ints | None = None,
    gallery_block: int = 4096,
) -> list[TopK]:
    """The top k by weighted sums of several dot products, multiplying features once.

    Args:
        parts: (queries (Q, d_i), gallery (G, d_i)) of each space, unit vectors for cosine.
        sweep: The weightings to try, each one weight a part.
        k: How many to return.
        excluded: As in ``top_k``.
        gallery_block: Gallery rows at a time; memory is parts x Q x this many numbers.
    """
    for queries, _ in parts:
        check_features(queries, "queries")
    running = [RunningTopK(k, excluded) for _ in sweep]
    for start in range(0, len(parts[0][1]), gallery_block):
        blocks = [gallery[start : start + gallery_block] for _, gallery in parts]
        for (queries, _), block in zip(parts, blocks, strict=True):
            check_features(block, "gallery", queries.shape[1])
        products = [
            products_of_each(own[0], block) for own, block in zip(parts, blocks, strict=True)
        ]
        for weights, best in zip(sweep, running, strict=True):
            scores = np.zeros_like(products[0])
            for weight, found in zip(weights, products, strict=True):
                scores += np.float32(weight) * found
            best.update(torch.from_numpy(scores))
    return [best.result() for best in running]


def _gram(features: Sequence[Features]) -> npt.NDArray[np.float64]:
    """(rows, F, F) dot products among the F features of each row."""
    return np.stack(
        [
            np.stack([np.einsum("nd,nd->n", a, b, dtype=np.float64) for b in features], axis=1)
            for a in features
        ],
        axis=1,
    )


def _fused_norms(
    gram: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], what: str
) -> npt.NDArray[np.float32]:
    squared = np.einsum("nij,i,j->n", gram, weights, weights)
    # Below this the sum has cancelled out and its direction is rounding noise.
    floor = 1e-12 * np.einsum("nii,i,i->n", gram, weights, weights)
    if not (squared > floor).all():
        row = int(np.argmin(squared - floor))
        raise ValueError(f"{what} {row}: the weighted features cancel out; it has no cosine.")
    return np.sqrt(squared).astype(np.float32)
