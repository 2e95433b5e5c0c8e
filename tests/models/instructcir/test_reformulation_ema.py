"""The moving average against its recurrence written out in numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from models.instructcir.settings import EmaSettings


def test_momentum_is_linear_in_the_steps_of_the_run() -> None:
    from models.instructcir.ema import momentum

    settings = EmaSettings(start=0.9, end=1.0)
    got = [momentum(settings, step, 4) for step in range(5)]
    assert got == pytest.approx([0.9, 0.925, 0.95, 0.975, 1.0])
    assert momentum(EmaSettings(), 0, 1000) == 0.996
    for step, total in ((5, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="outside a run"):
            momentum(settings, step, total)


def test_follows_the_recurrence(small: Path) -> None:
    import torch

    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import small_network

    network = small_network(small)
    average = EmaTarget(network, EmaSettings(start=0.5, end=1.0))
    name = "image.transformer.resblocks.1.cross.value.weight"
    online, shadow = (dict(n.named_parameters())[name] for n in (network, average.network))
    assert torch.equal(online, shadow)
    assert shadow.data_ptr() != online.data_ptr()
    by_hand = online.detach().double().clone()
    for step in range(4):
        with torch.no_grad():
            online += torch.randn(online.shape, generator=torch.Generator().manual_seed(step))
        average.update(network, step, 4)
        m = 0.5 + 0.5 * step / 4
        by_hand = m * by_hand + (1 - m) * online.detach().double()
        torch.testing.assert_close(shadow.double(), by_hand, atol=1e-6, rtol=0)


def test_ends_of_the_schedule_are_exact(small: Path) -> None:
    import torch

    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import small_network

    network = small_network(small)
    average = EmaTarget(network, EmaSettings(start=0.0, end=1.0))
    start = copy.deepcopy(average.network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    average.update(network, 10, 10)  # momentum 1: stays
    assert all(torch.equal(a, start[n]) for n, a in average.network.state_dict().items())
    average.update(network, 0, 10)  # momentum 0: jumps
    online = network.state_dict()
    assert all(torch.equal(a, online[n]) for n, a in average.network.state_dict().items())


def test_frozen_parts_are_left_alone_and_nothing_is_trained(small: Path) -> None:
    import torch

    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import small_network

    network = small_network(small, text_tower="frozen")
    network.set_gradient_checkpointing(True)
    average = EmaTarget(network).train()
    assert not average.network.training
    assert not any(p.requires_grad for p in average.parameters())
    assert not average.network.checkpointing
    text = copy.deepcopy(average.network.text.state_dict())
    with torch.no_grad():
        for parameter in network.image.parameters():
            parameter.mul_(2)
    average.update(network, 0, 3)
    for name, tensor in average.network.text.state_dict().items():
        assert torch.equal(tensor, text[name])


def test_small_updates_are_not_lost_to_bfloat16(small: Path) -> None:
    import torch

    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import small_network

    network = small_network(small).bfloat16()
    average = EmaTarget(network, EmaSettings(start=0.999, end=0.999))
    before = network.predictor[0].weight.detach().float().clone()
    with torch.no_grad():
        network.predictor[0].weight.add_(0.05)
    moved = network.predictor[0].weight.detach().float() - before
    for step in range(5):
        average.update(network, step, 5)
    shadow = average.network.predictor[0].weight
    assert shadow.dtype == torch.float32
    torch.testing.assert_close(shadow - before, moved * (1 - 0.999**5), atol=1e-6, rtol=1e-2)


def test_state_comes_back(small: Path) -> None:
    import torch

    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small)
    average = EmaTarget(network, EmaSettings(start=0.5, end=0.5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    average.update(network, 0, 2)
    fresh = EmaTarget(small_network(small))
    images = pixels(len(TEXTS))
    with torch.no_grad():
        expected = average.network.target(images)
        assert not torch.equal(fresh.network.target(images), expected)
        fresh.load_state_dict(average.state_dict())
        assert torch.equal(fresh.network.target(images), expected)
