"""Exact search against a full stable sort, whatever the blocks, ties, dtypes and sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


def naive_top_k(scores: np.ndarray, k: int, excluded: np.ndarray | None = None) -> np.ndarray:
    """(Q, k) indices by a full stable sort, ties by index, excluded ones filtered out."""
    ordered = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    if excluded is None:
        return ordered[:, :k]
    return np.stack(
        [
            [index for index in row if index not in banned][:k]
            for row, banned in zip(ordered, excluded.reshape(len(excluded), -1), strict=True)
        ]
    )


def small_integers(rng: np.random.Generator, rows: int, dim: int = 4, top: int = 2) -> np.ndarray:
    """Features whose products are small integers: exact in any order, with many ties."""
    return rng.integers(-top, top + 1, (rows, dim)).astype(np.float32)


@pytest.mark.parametrize(("query_block", "gallery_block"), [(1, 1), (3, 7), (64, 50), (1024, 999)])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_ties_follow_gallery_order_for_any_blocks(
    query_block: int, gallery_block: int, k: int
) -> None:
    from models.retrieval.search import top_k

    rng = np.random.default_rng(k)
    queries, gallery = small_integers(rng, 20), small_integers(rng, 300)
    found = top_k(queries, gallery, k, query_block=query_block, gallery_block=gallery_block)
    scores = queries @ gallery.T
    expected = naive_top_k(scores, k)
    assert (found.indices == expected).all()
    assert (found.scores == np.take_along_axis(scores, expected, axis=1)).all()
    assert (found.indices.dtype, found.scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("order", ["any", "rising", "falling"])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_blocks_of_whole_runs_rank_as_a_full_sort(order: str, queries: int) -> None:
    from models.retrieval.search import RUN, top_k

    rng = np.random.default_rng(queries)
    asked, gallery = small_integers(rng, queries), small_integers(rng, 20 * RUN + 5)
    if order != "any":  # nearly every score of a block is higher than all before it, or none is
        gallery = gallery[np.argsort(gallery @ asked[0], kind="stable")]
        gallery = gallery if order == "rising" else gallery[::-1].copy()
    excluded = rng.integers(-1, len(gallery), (queries, 3))
    for block in (RUN, 4 * RUN):
        found = top_k(asked, gallery, 7, excluded=excluded, gallery_block=block)
        assert (found.indices == naive_top_k(asked @ gallery.T, 7, excluded)).all()


def test_a_nan_in_a_later_block_is_refused() -> None:
    from models.retrieval.search import RUN, top_k

    gallery = np.ones((4 * RUN, 3), np.float32)
    gallery[3 * RUN + 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        top_k(np.ones((2, 3), np.float32), gallery, 5, gallery_block=RUN)


@pytest.mark.parametrize("dim", [77, 512, 640, 768, 1024])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_images_have_equal_scores_wherever_they_lie(dim: int, dtype: str) -> None:
    """A product sums the rows that are left at its end in another order."""
    from models.retrieval.search import products, top_k

    rng = np.random.default_rng(dim)
    row, *queries = rng.standard_normal((101, dim)).astype(np.float32)
    queries = np.stack(queries)
    for count in (*range(1, 14), 200, 327, 1023, 1300):
        gallery = np.repeat(row[None], count, axis=0).astype(dtype)
        assert len(set(products(queries[0], gallery).tolist())) == 1
        for asked in (queries[:1], queries[:5], queries[:33], queries):
            found = top_k(asked, gallery, count)
            assert (found.indices == np.arange(count)).all()
            assert (found.scores == found.scores[:, :1]).all()


@pytest.mark.parametrize("dim", [5, 9, 77, 129])
def test_equal_images_have_equal_scores_wherever_a_block_begins(dim: int) -> None:
    """Rows of an odd width begin at any multiple of four bytes."""
    from models.retrieval.search import top_k

    rng = np.random.default_rng(dim)
    row, *queries = rng.standard_normal((41, dim)).astype(np.float32)
    for block in (13, 101):
        for asked in (queries[:1], queries[:5], queries):
            gallery = np.repeat(row[None], 400, axis=0)
            found = top_k(np.stack(asked), gallery, 400, gallery_block=block)
            assert (found.indices == np.arange(400)).all()
            assert (found.scores == found.scores[:, :1]).all()


def test_all_equal_scores_give_the_first_images() -> None:
    from models.retrieval.search import top_k

    found = top_k(np.zeros((2, 3), np.float32), np.ones((500, 3), np.float32), 50)
    assert (found.indices == np.arange(50)).all()


def test_negative_and_positive_zero_tie() -> None:
    from models.retrieval.search import top_k

    queries = np.array([[1.0]], np.float32)
    gallery = np.array([[-0.0], [0.0], [-0.0], [0.0], [-1.0]], np.float32)
    assert top_k(queries, gallery, 3).indices.tolist() == [[0, 1, 2]]
    assert top_k(queries, gallery, 3, gallery_block=2).indices.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("gallery_block", [4, 1000])
def test_excluded_images_are_never_returned(width: int, gallery_block: int) -> None:
    from models.retrieval.search import top_k

    rng = np.random.default_rng(width)
    queries, gallery = small_integers(rng, 30), small_integers(rng, 20)
    excluded = rng.integers(-1, 20, (30, width))
    shaped = excluded[:, 0] if width == 1 else excluded
    found = top_k(queries, gallery, 17, excluded=shaped, gallery_block=gallery_block, query_block=7)
    assert (found.indices == naive_top_k(queries @ gallery.T, 17, excluded)).all()


def test_memory_map_stream_and_array_agree_in_half_precision(tmp_path: Path) -> None:
    from models.retrieval.search import top_k

    rng = np.random.default_rng(3)
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    gallery = rng.standard_normal((101, 16)).astype(np.float16)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")

    def stream() -> Iterator[np.ndarray]:
        yield from (gallery[:1], gallery[1:60], gallery[60:])

    expected = naive_top_k(queries @ gallery.astype(np.float32).T, 10)
    for source in (gallery, mapped, stream()):
        assert (top_k(queries, source, 10).indices == expected).all()


@pytest.mark.parametrize("queries", [1, 5, 40])
@pytest.mark.parametrize("dim", [5, 96])
def test_float16_galleries_rank_as_float32_of_their_values(
    queries: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.retrieval import search
    from models.retrieval.search import top_k

    monkeypatch.setattr(search, "CACHED_BYTES", 4 * dim * 512)
    rng = np.random.default_rng(dim)
    asked = rng.standard_normal((queries, dim)).astype(np.float32)
    gallery = rng.standard_normal((6 * 512 + 77, dim)).astype(np.float16)  # the last piece is cut
    gallery[900:] = gallery[: len(gallery) - 900]  # every score twice or more
    closed = gallery.copy()
    closed.flags.writeable = False
    exact = asked.astype(np.float64) @ gallery.T.astype(np.float64)
    wide = top_k(asked, gallery.astype(np.float32), 30)
    for found in (top_k(asked, gallery, 30), top_k(asked, closed, 30, gallery_block=700)):
        assert (found.indices == naive_top_k(exact, 30)).all()
        assert (found.indices == wide.indices).all()
        np.testing.assert_allclose(found.scores, wide.scores, rtol=2e-6, atol=2e-6)


def test_arguments_are_left_untouched() -> None:
    from models.retrieval.search import top_k

    rng = np.random.default_rng(4)
    queries, gallery = small_integers(rng, 5), small_integers(rng, 30)
    before = queries.copy(), gallery.copy()
    top_k(queries, gallery, 3, excluded=np.arange(5))
    assert (queries == before[0]).all()
    assert (gallery == before[1]).all()


def test_gpu_equals_cpu_on_exact_products() -> None:
    import torch

    from models.retrieval.search import top_k

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(5)
    queries, gallery = small_integers(rng, 40), small_integers(rng, 3000)
    excluded = rng.integers(-1, 3000, 40)
    there = top_k(queries, gallery, 50, excluded=excluded, device="cuda", gallery_block=700)
    assert (there.indices == top_k(queries, gallery, 50, excluded=excluded).indices).all()


@pytest.mark.parametrize(
    ("k", "excluded", "said"),
    [
        (0, None, "one image at least"),
        (11, None, "only 10 of 10 gallery images left"),
        (10, np.array([3, -1]), "only 9 of 10 gallery images left"),
        (1, np.array([3]), "excluded has 1 row, the queries are 2"),
    ],
)
def test_impossible_requests_are_refused(k: int, excluded: np.ndarray | None, said: str) -> None:
    from models.retrieval.search import top_k

    with pytest.raises(ValueError, match=said):
        top_k(np.ones((2, 3), np.float32), np.ones((10, 3), np.float32), k, excluded=excluded)


def test_bad_features_are_refused() -> None:
    from models.retrieval.search import top_k

    good = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match="dim 2, the queries have 3"):
        top_k(good, good[:, :2], 1)
    with pytest.raises(ValueError, match="non-empty"):
        top_k(good[:0], good, 1)
    with pytest.raises(ValueError, match="float array, given int64"):
        top_k(good.astype(np.int64), good, 1)
    with pytest.raises(ValueError, match="only 0 of 0"):
        top_k(good, iter(()), 1)
    for value in (np.nan, np.inf):
        broken = good.copy()
        broken[2, 1] = value
        with pytest.raises(ValueError, match="NaN or infinite"):
            top_k(good, broken, 2)


def test_running_top_k_merges_blocks_made_elsewhere() -> None:
    import torch

    from models.retrieval.search import RunningTopK

    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]])
    running = RunningTopK(2, np.array([1]))
    running.update(scores[:, :2].clone())
    running.update(scores[:, 2:].clone())
    assert running.result().indices.tolist() == [[3, 4]]


def _base(rng: np.random.Generator, rows: int, number: int) -> list[np.ndarray]:
    return [rng.standard_normal((rows, 8)).astype(np.float32) for _ in range(number)]


def _fuse(features: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    return sum(
        weight * each.astype(np.float64) for weight, each in zip(weights, features, strict=True)
    )


WEIGHTS = [
    ((0.1, 0.1, 0.8), (0.8, 0.2)),
    ((0.0, 0.0, 1.0), (1.0, 0.0)),
    ((1.5, -0.5, 2.0), (0.3, 0.7)),
]
"""Of the base features of queries, and of those of the gallery."""


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_fused_scores_equal_scores_of_fused_vectors(
    weights: tuple[tuple[float, ...], tuple[float, ...]], similarity: str
) -> None:
    from models.retrieval.sweeping import FusionWeights, base_similarities, fused_scores

    rng = np.random.default_rng(6)
    queries, gallery = _base(rng, 11, 3), _base(rng, 40, 2)
    left, right = _fuse(queries, weights[0]), _fuse(gallery, weights[1])
    if similarity == "cosine":
        left /= np.linalg.norm(left, axis=1, keepdims=True)
        right /= np.linalg.norm(right, axis=1, keepdims=True)
    got = fused_scores(base_similarities(queries, gallery), FusionWeights(*weights), similarity)  # type: ignore[arg-type]
    np.testing.assert_allclose(got, left @ right.T, rtol=1e-5, atol=1e-5)


def test_sweep_equals_a_search_with_each_fused_vector() -> None:
    from models.retrieval.sweeping import FusionWeights, sweep_top_k

    rng = np.random.default_rng(7)
    queries, gallery = _base(rng, 11, 3), _base(rng, 90, 2)
    excluded = rng.integers(0, 90, 11)
    every = [FusionWeights(*weights) for weights in WEIGHTS]
    swept = sweep_top_k(queries, gallery, every, 10, excluded=excluded, gallery_block=17)
    for weights, found in zip(every, swept, strict=True):
        left, right = _fuse(queries, weights.query), _fuse(gallery, weights.gallery)
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        assert (found.indices == naive_top_k(left @ right.T, 10, excluded)).all()


def test_blended_sweep_equals_a_search_by_the_written_out_sum() -> None:
    from models.retrieval.sweeping import blended_top_k

    rng = np.random.default_rng(9)
    wide, narrow = ([rng.standard_normal((rows, width)).astype(np.float32) for rows in (11, 90)]
                    for width in (8, 3))  # fmt: skip
    excluded = rng.integers(0, 90, 11)
    sweep = [(1.0, 0.0), (0.7, 0.3), (0.0, 1.0)]
    swept = blended_top_k([tuple(wide), tuple(narrow)], sweep, 10, excluded=excluded,
                          gallery_block=17)  # fmt: skip
    for (a, b), found in zip(sweep, swept, strict=True):
        scores = sum(
            weight * queries.astype(np.float64) @ gallery.T.astype(np.float64)
            for weight, (queries, gallery) in ((a, wide), (b, narrow))
        )
        assert (found.indices == naive_top_k(scores, 10, excluded)).all()


@pytest.mark.parametrize("count", [105, 149, 601])
def test_sweeps_leave_equal_images_in_gallery_order(count: int) -> None:
    from models.retrieval.sweeping import FusionWeights, blended_top_k, sweep_top_k

    rng = np.random.default_rng(count)
    every = [FusionWeights(*weights) for weights in WEIGHTS]
    for asked, dim in ((1, 128), (3, 640), (40, 7)):
        queries = [rng.standard_normal((asked, dim)).astype(np.float32) for _ in range(3)]
        rows = [rng.standard_normal((1, dim)).astype(np.float32) for _ in range(2)]
        gallery = [np.repeat(row, count, axis=0) for row in rows]
        swept = sweep_top_k(queries, gallery, every, count, gallery_block=100)
        parts = list(zip(queries, gallery, strict=False))
        for found in (*swept, *blended_top_k(parts, [(0.3, 0.7)], count, gallery_block=100)):
            assert (found.indices == np.arange(count)).all()


def test_fusions_that_mean_nothing_are_refused() -> None:
    from models.retrieval.sweeping import FusionWeights, base_similarities, fused_scores

    rng = np.random.default_rng(8)
    query, gallery = _base(rng, 3, 1), _base(rng, 5, 1)
    base = base_similarities([query[0], query[0]], gallery)
    with pytest.raises(ValueError, match="query 0: the weighted features cancel out"):
        fused_scores(base, FusionWeights((1.0, -1.0), (1.0,)))
    with pytest.raises(ValueError, match="1 query and 1 gallery weights for 2 query and 1"):
        fused_scores(base, FusionWeights((1.0,), (1.0,)))
    with pytest.raises(ValueError, match="features of one shape"):
        base_similarities([query[0], query[0][:2]], gallery)
    with pytest.raises(ValueError, match="allowed are 'cosine' and 'dot'"):
        fused_scores(base, FusionWeights((1.0, 1.0), (1.0,)), "euclid")  # type: ignore[arg-type]
