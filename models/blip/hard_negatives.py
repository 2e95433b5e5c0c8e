"""HN-NCE of CoVR: InfoNCE whose negatives count the more, the nearer they are.

With s = cosine / tau, and B queries and targets,

    w_ij = (B - 1) exp(beta s_ij) / sum_{k != i} exp(beta s_ik)  for j != i,    w_ii = alpha
    L    = mean_i( -s_ii + log sum_j w_ij exp(s_ij) )

in both directions, summed. beta = 0 and alpha = 1 is InfoNCE in both directions, summed.
"""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import torch
from torch import distributed
from torch.nn import functional

from models.training.contrastive import gathered, processes

Form: TypeAlias = Literal["paper", "code"]

_NEVER: Final = -1e9
"""Stands for minus infinity where a row may have nothing else: its gradients stay numbers."""


def hn_nce(
    queries: torch.Tensor,
    targets: torch.Tensor,
    scale: torch.Tensor | float,
    target_ids: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    form: Form = "paper",
) -> torch.Tensor:
    """The loss in fp32, over the queries and targets of all processes.

    Args:
        queries: (B, d), normalised here.
        targets: (B, d), normalised here.
        scale: 1 / tau.
        target_ids: (B,) int64, equal where targets are the same image, which are then no
            negatives; None takes every other pair as a negative.
        alpha: Weight of the positive.
        beta: Sharpness of the negatives' weights.
        form: `paper`, or `code`: the released code divides w_ij of the first direction by the sum
            of row j.

    Returns:
        A scalar, the mean over this process's rows.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries = functional.normalize(queries.float(), dim=-1)
        targets = functional.normalize(targets.float(), dim=-1)
        rows = len(queries)
        first = 0
        if processes() > 1:
            first = distributed.get_rank() * rows
            queries, targets = gathered(queries), gathered(targets)
            target_ids = None if target_ids is None else gathered(target_ids)
        similarity = scale * queries @ targets.T
        own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
        same = own if target_ids is None else target_ids[:, None] == target_ids[None, :]
        forth = one_direction(
            similarity, same, own, alpha=alpha, beta=beta, by_column=form == "code"
        )
        back = one_direction(similarity.T, same, own, alpha=alpha, beta=beta)
        return (forth + back)[first : first + rows].mean()


def one_direction(
    similarity: torch.Tensor,
    same: torch.Tensor,
    own: torch.Tensor,
    *,
    alpha: float,
    beta: float,
    by_column: bool = False,
) -> torch.Tensor:
    """The loss (N,) of each row's choice among the columns.

    Args:
        similarity: s (N, N).
        same: (N, N) bool; negatives are where it is false.
        own: (N, N) bool, the diagonal.
        alpha: Weight of the positive.
        beta: Sharpness of the negatives' weights.
        by_column: Divide the weight of (i, j) by the sum of row j; see `Form`.
    """
    sharpened = (beta * similarity).masked_fill(same, _NEVER)
    sums = sharpened.logsumexp(dim=1)
    counts = (~same).sum(dim=1).clamp(min=1).log()
    weights = sharpened + counts[:, None] - (sums[None, :] if by_column else sums[:, None])
    weights = weights.masked_fill(same, float("-inf")).masked_fill(own, math.log(alpha))
    return (weights + similarity).logsumexp(dim=1) - similarity.diagonal()
