"""Approximate search: the exact order of what the index proposes, and a recall that is true."""

from __future__ import annotations

import sys

import numpy as np
import pytest


def clusters(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 32))
    vectors = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_without_faiss_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.retrieval.faiss_library import require_faiss

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"requirements/lock-approximate\.txt") as refused:
        require_faiss()
    assert "\n" not in str(refused.value)


def test_an_index_that_proposes_all_ranks_as_the_exact_search() -> None:
    from models.retrieval.approximate import nearest
    from models.retrieval.gallery import Gallery, Rows
    from models.retrieval.search import top_k

    rng = np.random.default_rng(1)
    vectors = rng.integers(-2, 3, (300, 4)).astype(np.float32)  # many ties
    gallery = Gallery({"image": Rows(vectors)}, lambda features: features["image"])

    class Shuffled:
        def search(self, query: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
            places = np.append(rng.permutation(300), -1)  # faiss fills up with -1
            return np.zeros((1, 301), np.float32), places[None]

    query, excluded = vectors[3:4], np.array([3])
    found = nearest(Shuffled(), gallery, query, 20, 300, excluded)
    exact = top_k(query, vectors, 20, excluded=excluded)
    assert (found.indices == exact.indices).all()
    assert (found.scores == exact.scores).all()


def test_the_recall_that_is_stated_is_reached_on_other_images() -> None:
    pytest.importorskip("faiss", reason="`make approximate` was not run")
    from models.retrieval.approximate import build_index, nearest
    from models.retrieval.gallery import Gallery, Rows
    from models.retrieval.search import top_k

    vectors = clusters(6000)
    gallery = Gallery({"image": Rows(vectors)}, lambda features: features["image"])
    index, recall = build_index(gallery, 0.95, 100)
    assert recall.recall >= 0.95
    assert recall.lists < recall.of
    others = np.arange(0, 6000, 61)
    exact = top_k(vectors[others], vectors, 10, excluded=others).indices
    found = [
        nearest(index, gallery, vectors[i : i + 1], 10, 100, np.array([i])).indices for i in others
    ]
    hit = [len(np.intersect1d(*pair)) / 10 for pair in zip(found, exact, strict=True)]
    assert abs(np.mean(hit) - recall.recall) < 0.05


def test_a_query_gets_as_many_images_as_it_asks_for() -> None:
    """Here the nearest lists alone hold fewer."""
    pytest.importorskip("faiss", reason="`make approximate` was not run")
    from models.retrieval.approximate import build_index, nearest
    from models.retrieval.gallery import Gallery, Rows
    from models.retrieval.search import top_k

    vectors = np.repeat(np.eye(40, 64, dtype=np.float32), 50, 0)
    gallery = Gallery({"image": Rows(vectors)}, lambda features: features["image"])
    index, recall = build_index(gallery, 0.5, 10)
    assert recall.lists < recall.of
    query, own = vectors[:1], np.array([0])
    for k in (10, 500, 1999):
        found = nearest(index, gallery, query, k, 10, own)
        assert found.indices.shape == (1, k)
        assert len(set(found.indices[0].tolist()) - {0}) == k
        assert (found.scores == top_k(query, vectors, k, excluded=own[None]).scores).all()
