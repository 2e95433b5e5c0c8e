"""Contrastive losses over the examples of all processes.

One-direction InfoNCE, with s a scale and k the cosine:

    NCE(q, t, s) = -1/B sum_i log( exp(s k(q_i, t_i)) / sum_j exp(s k(q_i, t_j)) )

where j runs over the targets of all processes except those that are the same image as t_i. With
several processes, the means over processes of a loss and of its gradients equal those of one
process with all rows; each process must bring equally many rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed
from torch.nn import functional


def paired(
    queries: torch.Tensor,
    targets: torch.Tensor,
    target_ids: torch.Tensor | None = None,
    *,
    gather: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """This process's queries and the targets of all, as unit vectors whose products are cosines.

    Args:
        queries: (B, d), normalised here in fp32.
        targets: (B, d), likewise.
        target_ids: (B,) int64, equal where targets are the same image; None: all differ.
        gather: Whether targets of other processes count.

    Returns:
        Queries (B, d), targets (N, d), the row (B,) of each query's own target among them, and
        (B, N) bool, true where another target is the same image as the own one.
    """
    queries = functional.normalize(queries.float(), dim=-1)
    targets = functional.normalize(targets.float(), dim=-1)
    gathering = gather and processes() > 1
    columns = gathered(targets) if gathering else targets
    first = distributed.get_rank() * len(queries) if gathering else 0
    own = torch.arange(len(queries), device=queries.device) + first
    if target_ids is None:
        repeats = torch.zeros(len(queries), len(columns), dtype=torch.bool, device=queries.device)
    else:
        ids = gathered(target_ids) if gathering else target_ids
        repeats = target_ids[:, None] == ids[None, :]
        repeats[torch.arange(len(own), device=own.device), own] = False
    return queries, columns, own, repeats


def nce(
    queries: torch.Tensor,
    targets: torch.Tensor,
    scale: torch.Tensor | float,
    target_ids: torch.Tensor | None = None,
    *,
    others: tuple[torch.Tensor, torch.Tensor] | None = None,
    gather: bool = True,
) -> torch.Tensor:
    """One-direction InfoNCE in fp32: each query chooses among all targets.

    Args:
        queries: (B, d), normalised here.
        targets: (B, d), normalised here.
        scale: s, 1 / temperature.
        target_ids: (B,) int64, equal where targets are the same image, which are then no
            negatives; None takes every other target as a negative.
        others: Vectors (M, d) and ids (M,) of further negatives, numbered as `target_ids` are;
            those that are the same image as a query's target are none of its negatives.
        gather: Whether targets and others of other processes are negatives.

    Returns:
        A scalar, the mean over this process's rows.

    Raises:
        ValueError: There are others without `target_ids`.
    """
    if others is not None and target_ids is None:
        raise ValueError("others are compared with the targets by their ids: give target_ids too")
    with torch.autocast(queries.device.type, enabled=False):
        rows, columns, own, repeats = paired(queries, targets, target_ids, gather=gather)
        logits = (scale * rows @ columns.T).masked_fill(repeats, float("-inf"))
        if others is not None and target_ids is not None:
            more, ids = others
            more = functional.normalize(more.float(), dim=-1)
            if gather and processes() > 1:
                more, ids = gathered(more), gathered(ids)
            same = target_ids[:, None] == ids[None, :]
            added = (scale * rows @ more.T).masked_fill(same, float("-inf"))
            logits = torch.cat([logits, added], dim=1)
        return functional.cross_entropy(logits, own)


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """Rows (B, ...) of all processes in rank order, (processes * B, ...), with gradients."""
    return _Gather.apply(rows)


def processes() -> int:
    """Processes that train together."""
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
