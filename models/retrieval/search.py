"""Exact nearest images in bounded memory: blocked products, a running top-k, linear fusion.

Rankings are deterministic: equal scores follow gallery order, whatever the block sizes and
the device (``torch.topk`` promises neither). Arrays in and out are numpy; torch works inside.
Similarity is the dot product of the rows given: pass unit vectors for cosine. Features in float16
are multiplied as float32; torch converts them, as numpy takes many times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

# Score block: 1,024 x 16,384 float32 = 64 MiB; a gallery block at d = 1,280 is 80 MiB.
QUERY_BLOCK = 1024
GALLERY_BLOCK = 16384
# For few queries a score block is wider, as each costs a dozen small calls, and float16 is
# converted in pieces that stay in a core's cache, where the product finds them.
WIDE_BLOCK = 16 * GALLERY_BLOCK
FEW_QUERIES = 32
CACHED_ROWS = 512

Features = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Similarity = Literal["cosine", "dot"]


class Sliceable(Protocol):
    """Gallery rows that are there, mapped, or made when a block of them is asked for."""

    def __len__(self) -> int:
        """G, the number of rows."""

    def __getitem__(self, rows: slice, /) -> Features:
        """(g, d) some of them."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The best k gallery images of every query: (Q, k) indices and scores, best first."""

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


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


class RunningTopK:
    """The top k of some queries over score blocks that arrive in gallery order."""

    def __init__(self, k: int, excluded: Ints | None = None) -> None:
        """Args: ``k`` to keep; ``excluded`` (B,) or (B, E) gallery indices, -1 for none."""
        if k < 1:
            raise ValueError(f"k={k}; ask for one image at least.")
        self._k = k
        self._excluded = (
            None if excluded is None else np.asarray(excluded).reshape(len(excluded), -1)
        )
        self._seen = 0
        self._best: TopK | None = None

    def update(self, scores: torch.Tensor) -> None:
        """Merge the next (B, g) float32 block; excluded entries are overwritten in place.

        Raises:
            ValueError: when scores are NaN or +inf.
        """
        if self._excluded is not None:
            _exclude(scores, self._excluded, self._seen)
        values, columns = _top_columns(scores, self._k)
        columns = columns + self._seen
        self._seen += scores.shape[1]
        if self._best is not None:
            values = np.concatenate([self._best.scores, values], axis=1)
            columns = np.concatenate([self._best.indices, columns], axis=1)
        # Equal scores stand in gallery order here, and a stable sort leaves them so.
        order = np.argsort(-values, axis=1, kind="stable")[:, : self._k]
        self._best = TopK(
            np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
        )

    def result(self) -> TopK:
        """The ranking over everything seen.

        Raises:
            ValueError: when a query has fewer than k images left, or a score is -inf.
        """
        left = 0 if self._best is None else int(np.isfinite(self._best.scores).sum(axis=1).min())
        if self._best is None or left < self._k:
            raise ValueError(
                f"k={self._k}, but a query has only {left} of {self._seen} gallery images left "
                "after exclusion. Ask for fewer (or check the features for infinities)."
            )
        return self._best


def top_k(
    queries: Features,
    gallery: Features | Iterable[Features],
    k: int,
    *,
    excluded: Ints | None = None,
    device: str = "cpu",
    query_block: int = QUERY_BLOCK,
    gallery_block: int | None = None,
) -> TopK:
    """The k gallery rows with the largest dot product, exactly, ties by gallery order.

    Memory beyond the arguments is one score block, one gallery block in float32 and the
    results; the gallery may be a memory map, or a stream that is read once.

    Args:
        queries: (Q, d) float16 or float32; products are float32.
        gallery: (G, d) float16 or float32, or an iterable of (g, d) blocks in gallery order.
        k: How many to return; no more than the images left after exclusion.
        excluded: (Q,) or (Q, E) gallery indices never returned for a query; -1 for none.
        device: Where to multiply, such as ``cpu`` or ``cuda``.
        query_block: Rows of queries per product.
        gallery_block: Rows of an array gallery per score block (a stream brings its own blocks);
            None: as many as suit the queries.

    Raises:
        ValueError: for disagreeing shapes, too large k, or features that are not finite.
    """
    if gallery_block is None:
        few = len(queries) <= FEW_QUERIES and device == "cpu"
        gallery_block = WIDE_BLOCK if few else GALLERY_BLOCK
    if query_block < 1 or gallery_block < 1:
        raise ValueError(f"blocks need one row at least, given {query_block} and {gallery_block}.")
    _check_features(queries, "queries")
    if excluded is not None and len(excluded) != len(queries):
        raise ValueError(f"excluded has {len(excluded)} rows, the queries are {len(queries)}.")
    rows = [slice(start, start + query_block) for start in range(0, len(queries), query_block)]
    running = [RunningTopK(k, None if excluded is None else excluded[each]) for each in rows]
    held = _to_torch(queries, device)
    for block in _gallery_blocks(gallery, gallery_block):
        _check_features(block, "gallery", queries.shape[1])
        if len(queries) <= min(FEW_QUERIES, query_block) and device == "cpu":
            running[0].update(_few_scores(held, block))
            continue
        images = _to_torch(block, device)
        for each, best in zip(rows, running, strict=True):
            best.update(held[each] @ images.T)
    return _stack([best.result() for best in running])


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
            _check_features(each, what, queries[0].shape[1])
    left, right = [as_float32(each) for each in queries], [as_float32(each) for each in gallery]
    cross = np.empty((len(left), len(right), len(left[0]), len(right[0])), np.float32)
    for a, query in enumerate(left):
        for b, image in enumerate(right):
            np.matmul(query, image.T, out=cross[a, b])
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
        _check_features(queries, "queries")
    running = [RunningTopK(k, excluded) for _ in sweep]
    for start in range(0, len(parts[0][1]), gallery_block):
        blocks = [gallery[start : start + gallery_block] for _, gallery in parts]
        for (queries, _), block in zip(parts, blocks, strict=True):
            _check_features(block, "gallery", queries.shape[1])
        products = np.stack(
            [own[0] @ as_float32(block).T for own, block in zip(parts, blocks, strict=True)]
        )
        for weights, best in zip(sweep, running, strict=True):
            scores = np.tensordot(np.asarray(weights, np.float32), products.astype(np.float32), 1)
            best.update(torch.from_numpy(scores))
    return [best.result() for best in running]


def _top_columns(
    scores: torch.Tensor, k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Scores and columns of each row's k best (all if fewer), in column order.

    Only the pass over the block is torch's. The few numbers it leaves are handled by numpy:
    a dozen parallel torch calls on tiny tensors cost more than a product on a busy machine.
    """
    k = min(k, scores.shape[1])
    found = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    values, columns = found.values.cpu().numpy(), found.indices.cpu().numpy()
    if not (values[:, 0] < np.inf).all():  # topk puts NaN first
        raise ValueError("scores are NaN or infinite; check that all features are finite.")
    if values.shape[1] > k:
        # Equal scores on both sides of the cut: topk chose among them arbitrarily.
        torn = np.flatnonzero(values[:, k] == values[:, k - 1])
        values, columns = values[:, :k], columns[:, :k]
        if len(torn):
            rows = scores[torch.from_numpy(torn).to(scores.device)]
            kept = _first_of_level(rows, rows.new_tensor(values[torn, -1:]), k)
            columns[torn] = kept.cpu().numpy()
            values[torn] = rows.gather(1, kept).cpu().numpy()
    order = np.argsort(columns, axis=1)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _first_of_level(scores: torch.Tensor, lowest: torch.Tensor, k: int) -> torch.Tensor:
    """(B, k) columns above ``lowest``, filled up with the first columns equal to it."""
    above, level = scores > lowest, scores == lowest
    room = k - above.sum(dim=1, keepdim=True)
    kept = above | (level & (level.cumsum(dim=1) <= room))
    return torch.nonzero(kept)[:, 1].view(len(scores), k)


def _exclude(scores: torch.Tensor, excluded: Ints, start: int) -> None:
    """Write -inf where an excluded gallery index falls into this block of columns."""
    inside = (excluded >= start) & (excluded < start + scores.shape[1])
    rows, entries = np.nonzero(inside)
    columns = torch.from_numpy(excluded[rows, entries].astype(np.int64) - start)
    scores[torch.from_numpy(rows).to(scores.device), columns.to(scores.device)] = -torch.inf


def _gallery_blocks(gallery: Features | Iterable[Features], size: int) -> Iterator[Features]:
    if not isinstance(gallery, np.ndarray):
        yield from gallery
        return
    for start in range(0, len(gallery), size):
        yield gallery[start : start + size]


def _few_scores(queries: torch.Tensor, gallery: Features) -> torch.Tensor:
    """(Q, g) products of few queries, piece by piece; float16 is converted into one buffer."""
    scores = torch.empty((len(queries), len(gallery)))
    wide = gallery.dtype != np.float16
    step = GALLERY_BLOCK if wide else CACHED_ROWS
    buffer = torch.empty((0 if wide else step, gallery.shape[1]))
    for start in range(0, len(gallery), step):
        images = _wrapped(gallery[start : start + step])
        if not wide:
            images = buffer[: len(images)].copy_(images)
        scores[:, start : start + step] = queries @ images.T
    return scores


def as_float32(features: Features) -> npt.NDArray[np.float32]:
    """The features as float32; themselves if they are."""
    return _to_torch(features, "cpu").numpy()


def _to_torch(features: Features, device: str) -> torch.Tensor:
    """float32 on the device, converted there; copied only if it must be."""
    return _wrapped(features).to(device).float()


def _wrapped(features: Features) -> torch.Tensor:
    """The features themselves as a tensor of float16 or float32; a copy of others."""
    if features.dtype not in (np.float16, np.float32):
        features = features.astype(np.float32)
    if not features.flags.writeable:  # torch warns of such memory
        features = features.copy()
    return torch.from_numpy(features)


def _check_features(features: Features, what: str, dim: int | None = None) -> None:
    if features.ndim != 2 or 0 in features.shape or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(
            f"{what}: expected a non-empty (rows, dim) float array, given {features.dtype}"
            f"{features.shape}."
        )
    if dim is not None and features.shape[1] != dim:
        raise ValueError(f"{what}: dim {features.shape[1]}, the queries have {dim}. One backbone?")


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


def _stack(parts: Sequence[TopK]) -> TopK:
    return TopK(
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
