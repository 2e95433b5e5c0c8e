"""Gradients of the network, and the precision of what it computes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

from tests.fakes.small_networks import BACKBONES


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"text_tower": "frozen"},
        {"predictor": False},
        {"cross_attended_blocks": 0},
        {"cross_attended_blocks": 0, "predictor": False},
        {"cross_attended_blocks": 1, "text_mask": "full"},
    ],
    ids=str,
)
def test_every_trained_parameter_gets_a_gradient(small: Path, settings: dict[str, Any]) -> None:
    """DistributedDataParallel waits for the gradient of every parameter that wants one."""
    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small, **settings)
    network.query(pixels(4), network.text_ids(TEXTS)).z.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_learned_null_text_is_trained_by_the_target_path(small: Path) -> None:
    from tests.fakes.small_networks import pixels, small_network

    network = small_network(small, null_text="learned")
    network.target(pixels(2)).sum().backward()
    assert network.null_sequence.grad.abs().sum() > 0
    assert network.null_embedding.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["plain", "custom_blocks"])
def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path, kind: str) -> None:
    import torch

    from tests.fakes.small_networks import TEXTS, pixels, small_network, write_clip

    network = small_network(write_clip(tmp_path, **BACKBONES[kind]))
    other = copy.deepcopy(network)
    other.set_gradient_checkpointing(True)
    saved = [0, 0]
    for turn, each in enumerate((network, other)):

        def count(tensor: torch.Tensor, turn: int = turn) -> torch.Tensor:
            saved[turn] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = each.query(pixels(4), each.text_ids(TEXTS)).z.square().sum()
        loss.backward()
    assert saved[1] < saved[0] / 2
    for (name, a), b in zip(network.named_parameters(), other.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_bf16_autocast_keeps_head_and_weights_in_fp32(small: Path) -> None:
    import torch
    from torch.nn import functional

    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small)
    ids = network.text_ids(TEXTS)
    exact = network.query(pixels(4), ids).z
    with torch.autocast("cpu", torch.bfloat16):
        rough = network.query(pixels(4), ids)
        target = network.target(pixels(4))
    assert {each.dtype for each in (*rough, target)} == {torch.float32}
    assert functional.cosine_similarity(rough.z, exact).min() > 0.999
    assert not torch.equal(rough.z, exact)
    rough.z.sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


def test_the_text_head_is_exact_under_autocast(small: Path) -> None:
    """e_T is the fp32 projection of whatever the tower below it gave."""
    import torch

    from tests.fakes.small_networks import TEXTS, small_network

    tower = small_network(small).text
    ids = small_network(small).text_ids(TEXTS)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        read = tower(ids)
    at_end = read.sequence[torch.arange(len(TEXTS)), read.ends].float()
    projection = tower.projection
    assert isinstance(projection, torch.nn.Parameter)
    torch.testing.assert_close(read.pooled, at_end @ projection.detach(), atol=0, rtol=0)
