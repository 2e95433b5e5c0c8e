"""The loss of a training step: the query path against the targets of the moving average."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from models.instructcir.loss import contrastive_loss

if TYPE_CHECKING:
    from models.instructcir.network import QueryOutput
    from models.instructcir.settings import LossSettings
    from models.training.batches import Batch


def step_loss(
    query: Callable[[torch.Tensor, torch.Tensor], QueryOutput],
    target: Callable[[torch.Tensor], torch.Tensor],
    batch: Batch,
    settings: LossSettings,
    *,
    scale: torch.Tensor | None = None,
    targets_learn: bool = False,
) -> torch.Tensor:
    """The loss of a batch whose pictures are pixels, normalised (B, 3, H, W).

    Args:
        query: `query` of the network that is trained.
        target: `target` of the network that encodes targets.
        batch: See `models.training.batches.Batch`.
        settings: Of the contrastive loss.
        scale: 1 / temperature where it is trained.
        targets_learn: Whether gradients flow through the targets too.

    Returns:
        A scalar, the mean over this process's rows.
    """
    queries = query(batch["references"], batch["texts"]).z
    with torch.set_grad_enabled(targets_learn):
        targets = target(batch["targets"])
    return contrastive_loss(queries, targets, batch["target_ids"], settings, scale)
