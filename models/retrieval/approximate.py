"""Candidates from an approximate index of faiss, ranked by their exact scores.

The index is an inverted file: vectors, in 8 bits a number, in lists around centres; a query looks
into the nearest lists. How many it looks into is chosen once, so that a sample of the gallery's own
images finds its exact nearest ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.retrieval.faiss_library import require_faiss
from models.retrieval.gallery import Gallery
from models.retrieval.search import Features, Ints, TopK, top_k

KIND: Final = "IVF,SQ8/1"
"""The kind of index and the version of its making."""

_SAMPLE: Final = 64
_TRAINED_ON: Final = 64  # vectors for each centre
_AT: Final = 10


@dataclass(frozen=True)
class Recall:
    """How near an approximate search comes to the exact one.

    Attributes:
        recall: Share of the exact best `at` images that it finds.
        at: How many.
        queries: Images of the gallery that it was measured with.
        lists: Lists that a query looks into.
        of: All lists.
    """

    recall: float
    at: int
    queries: int
    lists: int
    of: int


def build_index(gallery: Gallery, target: float, candidates: int) -> tuple[Any, Recall]:
    """An index of a gallery's vectors, and its recall.

    Args:
        gallery: The vectors; they are read in blocks, three times.
        target: The recall that is aimed at.
        candidates: Images that a query takes from the index.

    Raises:
        ValueError: faiss is not installed.
    """
    faiss = require_faiss()
    count = len(gallery)
    rng = np.random.default_rng(0)
    lists = max(1, min(int(4 * count**0.5), count // 39))
    chosen = np.sort(rng.permutation(count)[: lists * _TRAINED_ON])
    sample = gallery[chosen]
    index = faiss.index_factory(sample.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    for block in gallery.blocks():
        index.add(block)
    own = np.sort(rng.permutation(count)[:_SAMPLE])
    at = min(_AT, count - 1)
    queries, excluded = gallery[own], own[:, None]
    exact = top_k(queries, gallery.blocks(), at, excluded=excluded).indices
    probes = 1
    while True:
        index.nprobe = probes
        found = [
            nearest(index, gallery, queries[i : i + 1], at, candidates, excluded[i]).indices[0]
            for i in range(len(own))
        ]
        hit = sum(len(np.intersect1d(*each)) for each in zip(found, exact, strict=True))
        recall = hit / exact.size
        if recall >= target or probes == lists:
            return index, Recall(recall, at, len(own), probes, lists)
        probes = min(2 * probes, lists)


def nearest(
    index: Any, gallery: Gallery, query: Features, k: int, candidates: int, excluded: Ints
) -> TopK:
    """The k best of an index's candidates by their exact scores, ties by gallery order.

    Args:
        index: From `build_index`.
        gallery: The vectors that it was made of.
        query: (1, d).
        k: Images to return; fewer where the gallery has fewer. Where the lists that the query
            looks into hold fewer, it looks into all.
        candidates: Images to take from the index, at least.
        excluded: Gallery indices that are not returned.
    """
    most = min(len(gallery), max(candidates, k) + len(excluded))
    query = np.ascontiguousarray(query, np.float32)

    def proposed(**looked: Any) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = index.search(query, most, **looked)[1][0]
        places = np.sort(found[found >= 0])
        return places[~np.isin(places, excluded)]

    places = proposed()
    if len(places) < k:
        every = require_faiss().SearchParametersIVF(nprobe=index.nlist)
        places = proposed(params=every)
    if not len(places):
        return TopK(np.empty((1, 0), np.int64), np.empty((1, 0), np.float32))
    best = top_k(query, gallery[places], min(k, len(places)))
    return TopK(places[best.indices], best.scores)


def save_index(index: Any, write: Callable[[bytes], object]) -> None:
    """Write an index in faiss's own form."""
    faiss = require_faiss()
    faiss.write_index(index, faiss.PyCallbackIOWriter(write))


def load_index(file: str, recall: Recall) -> Any:
    """Map an index that is known to be what was written; bytes behind it are not read."""
    faiss = require_faiss()
    index = faiss.read_index(file, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    index.nprobe = recall.lists
    return index
