"""The contrastive loss of InstructCIR (equation 2), over one process or many.

    L = -1/B sum_i log( exp(k(q_i, t_i) / tau) / sum_j exp(k(q_i, t_j) / tau) ),   k = cosine

where j runs over the targets of all processes except those that are the same image as t_i.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from models.instructcir.settings import LARGEST_SCALE, LossSettings
from models.training.contrastive import nce


class Temperature(nn.Module):
    """tau: a constant, or trained as log(1 / tau) with 1 / tau at most 100."""

    log_scale: torch.Tensor

    def __init__(self, settings: LossSettings) -> None:
        """Start at the settings' temperature."""
        super().__init__()
        scale = torch.tensor(math.log(1.0 / settings.temperature))
        if settings.learnable_temperature:
            self.log_scale = nn.Parameter(scale[None])  # FSDP shards no scalars
        else:
            self.register_buffer("log_scale", scale)

    def forward(self) -> torch.Tensor:
        """1 / tau, a scalar."""
        return self.log_scale.exp().squeeze()

    @torch.no_grad()
    def keep_in_bounds(self) -> None:
        """Bring a trained 1 / tau back to at most 100, after each optimiser step.

        Not in `forward`: at the bound that would take the gradient, and the way back, away.
        """
        if self.log_scale.requires_grad:
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))


def contrastive_loss(
    queries: torch.Tensor,
    targets: torch.Tensor,
    target_ids: torch.Tensor,
    settings: LossSettings,
    scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Equation 2, computed in fp32; see `models.training.contrastive`.

    Args:
        queries: (B, d) z of the queries, normalised here.
        targets: (B, d) z of their targets, normalised here.
        target_ids: (B,) int64, equal where targets are the same image.
        settings: Temperature, gathering, masking, symmetry.
        scale: 1 / tau where it is trained; see `Temperature`.

    Returns:
        A scalar, the mean over this process's rows.
    """
    ids = target_ids if settings.mask_repeats else None
    by = 1.0 / settings.temperature if scale is None else scale
    loss = nce(queries, targets, by, ids, gather=settings.gather)
    if not settings.symmetric:
        return loss
    return (loss + nce(targets, queries, by, ids, gather=settings.gather)) / 2
