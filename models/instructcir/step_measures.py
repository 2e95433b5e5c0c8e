"""Measurements between two steps: loss, rates, finite weights, recall of held-out triplets."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Final

import torch
from lightning.pytorch import Trainer
from torch.distributed.tensor import DTensor

from models.instructcir.data_module import ReformulationData
from models.instructcir.ema import momentum
from models.instructcir.lightning_module import ReformulationModule
from models.instructcir.loss import gather
from models.instructcir.recall import Recall, recall
from models.instructcir.schedules import rate_factor
from models.instructcir.training_settings import Branch

_STARTS_AGAIN: Final = (
    "A changed setting is another training, which starts at its first step; the state saved "
    "before serves only the settings as they are"
)


def validate(
    trainer: Trainer, module: ReformulationModule, data: ReformulationData
) -> dict[str, Recall]:
    """Recall of held-out triplets among all held-out targets, by branch of the query.

    The triplets are shared out over the processes, each of which encodes equally many.
    """
    rows = data.validation
    count, world = len(rows.triplets), trainer.world_size
    each = -(-count // world)
    mine = [(trainer.global_rank * each + i) % count for i in range(each)]
    size = max(1, data.settings.batch_size // world)
    module.eval()
    parts: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for number, batch in enumerate(data.still_batches(rows, mine, size)):
            moved = trainer.strategy.batch_to_device(batch)
            encoded = trainer.strategy.validation_step(moved, number)
            for name, values in encoded.items():
                parts.setdefault(name, []).append(values)
        whole = {name: torch.cat(values) for name, values in parts.items()}
        if world > 1:
            whole = {name: gather(values) for name, values in whole.items()}
    module.train()
    found = {name: values[:count].float().cpu() for name, values in whole.items()}
    targets = found.pop("target")
    return {name: recall(queries, targets, rows.target_ids) for name, queries in found.items()}


def validation_row(found: dict[str, Recall], branch: Branch) -> dict[str, float]:
    """The curves' values of a validation: every recall, and the `score` of the chosen branch."""
    row = {
        f"{name}_{measure}": value
        for name, values in found.items()
        for measure, value in asdict(values).items()
    }
    return row | {"score": (found.get(branch) or found["online"]).score}


def checked_loss(trainer: Trainer, module: ReformulationModule) -> float:
    """The loss of the last batch, a mean over all devices.

    Raises:
        FloatingPointError: It is not finite.
    """
    loss = float(trainer.strategy.reduce(module.step_loss))
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {trainer.global_step}. Lower training.new_learning_rate "
            "or training.learning_rate, lengthen training.warmup, keep training.clip at 1, or "
            f"raise loss.temperature. {_STARTS_AGAIN}"
        )
    return loss


def check_weights(trainer: Trainer) -> None:
    """Refuse weights that are not finite, on all devices alike: such a state leads nowhere.

    Raises:
        FloatingPointError: A weight is not finite.
    """
    trained = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in trained]
    # The largest of each, since sums of squares would overflow; a part may be empty.
    largest = torch._foreach_norm([part.detach() for part in parts if part.numel()], torch.inf)
    broken = ~torch.isfinite(torch.stack(largest)).all()
    if float(trainer.strategy.reduce(broken.float())) > 0:
        raise FloatingPointError(
            f"weights are not finite after step {trainer.global_step}, though the loss still was. "
            "Lower training.new_learning_rate or training.learning_rate, or keep training.clip at "
            f"1. {_STARTS_AGAIN}"
        )


def step_row(trainer: Trainer, module: ReformulationModule) -> dict[str, float]:
    """The curves' values of the last step: loss, rates, gradient, temperature, momentum."""
    # The schedule has moved on already: these are the rates that the step was taken with.
    taken, total = trainer.global_step - 1, module.total_steps
    factor = rate_factor(taken, total, module.training_settings.warmup)
    rates = {
        f"lr_{group['name'].split('_')[0]}": group["initial_lr"] * factor
        for group in trainer.optimizers[0].param_groups
    }
    row: dict[str, float] = {
        "loss": checked_loss(trainer, module),
        **rates,
        "gradient_norm": float(module.step_norm),
        "temperature": 1.0 / float(module.temperature().detach()),
    }
    if module.ema is not None:
        row["momentum"] = momentum(module.ema.settings, taken, total)
    return row
