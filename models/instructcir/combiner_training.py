"""Stage two: everything is frozen, and the combiner alone learns from the same loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from models.instructcir.combiner import Combiner
from models.instructcir.loss import contrastive_loss
from models.instructcir.settings import LossSettings
from models.random_streams import random_stream


@dataclass(frozen=True)
class FrozenFeatures:
    """Embeddings of all triplets by the frozen network; N rows, nothing normalised.

    Attributes:
        z: (N, d) queries.
        text: (N, d) pure text embeddings.
        image_null: (N, d) reference images with the null text; None where the combiner does not
            read them.
        targets: (N, d) target images.
        target_ids: (N,) equal where targets are the same image.
    """

    z: torch.Tensor
    text: torch.Tensor
    image_null: torch.Tensor | None
    targets: torch.Tensor
    target_ids: torch.Tensor

    def combined(self, combiner: Combiner, rows: torch.Tensor) -> torch.Tensor:
        """The combined queries of some rows."""
        image = None if self.image_null is None else self.image_null[rows]
        return combiner.combine(self.z[rows], self.text[rows], image)


def train_combiner(
    combiner: Combiner,
    features: FrozenFeatures,
    loss: LossSettings,
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> list[float]:
    """Train a combiner in place; returns the loss of each step.

    Args:
        combiner: Fresh from `new_combiner`.
        features: Of the training triplets.
        loss: The loss of stage one; its temperature is the one that stage one ended with.
        learning_rate: AdamW's, constant, without weight decay.
        epochs: Passes over the rows, each in another order; a last incomplete batch is left out.
        batch_size: Rows in a step; their targets are each other's negatives.
        seed: Of order and dropout.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    optimizer = torch.optim.AdamW(combiner.parameters(), lr=learning_rate, weight_decay=0.0)
    size = min(batch_size, len(features.z))
    losses: list[float] = []
    combiner.train()
    with random_stream(seed, 0, torch.device("cpu")):
        for _ in range(epochs):
            order = torch.randperm(len(features.z))
            for start in range(0, len(order) - size + 1, size):
                rows = order[start : start + size]
                value = contrastive_loss(
                    features.combined(combiner, rows),
                    features.targets[rows],
                    features.target_ids[rows],
                    loss,
                )
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                losses.append(float(value.detach()))
                if not math.isfinite(losses[-1]):
                    raise FloatingPointError(
                        f"the combiner's loss is {losses[-1]} at step {len(losses)}; lower "
                        f"training.combiner_learning_rate ({learning_rate})"
                    )
    combiner.eval()
    return losses
