"""Equations 8 to 10 by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.fusion import (
    for_search,
    fuse,
    gallery_weights,
    query_weights,
    similarities,
    unit,
)

EDITED = np.array([[3.0, 4.0]], dtype=np.float32)  # unit: 0.6, 0.8
FINE = np.array([[0.0, 2.0]], dtype=np.float32)  # unit: 0, 1
REFERENCE = np.array([[-5.0, 0.0]], dtype=np.float32)  # unit: -1, 0
PARTS = {"edited_captions": EDITED, "fine_grained": FINE, "reference_image": REFERENCE}


def test_equation_8_by_hand() -> None:
    # 0.2 (0.6, 0.8) + 0.6 (0, 1) + 0.2 (-1, 0) = (-0.08, 0.76)
    got = fuse(PARTS, query_weights(0.2, 0.6))
    np.testing.assert_allclose(got, [[-0.08, 0.76]], atol=1e-7)


def test_equation_9_by_hand() -> None:
    gallery = {"captions": np.array([[0.0, 0.5]]), "image": np.array([[8.0, 6.0]])}
    # 0.2 (0, 1) + 0.8 (0.8, 0.6) = (0.64, 0.68)
    np.testing.assert_allclose(fuse(gallery, gallery_weights(0.2)), [[0.64, 0.68]])
    # The code leaves averaged captions at their length: 0.2 (0, 0.5) + 0.8 (0.8, 0.6)
    got = fuse(gallery, gallery_weights(0.2), {"captions": "as_is"})
    np.testing.assert_allclose(got, [[0.64, 0.58]])


def test_cosine_and_dot_can_rank_differently() -> None:
    # Difference D4: the second image is longer and wins the dot product, not the cosine.
    query = np.array([[1.0, 0.0]])
    gallery = np.array([[0.6, 0.1], [0.9, 0.9]])
    assert similarities(query, gallery, "dot").argmax() == 1
    assert similarities(query, gallery, "cosine").argmax() == 0
    np.testing.assert_allclose(
        similarities(query, gallery), [[0.6 / np.sqrt(0.37), 0.9 / np.sqrt(1.62)]]
    )
    assert for_search(gallery, "dot") is gallery


def test_torch_tensors_give_the_same() -> None:
    import torch

    tensors = {name: torch.from_numpy(part) for name, part in PARTS.items()}
    got = fuse(tensors, query_weights(0.6, 0.3))
    assert isinstance(got, torch.Tensor)
    np.testing.assert_allclose(got.numpy(), fuse(PARTS, query_weights(0.6, 0.3)), atol=1e-7)


def test_parts_are_not_changed_and_types_kept() -> None:
    before = EDITED.copy()
    assert fuse(PARTS, query_weights(0.5, 0.5)).dtype == np.float32
    np.testing.assert_array_equal(EDITED, before)


def test_zero_vectors_stay_zero() -> None:
    np.testing.assert_array_equal(unit(np.zeros((1, 3))), np.zeros((1, 3)))


def test_parts_of_weight_zero_need_not_be_there() -> None:
    weights = query_weights(0.6, 0.4)
    assert weights["reference_image"] == 0.0
    without = {name: part for name, part in PARTS.items() if name != "reference_image"}
    np.testing.assert_array_equal(fuse(without, weights), fuse(PARTS, weights))


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        ({"text": EDITED}, {"text": 0.0}, "every weight is 0"),
        ({"text": EDITED}, {"image": 1.0, "text": 1.0}, "feature image has a weight"),
        ({"a": EDITED, "b": np.ones((2, 2))}, {"a": 1.0, "b": 1.0}, "differ in shape"),
    ],
)
def test_impossible_sums_are_refused(parts, weights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(parts, weights)


@pytest.mark.parametrize("weights", [(0.7, 0.4), (-0.1, 0.5), (0.5, -0.1)])
def test_weights_outside_the_simplex_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        query_weights(*weights)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="cosine, dot"):
        for_search(EDITED, "euclid")
    with pytest.raises(ValueError, match="unit, as_is"):
        fuse(PARTS, query_weights(0.5, 0.5), {"fine_grained": "softmax"})
    with pytest.raises(ValueError, match="between 0 and 1"):
        gallery_weights(1.5)
