"""The loss against a double loop, and over two processes against one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.instructcir.settings import LossSettings

if TYPE_CHECKING:
    import torch

IDS = [7, 3, 7, 5, 3, 7, 1, 0]
TEXTS = ["make it blue", "", "two stars", "a", "larger and red", "no hat", "b c", "brighter"]


def naive(queries: Any, targets: Any, ids: list[int], settings: LossSettings) -> float:
    """Equation 2 in plain Python; with `symmetric`, the mean of both directions."""

    def cosine(a: Any, b: Any) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    def one_way(rows: Any, columns: Any) -> float:
        total = 0.0
        for i, row in enumerate(rows):
            exps = 0.0
            for j, column in enumerate(columns):
                if settings.mask_repeats and i != j and ids[i] == ids[j]:
                    continue
                exps += math.exp(cosine(row, column) / settings.temperature)
            total -= math.log(math.exp(cosine(row, columns[i]) / settings.temperature) / exps)
        return total / len(rows)

    loss = one_way(queries, targets)
    return (loss + one_way(targets, queries)) / 2 if settings.symmetric else loss


@pytest.mark.parametrize("mask_repeats", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equals_a_double_loop(mask_repeats: bool, symmetric: bool, temperature: float) -> None:
    import torch

    from models.instructcir.loss import contrastive_loss

    settings = LossSettings(temperature=temperature, mask_repeats=mask_repeats, symmetric=symmetric)
    torch.manual_seed(0)
    queries, targets = 3 * torch.randn(8, 5), torch.randn(8, 5)
    targets[2] = targets[0]  # the same image: a tie with the positive where it is not masked
    got = contrastive_loss(queries, targets, torch.tensor(IDS), settings)
    expected = naive(queries.tolist(), targets.tolist(), IDS, settings)
    assert float(got) == pytest.approx(expected, abs=2e-5)


def test_repeats_are_no_negatives() -> None:
    """All targets one image: nothing is left to be told from it."""
    import torch

    from models.instructcir.loss import contrastive_loss

    rows = torch.randn(4, 3)
    same = torch.zeros(4, dtype=torch.int64)
    assert float(contrastive_loss(rows, rows.flip(0), same, LossSettings())) == 0.0
    unmasked = LossSettings(mask_repeats=False)
    assert float(contrastive_loss(rows, rows.flip(0), same, unmasked)) > 1.0


def test_half_precision_features_are_computed_in_fp32() -> None:
    import torch

    from models.instructcir.loss import contrastive_loss

    torch.manual_seed(0)
    queries, targets = torch.randn(6, 16).bfloat16(), torch.randn(6, 16).bfloat16()
    ids = torch.arange(6)
    with torch.autocast("cpu", torch.bfloat16):
        got = contrastive_loss(queries, targets, ids, LossSettings())
    exact = contrastive_loss(queries.float(), targets.float(), ids, LossSettings())
    assert got.dtype == torch.float32
    assert float(got) == float(exact)


def test_learned_temperature() -> None:
    import torch

    from models.instructcir.loss import Temperature, contrastive_loss

    settings = LossSettings(temperature=0.5, learnable_temperature=True)
    temperature = Temperature(settings)
    assert float(temperature().detach()) == pytest.approx(2.0)
    torch.manual_seed(0)
    rows, ids = torch.randn(2, 4, 3), torch.arange(4)
    loss = contrastive_loss(rows[0], rows[1], ids, settings, temperature())
    expected = naive(rows[0].tolist(), rows[1].tolist(), list(range(4)), settings)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert temperature.log_scale.grad.abs() > 0
    fixed = Temperature(LossSettings(temperature=0.002))
    fixed.keep_in_bounds()
    assert not fixed.log_scale.requires_grad
    assert float(fixed()) == pytest.approx(500.0)


def test_a_learned_temperature_comes_back_from_its_bound() -> None:
    """Two queries that are each nearer to the other's target: a smaller 1 / tau is better."""
    import torch

    from models.instructcir.loss import Temperature, contrastive_loss

    settings = LossSettings(temperature=0.01, learnable_temperature=True)
    temperature = Temperature(settings)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1.0)
    with torch.no_grad():
        temperature.log_scale.fill_(9.0)  # a step beyond the bound
    temperature.keep_in_bounds()
    assert float(temperature().detach()) == pytest.approx(100.0)
    queries = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    loss = contrastive_loss(queries, queries.flip(0), torch.arange(2), settings, temperature())
    loss.backward()
    optimizer.step()
    temperature.keep_in_bounds()
    assert float(temperature().detach()) < 99.0


CASES: list[tuple[bool, LossSettings]] = [
    (True, LossSettings(temperature=0.1)),
    (False, LossSettings(temperature=0.1, symmetric=True)),
    (True, LossSettings(temperature=0.1, gather=False)),
]
"""Whether targets come from the moving average, and the loss."""


def new_step(folder: Path, ema: bool, settings: LossSettings) -> Any:
    """A training step's forward pass, as DistributedDataParallel wants it: one module."""
    import torch

    from models.instructcir.ema import EmaTarget
    from models.instructcir.loss import contrastive_loss
    from tests.fakes.small_networks import small_network

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small_network(folder)
            self.target = EmaTarget(self.network).network if ema else self.network

        def forward(self, references: Any, ids: Any, images: Any, target_ids: Any) -> torch.Tensor:
            queries = self.network.query(references, ids).z
            with torch.set_grad_enabled(not ema):
                targets = self.target.target(images)
            return contrastive_loss(queries, targets, target_ids, settings)

    return Step()


def take_step(module: Any, step: Any, share: slice) -> dict[str, Any]:
    """Loss and gradients of a share of the batch."""
    import torch

    from tests.fakes.small_networks import pixels

    ids = step.network.text_ids(TEXTS)
    loss = module(pixels(8)[share], ids[share], pixels(8, seed=1)[share], torch.tensor(IDS)[share])
    loss.backward()
    grads = {n: p.grad for n, p in step.network.named_parameters() if p.requires_grad}
    return {"loss": loss.detach(), "grads": grads}


def in_process(rank: int, folder: Path) -> None:
    """One of two real processes, which talk over gloo."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    results = []
    for ema, settings in CASES:
        step = new_step(folder, ema, settings)
        share = slice(4 * rank, 4 * rank + 4)
        results.append(take_step(DistributedDataParallel(step), step, share))
    torch.save(results, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    import torch
    from torch import multiprocessing

    from tests.fakes.small_networks import write_clip

    write_clip(tmp_path)
    multiprocessing.spawn(in_process, (tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for (ema, settings), first, second in zip(CASES, *ranks, strict=True):
        step = new_step(tmp_path, ema, settings)
        whole = take_step(step, step, slice(None))
        loss = float(first["loss"] + second["loss"]) / 2
        if not settings.gather:  # the comparison can fail: fewer negatives, a smaller loss
            assert loss < float(whole["loss"]) - 0.1
            continue
        assert loss == pytest.approx(float(whole["loss"]), abs=1e-5)
        assert float(first["loss"]) != pytest.approx(float(second["loss"]), abs=1e-3)
        for name, grad in whole["grads"].items():
            # A key's bias moves all scores alike, so its gradient is rounding and nothing else.
            least = 1e-6 if name.endswith("key.bias") else 1e-4 * float(grad.abs().max())
            for rank in (first, second):
                torch.testing.assert_close(
                    rank["grads"][name], grad, atol=least, rtol=1e-3, msg=name
                )
