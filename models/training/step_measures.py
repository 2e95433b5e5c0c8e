"""Measurements between two steps: the loss, the rates, and whether the weights are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from lightning.pytorch import Trainer
from torch.distributed.tensor import DTensor

_STARTS_AGAIN: Final = (
    "A changed setting is another training, which starts at its first step; the state saved "
    "before serves only the settings as they are"
)


def checked_loss(trainer: Trainer, own: torch.Tensor) -> float:
    """The loss of the last batch, a mean over all devices.

    Args:
        trainer: The running one.
        own: This process's loss.

    Raises:
        FloatingPointError: It is not finite.
    """
    loss = float(trainer.strategy.reduce(own))
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {trainer.global_step}. Lower training.new_learning_rate "
            "or training.learning_rate, lengthen training.warmup, keep training.clip at 1, or "
            f"raise the temperature of the loss. {_STARTS_AGAIN}"
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


def rates_of(trainer: Trainer, factor: Callable[[int], float]) -> dict[str, float]:
    """`lr_pretrained` and `lr_new` of the last step, as far as there are such parameters.

    Args:
        trainer: The running one.
        factor: Step -> share of the highest rate.
    """
    # The schedule has moved on already: these are the rates that the step was taken with.
    share = factor(trainer.global_step - 1)
    return {
        f"lr_{group['name'].split('_')[0]}": group["initial_lr"] * share
        for group in trainer.optimizers[0].param_groups
    }
