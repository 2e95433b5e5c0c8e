"""Training steps of the GPU benchmark: operations by hand, and the bare form's loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from bench.gpu.instructcir import Steps

N, W, T, D = 17, 32, 40, 24
"""Image tokens and their width in 2 blocks, width of text tokens in 3 blocks, joint space."""


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """The steps of a small random network."""
    import torch

    from bench.gpu.case import Case
    from bench.gpu.instructcir import Steps
    from tests.fakes.small_networks import small_network

    return Steps(small_network(tmp_path / "clip"), Case(torch.device("cpu"), True, 0.0))


def batch_for(steps: Steps, size: int = 8) -> dict[str, torch.Tensor]:
    """Random pixels with one text."""
    import torch

    stream = torch.Generator().manual_seed(0)
    images = torch.randn(2, size, 3, 32, 32, generator=stream)
    texts = steps.network.text_ids(["a dog beside two cats"] * size)
    return {
        "references": images[0],
        "targets": images[1],
        "texts": texts,
        "target_ids": torch.arange(size),
    }


def image_block(seen: int) -> int:
    """One block: self-attention, cross-attention on `seen` text tokens, MLP."""
    attended = 2 * N * (4 * W * W) + 2 * (2 * N * N * W)
    crossed = 2 * N * (2 * W * W) + 2 * (2 * N * seen * W)
    return attended + crossed + 2 * N * (8 * W * W)


def keys_values(tokens: int) -> int:
    """Of the text, for one block."""
    return 2 * tokens * (2 * T * W)


def text_block(tokens: int) -> int:
    """One block of the text tower."""
    return 2 * tokens * (12 * T * T) + 2 * (2 * tokens * tokens * T)


def by_hand(tokens: int) -> int:
    """A triplet's operations, two for each multiplication with its addition.

    The backward pass of a product costs two more of its size, but the pictures need no gradient.
    """
    patches = 2 * 16 * (8 * 8 * 3) * W
    head = 2 * W * D + 2 * (2 * D * 4 * D + 4 * D * D)
    text = 3 * text_block(tokens) + 2 * T * D
    query = patches + 2 * (image_block(tokens) + keys_values(tokens)) + head + text
    target = patches + 2 * image_block(2) + head  # the null text is read once for all
    return 3 * query - patches + target


def test_the_count_is_that_of_the_architecture(steps: Steps) -> None:
    batch = batch_for(steps)
    expected = by_hand(batch["texts"].shape[1])
    assert steps.triplet_flops(batch) == pytest.approx(expected, rel=1e-4)


def test_what_is_computed_again_is_no_work_of_the_model(steps: Steps) -> None:
    from bench.gpu.instructcir import Variant

    batch = batch_for(steps)
    tokens = batch["texts"].shape[1]
    plain, counted = steps.flops(batch), steps.triplet_flops(batch)
    steps.run_as(Variant(8, checkpointing=True))
    # A block is computed up to the last product of its MLP, whose result nothing asks for.
    image = image_block(tokens) + keys_values(tokens) - 2 * N * (4 * W * W)
    text = text_block(tokens) - 2 * tokens * (4 * T * T)
    assert steps.flops(batch) - plain == 8 * (2 * image + 3 * text)
    assert steps.triplet_flops(batch) == counted
    assert all(parameter.grad is None for parameter in steps.network.parameters())


def test_bare_modules_compute_the_same_loss(steps: Steps) -> None:
    import torch

    from bench.gpu.bare_reformulation import BareStep

    batch = batch_for(steps)
    batch["texts"] = steps.network.text_ids(["a dog", "a cat beside two dogs"] * 4)
    bare = BareStep(steps.network, torch.device("cpu"), half=False)
    assert float(bare.loss(batch)) == pytest.approx(float(steps.loss(batch)), rel=1e-4)
    before = float(bare.loss(batch))
    bare.take(batch)
    steps.take(batch)
    assert float(bare.loss(batch)) != before
    assert float(bare.loss(batch)) == pytest.approx(float(steps.loss(batch)), rel=2e-3)
