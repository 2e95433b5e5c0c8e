"""Products of float16 copies: no product lies farther from the exact one than is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


def vectors(kind: str, count: int, dim: int) -> Array:
    """Rows of a kind that rounding treats in a way of its own."""
    random = np.random.default_rng(5)
    rows = random.standard_normal((count, dim))
    if kind == "unit":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    elif kind == "long":
        rows *= 300
    elif kind == "below the normal numbers":
        rows *= 1e-6
    elif kind == "of all sizes":
        rows *= 10.0 ** random.uniform(-7, 2, rows.shape)
    elif kind == "one number":
        rows = np.eye(dim)[random.integers(0, dim, count)] * random.uniform(0, 2, (count, 1))
    elif kind == "rounded one way":  # all just above the middle of two halves
        rows = np.full((count, dim), (1 + 2.0**-11 + 2.0**-20) / dim**0.5)
    return rows.astype(np.float32)


@pytest.mark.parametrize(
    "kind",
    ["unit", "long", "below the normal numbers", "of all sizes", "one number", "rounded one way"],
)
@pytest.mark.parametrize("dim", [7, 512])
@pytest.mark.parametrize("size", [1.0, 3e-5, 2e6])
def test_no_product_is_farther_off_than_said(kind: str, dim: int, size: float) -> None:
    from models.retrieval.halves import HalfQuery

    rows = vectors(kind, 600, dim)
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    for query in (vectors("unit", 1, dim)[0], vectors("of all sizes", 2, dim)[1], rows[3]):
        asked = query * np.float32(size)
        half = HalfQuery.of(asked)
        found = half.products(rows.astype(np.float16))
        told = half.errors(found, lengths)
        off = np.abs(exact @ asked.astype(np.float64) - found)
        assert (off <= told).all()
        if kind == "unit":
            assert (told < 3e-3 * np.linalg.norm(asked.astype(np.float64))).all()  # it says much


def test_scores_that_count_as_zero_are_within_what_is_said() -> None:
    """Some programs let torch take the smallest numbers for zero."""
    import torch

    from models.retrieval.halves import HalfQuery
    from models.retrieval.search import products

    rows = vectors("unit", 600, 31)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    asked = vectors("unit", 1, 31)[0] * np.float32(1e-37)
    half = HalfQuery.of(asked)
    assert torch.set_flush_denormal(True)
    try:
        found, exact = half.products(rows.astype(np.float16)), products(asked, rows)
    finally:
        torch.set_flush_denormal(False)
    assert (np.abs(exact - found) <= half.errors(found, lengths)).all()


def test_numbers_that_have_no_half_are_not_finite() -> None:
    from models.retrieval.halves import HalfQuery

    half = HalfQuery.of(np.full(4, 0.5, np.float32))
    with np.errstate(over="ignore"):
        halves = np.array([[1e5, 0, 0, 0], [1, 0, 0, 0]]).astype(np.float16)
    assert np.isfinite(half.products(halves)).tolist() == [False, True]
    assert not np.isfinite(HalfQuery.of(np.full(4, np.nan, np.float32)).products(halves)).any()


@pytest.mark.parametrize(
    ("capability", "onednn", "told"),
    [
        ("AVX512", False, True),
        ("AVX2", False, True),
        ("AVX512", True, False),
        ("DEFAULT", False, False),
        ("NEON", False, False),
        ("AVX512", None, False),  # torch was built without oneDNN
    ],
)
def test_copies_are_taken_where_their_product_was_measured_to_be_fast(
    capability: str, onednn: bool | None, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from models.retrieval.halves import multiplies_halves

    multiplies_halves.cache_clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    asked = {} if onednn is None else {"_is_mkldnn_fp16_supported": lambda: onednn}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**asked))
    assert multiplies_halves() is told
    multiplies_halves.cache_clear()
