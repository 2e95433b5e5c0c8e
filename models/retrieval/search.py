"""Exact nearest images in bounded memory: blocked products and a running top-k.

Rankings are deterministic: equal scores follow gallery order, whatever the block sizes and
the device (``torch.topk`` promises neither). Arrays in and out are numpy; torch works inside.
Similarity is the dot product of the rows given: pass unit vectors for cosine. Features in float16
are multiplied as float32; torch converts them, as numpy takes many times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.spelling import agreed

# Score block: 1,024 x 16,384 float32 = 64 MiB; a gallery block at d = 1,280 is 80 MiB.
QUERY_BLOCK = 1024
GALLERY_BLOCK = 16384
# For few queries a score block is wider, as each costs a dozen small calls, and float16 is
# converted in pieces of float32 that stay in a core's own cache, where the product finds them.
WIDE_BLOCK = 16 * GALLERY_BLOCK
FEW_QUERIES = 32
CACHED_BYTES = 1536 * 1024
EVEN = 64
"""Rows of a product of one query are a multiple of this. MKL sums those that are left over in
another order, and equal images would get unequal scores."""
SAME = 384
"""Rows of every product of several queries, for each of eight threads at most: MKL's order of sums
follows from a product's shape."""
ALIGNED = 16
WIDE_ALIGNED = 64
"""Bytes of which a product's rows begin at a multiple, of one query and of several: MKL also sums
in another order where they begin elsewhere."""
RUN = 64
"""Neighbouring scores of which the highest is compared first."""

_NOT_FINITE = "scores are NaN or infinite; check that all features are finite."

Features = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class TopK:
    """The best k gallery images of every query: (Q, k) indices and scores, best first."""

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


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
        found = None if self._best is None else _higher(scores, self._best.scores, self._k)
        values, columns = _top_columns(scores, self._k) if found is None else found
        columns = columns + self._seen
        self._seen += scores.shape[1]
        if self._best is not None and not columns.size:
            return
        if self._best is not None:
            values = np.concatenate([self._best.scores, values], axis=1)
            columns = np.concatenate([self._best.indices, columns], axis=1)
        # Equal scores stand in gallery order here, and a stable sort leaves them so.
        order = np.argsort(-values, axis=1, kind="stable")[:, : self._k]
        self._best = TopK(
            np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
        )

    @property
    def least(self) -> float:
        """The k-th best score so far, of one query; -inf while fewer are known."""
        if self._best is None or self._best.scores.shape[1] < self._k:
            return -np.inf
        return float(self._best.scores[0, -1])

    def result(self) -> TopK:
        """The ranking over everything seen.

        Raises:
            ValueError: when a query has fewer than k images left, or a score is -inf.
        """
        left = 0 if self._best is None else int(np.isfinite(self._best.scores).sum(axis=1).min())
        if self._best is None or left < self._k:
            raise ValueError(
                f"k={self._k}, but a query has only {left} of {self._seen} "
                f"{agreed(self._seen, 'gallery image')} left after exclusion. Ask for fewer (or "
                "check the features for infinities)."
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
    check_features(queries, "queries")
    if excluded is not None and len(excluded) != len(queries):
        rows_in = f"{len(excluded)} {agreed(len(excluded), 'row')}"
        raise ValueError(f"excluded has {rows_in}, the queries are {len(queries)}.")
    rows = [slice(start, start + query_block) for start in range(0, len(queries), query_block)]
    running = [RunningTopK(k, None if excluded is None else excluded[each]) for each in rows]
    held, scores, converted = _to_torch(queries, device), _Space(device), _Space(device)
    for block in _gallery_blocks(gallery, gallery_block):
        check_features(block, "gallery", queries.shape[1])
        if len(queries) <= min(FEW_QUERIES, query_block) and device == "cpu":
            out = scores.of(len(queries), len(block))
            running[0].update(_few_scores(held, block, out, converted))
            continue
        images = converted.as_float32(as_tensor(block))
        for each, best in zip(rows, running, strict=True):
            out = scores.of(len(held[each]), len(images))
            _multiply(held[each], images, out)
            best.update(out)
    return _stack([best.result() for best in running])


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
        raise ValueError(_NOT_FINITE)
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


def _higher(
    scores: torch.Tensor, best: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | None:
    """Scores above each row's k-th best so far, with their columns in order, padded with -inf.

    What equals the k-th best comes later in the gallery and loses. Only the highest score of each
    run is compared; few runs are looked into. None where `_top_columns` is to look at all: fewer
    than k are known, the columns are not whole runs, or many scores are higher.
    """
    if best.shape[1] < k or scores.shape[1] % RUN:
        return None
    runs = scores.unflatten(1, (-1, RUN))
    highest, lowest = runs.amax(2).cpu().numpy(), best[:, -1]
    if not (highest < np.inf).all():  # amax keeps NaN
        raise ValueError(_NOT_FINITE)
    rows, places = np.nonzero(highest > lowest[:, None])
    if len(rows) > k * len(scores):
        return None
    if not len(rows):
        return best[:, :0], np.empty((len(best), 0), np.int64)
    at = (torch.from_numpy(each).to(scores.device) for each in (rows, places))
    held = runs[tuple(at)].cpu().numpy()
    hits, columns = np.nonzero(held > lowest[rows, None])
    owner = rows[hits]
    counts = np.bincount(owner, minlength=len(scores))
    rank = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
    values = np.full((len(scores), counts.max()), -np.inf, np.float32)
    found = np.zeros(values.shape, np.int64)
    values[owner, rank] = held[hits, columns]
    found[owner, rank] = places[hits] * RUN + columns
    return values, found


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


class _Space:
    """Memory for one matrix after the other: fresh pages cost more than what is written to them."""

    def __init__(self, device: str) -> None:
        self._held = torch.empty(0, device=device)
        self._last = self._held.view(0, 0)

    def of(self, rows: int, columns: int) -> torch.Tensor:
        """A matrix of float32 in the place of the one before."""
        if self._last.shape != (rows, columns):
            if self._held.numel() < rows * columns:
                self._held = torch.empty(rows * columns, device=self._held.device)
            self._last = self._held[: rows * columns].view(rows, columns)
        return self._last

    def as_float32(self, features: torch.Tensor) -> torch.Tensor:
        """The features on the device as float32; themselves if they are."""
        there = features.to(self._held.device)
        return there if there.dtype == torch.float32 else self.of(*there.shape).copy_(there)


def _few_scores(
    queries: torch.Tensor, gallery: Features, scores: torch.Tensor, converted: _Space
) -> torch.Tensor:
    """(Q, g) products of few queries, piece by piece, in `scores`."""
    one = len(queries) == 1
    unit = EVEN if one else _same()
    cached = CACHED_BYTES * torch.get_num_threads() // (4 * gallery.shape[1])
    step = max(1, cached // unit) * unit if gallery.dtype == np.float16 else GALLERY_BLOCK
    places = scores[0].split(step) if one else scores.split(step, dim=1)
    for piece, place in zip(_pieces(gallery, step), places, strict=True):
        _multiply(queries, converted.as_float32(piece), place)
    return scores


def _multiply(queries: torch.Tensor, images: torch.Tensor, out: torch.Tensor) -> None:
    """Write (Q, g) products, or (g,) of one query; equal images get equal ones."""
    if images.device.type != "cpu":
        torch.mm(queries, images.T, out=out)
        return
    count = len(images)
    if out.dim() == 1:
        if images.data_ptr() % ALIGNED:
            images = images.clone()
        torch.mv(images, queries[0], out=out)
        if over := count % EVEN:
            last = images[torch.arange(count - EVEN, count) % count]
            out[-over:] = torch.mv(last, queries[0])[-over:]
        return
    size = _same()
    found, held = torch.empty(len(queries), size), torch.zeros(0, 0)
    for start in range(0, count, size):
        rows = images[start : start + size]
        if len(rows) < size or rows.data_ptr() % WIDE_ALIGNED:
            held = held if len(held) else torch.zeros(size, images.shape[1])
            held[: len(rows)] = rows
            rows = held
        torch.mm(queries, rows.T, out=found)
        place = out[:, start : start + size]
        place.copy_(found[:, : place.shape[1]])


def _same() -> int:
    """Rows of every product of several queries."""
    return SAME * min(torch.get_num_threads(), 8)


def _pieces(gallery: Features, step: int) -> Iterator[torch.Tensor]:
    """Its rows, `step` at a time; a view of each where torch may have one."""
    if _viewed(gallery):  # once for all, as numpy's slices of a map cost more than a product
        yield from torch.from_numpy(gallery).split(step)
    else:
        for start in range(0, len(gallery), step):
            yield as_tensor(gallery[start : start + step])


def products(query: npt.NDArray[np.float32], gallery: Features) -> npt.NDArray[np.float32]:
    """(G,) dot products of one query (d,) with (G, d) float16 or float32 rows."""
    scores, held = torch.empty(1, len(gallery)), torch.from_numpy(query[None])
    return _few_scores(held, gallery, scores, _Space("cpu"))[0].numpy()


def products_of_each(queries: Features, gallery: Features) -> npt.NDArray[np.float32]:
    """(Q, G) dot products of queries (Q, d) with (G, d) rows, all at once."""
    scores = torch.empty(len(queries), len(gallery))
    _multiply(
        _to_torch(queries, "cpu"),
        _to_torch(gallery, "cpu"),
        scores[0] if len(queries) == 1 else scores,
    )
    return scores.numpy()


def as_float32(features: Features) -> npt.NDArray[np.float32]:
    """The features as float32; themselves if they are."""
    return _to_torch(features, "cpu").numpy()


def _to_torch(features: Features, device: str) -> torch.Tensor:
    """float32 on the device, converted there; copied only if it must be."""
    return as_tensor(features).to(device).float()


def as_tensor(features: Features) -> torch.Tensor:
    """The features themselves as a tensor of float16 or float32; a copy of others."""
    if features.dtype not in (np.float16, np.float32):
        features = features.astype(np.float32)
    return torch.from_numpy(features if _viewed(features) else features.copy())


def _viewed(features: Features) -> bool:
    """Whether torch takes the memory itself; it warns of memory that is read-only."""
    return features.dtype in (np.float16, np.float32) and features.flags.writeable


def check_features(features: Features, what: str, dim: int | None = None) -> None:
    """Refuse features that are not a matrix, or of another width.

    Raises:
        ValueError: names them (`what`), and what is wrong.
    """
    if features.ndim != 2 or 0 in features.shape or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(
            f"{what}: expected a non-empty (rows, dim) float array, given {features.dtype}"
            f"{features.shape}."
        )
    if dim is not None and features.shape[1] != dim:
        raise ValueError(f"{what}: dim {features.shape[1]}, the queries have {dim}. One backbone?")


def _stack(parts: Sequence[TopK]) -> TopK:
    return TopK(
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
