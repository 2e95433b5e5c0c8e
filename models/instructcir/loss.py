"""The contrastive loss of InstructCIR (equation 2), over one process or many.

    L = -1/B sum_i log( exp(k(q_i, t_i) / tau) / sum_j exp(k(q_i, t_j) / tau) ),   k = cosine

where j runs over the targets of all processes except those that are the same image as t_i.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

from models.instructcir.settings import LARGEST_SCALE, LossSettings


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
    """Equation 2, computed in fp32.

    With several processes, the means over processes of this loss and of its gradients equal those
    of one process with all rows; each process must bring equally many rows.

    Args:
        queries: (B, d) z of the queries, normalised here.
        targets: (B, d) z of their targets, normalised here.
        target_ids: (B,) int64, equal where targets are the same image.
        settings: Temperature, gathering, masking, symmetry.
        scale: 1 / tau where it is trained; see `Temperature`.

    Returns:
        A scalar, the mean over this process's rows.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries = functional.normalize(queries.float(), dim=-1)
        targets = functional.normalize(targets.float(), dim=-1)
        if scale is None:
            scale = queries.new_tensor(1.0 / settings.temperature)
        gathering = settings.gather and _processes() > 1
        ids = gather(target_ids) if gathering else target_ids
        first = distributed.get_rank() * len(queries) if gathering else 0
        own = torch.arange(len(queries), device=queries.device) + first

        def one_way(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
            logits = scale * rows @ (gather(columns) if gathering else columns).T
            if settings.mask_repeats:
                repeats = target_ids[:, None] == ids[None, :]
                repeats[torch.arange(len(own), device=own.device), own] = False
                logits = logits.masked_fill(repeats, float("-inf"))
            return functional.cross_entropy(logits, own)

        loss = one_way(queries, targets)
        return (loss + one_way(targets, queries)) / 2 if settings.symmetric else loss


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Rows (B, ...) of all processes in rank order, (processes * B, ...), with gradients."""
    return _Gather.apply(rows)


def _processes() -> int:
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


class _Gather(torch.autograd.Function):
    """All-gather; its backward sums the gradients of a row over all processes."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(rows)
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (gradient,) = gradients
        summed = gradient.contiguous()
        distributed.all_reduce(summed)
        first = distributed.get_rank() * ctx.rows
        return summed[first : first + ctx.rows]
