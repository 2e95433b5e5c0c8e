"""Combiners against equation 3 worked by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.instructcir.settings import CombinerSettings

if TYPE_CHECKING:
    import torch


def vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(1, 2) of a query, of a text and of an image."""
    import torch

    return torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([[5.0, 0.0]])


def test_scalar_by_hand() -> None:
    from models.instructcir.combiner import new_combiner

    z, text, _ = vectors()
    combiner = new_combiner(2, CombinerSettings())
    lam = 1 / (1 + math.exp(-2.0))
    mixed = np.array([lam * 0.6, lam * 0.8 + (1 - lam) * 1.0])
    expected = mixed / np.linalg.norm(mixed)
    np.testing.assert_allclose(combiner.combine(z, text).detach()[0], expected, atol=1e-6)
    assert [name for name, _ in combiner.named_parameters()] == ["logit"]
    assert not combiner.needs_image


def test_clip4cir_scalar_by_hand() -> None:
    from models.instructcir.combiner import new_combiner

    z, text, image = vectors()
    combiner = new_combiner(2, CombinerSettings(kind="clip4cir_scalar", start=0.0))
    mixed = np.array([3 + 0.5 * 0 + 0.5 * 5, 4 + 0.5 * 2 + 0.5 * 0])
    expected = mixed / np.linalg.norm(mixed)
    np.testing.assert_allclose(combiner.combine(z, text, image).detach()[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="give `image_null`"):
        combiner.combine(z, text)


def test_clip4cir_on_unit_vectors_by_hand() -> None:
    """(0.6, 0.8), (0, 1) and (1, 0) in the places of (3, 4), (0, 2) and (5, 0)."""
    from models.instructcir.combiner import new_combiner

    z, text, image = vectors()
    combiner = new_combiner(2, CombinerSettings(kind="clip4cir_scalar_unit", start=0.0))
    mixed = np.array([0.6 + 0.5 * 0 + 0.5 * 1, 0.8 + 0.5 * 1 + 0.5 * 0])
    expected = mixed / np.linalg.norm(mixed)
    np.testing.assert_allclose(combiner.combine(z, text, image).detach()[0], expected, atol=1e-6)
    assert combiner.needs_image
    plain, unit = (
        new_combiner(2, CombinerSettings(kind=kind, projection=3, hidden=5), seed=4).eval()
        for kind in ("clip4cir_mlp", "clip4cir_mlp_unit")
    )
    got = unit.combine(z, text).detach()
    np.testing.assert_allclose(got, plain.combine(z / 5, text / 2).detach(), atol=1e-6)
    assert not np.allclose(got, plain.combine(z, text).detach(), atol=1e-3)


def test_clip4cir_mlp_by_hand() -> None:
    import torch
    from torch.nn import functional

    from models.instructcir.combiner import new_combiner

    z, text, _ = vectors()
    settings = CombinerSettings(kind="clip4cir_mlp", projection=3, hidden=5)
    combiner = new_combiner(2, settings, seed=4).eval()
    weights = {name: p.detach() for name, p in combiner.named_parameters()}

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    inner = layer("from_text.0", text[0]).relu(), layer("from_image.0", z[0]).relu()
    sides = torch.cat(inner)
    share = 1 / (1 + torch.exp(-layer("gate.1", layer("gate.0.0", sides).relu())))
    joint = layer("joint.1", layer("joint.0.0", sides).relu())
    expected = functional.normalize(joint + share * text[0] + (1 - share) * z[0], dim=0)
    torch.testing.assert_close(combiner.combine(z, text)[0], expected)
    dropped = combiner.train().combine(z.expand(64, -1), text.expand(64, -1))
    assert dropped.std(dim=0).max() > 0  # dropout is on while training


@pytest.mark.parametrize("kind", ["scalar", "clip4cir_scalar", "clip4cir_mlp"])
def test_unit_length_and_gradients(kind: str) -> None:
    import torch

    from models.instructcir.combiner import new_combiner
    from models.instructcir.encoder import QueryFeatures, combine_features

    settings = CombinerSettings(kind=kind, projection=8, hidden=8)  # type: ignore[arg-type]
    combiner = new_combiner(4, settings, seed=1)
    torch.manual_seed(0)
    features = torch.randn(3, 6, 4)
    out = combiner.combine(*features)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(6))
    (out * torch.randn(6, 4)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in combiner.parameters())
    arrays = QueryFeatures(*(each.numpy() for each in features))
    again = combine_features(combiner.eval(), arrays)
    np.testing.assert_array_equal(again, combiner.combine(*features).detach().numpy())


def test_seed_decides_the_start_and_nothing_else() -> None:
    import torch

    from models.instructcir.combiner import new_combiner

    settings = CombinerSettings(kind="clip4cir_mlp", projection=3, hidden=5)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, same, other = (new_combiner(2, settings, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.joint[1].weight, same.joint[1].weight)
    assert not torch.equal(first.joint[1].weight, other.joint[1].weight)
