"""Reversed queries: the target with the text marked "backward" must lead back to the reference.

BLIP4CIR+Bi (Liu et al., WACV 2024) adds their loss to the forward one. With P_ij the query of
target j and reversed text i,

    L_r = -1/B sum_i log( exp(s k(P_ii, r_i)) / sum_j exp(s k(P_ij, r_i)) ),   k = cosine:

the reference stays, and the other targets of the batch stand in the query as negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import distributed
from torch.nn import functional

from models.training.contrastive import gathered, processes

Combine: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Image vectors (N, d) and text vectors (N, d) -> query vectors (N, d)."""


def reversed_nce(
    combine: Combine,
    targets: torch.Tensor,
    texts: torch.Tensor,
    references: torch.Tensor,
    scale: torch.Tensor | float,
    target_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """L_r in fp32 over the targets of all processes.

    Args:
        combine: Makes a query; it is called with B rows of every pair of a text and a target.
        targets: (B, d) vectors of the targets, as `combine` reads image vectors.
        texts: (B, d) vectors of the reversed texts.
        references: (B, d), normalised here.
        scale: s, 1 / temperature.
        target_ids: (B,) int64, equal where targets are the same image, which are then no
            negatives; None takes every other target as a negative.

    Returns:
        A scalar, the mean over this process's rows.
    """
    rows, alone = len(texts), processes() == 1
    others = targets if alone else gathered(targets)
    first = 0 if alone else distributed.get_rank() * rows
    own = torch.arange(rows, device=texts.device) + first
    queries = combine(others.repeat(rows, 1), texts.repeat_interleave(len(others), dim=0)).view(
        rows, len(others), -1
    )
    with torch.autocast(texts.device.type, enabled=False):
        queries = functional.normalize(queries.float(), dim=-1)
        answers = functional.normalize(references.float(), dim=-1)
        logits = scale * torch.einsum("ijd,id->ij", queries, answers)
        if target_ids is not None:
            ids = target_ids if alone else gathered(target_ids)
            repeats = target_ids[:, None] == ids[None, :]
            repeats[torch.arange(rows, device=own.device), own] = False
            logits = logits.masked_fill(repeats, float("-inf"))
        return functional.cross_entropy(logits, own)
