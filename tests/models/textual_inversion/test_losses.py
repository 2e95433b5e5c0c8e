"""Losses of textual inversion against naive loops and closed forms."""

from __future__ import annotations

import math

import pytest


def naive_simclr(one, other, tau: float) -> float:
    import torch

    rows = [row / row.norm() for row in [*one, *other]]
    count, total = len(one), 0.0
    for i, row in enumerate(rows):
        partner = (i + count) % (2 * count)
        below = sum(math.exp(float(row @ z) / tau) for j, z in enumerate(rows) if j != i)
        total -= math.log(math.exp(float(row @ rows[partner]) / tau) / below)
    assert isinstance(rows[0], torch.Tensor)
    return total / (2 * count)


def test_simclr_is_the_naive_formula() -> None:
    import torch

    from models.textual_inversion.losses import simclr

    torch.manual_seed(0)
    one, other = torch.randn(5, 7) * 3, torch.randn(5, 7)
    for tau in (0.25, 1.0):
        assert float(simclr(one, other, tau)) == pytest.approx(naive_simclr(one, other, tau), 1e-5)
    assert float(simclr(other, one)) == pytest.approx(float(simclr(one, other)), 1e-6)


def test_simclr_of_known_vectors() -> None:
    import torch

    from models.textual_inversion.losses import simclr

    same = torch.ones(4, 3)
    assert float(simclr(same, same)) == pytest.approx(math.log(7), 1e-6)
    pairs = torch.eye(4)
    expected = math.log(1 + 6 * math.exp(-4))
    assert float(simclr(pairs, pairs, 0.25)) == pytest.approx(expected, 1e-5)


def test_cosine_distances_by_hand() -> None:
    import torch

    from models.textual_inversion.losses import cosine_distances

    one = torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    other = torch.tensor([[5.0, 0.0], [1.0, -1.0], [-3.0, 0.0]])
    assert cosine_distances(one, other).tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)
