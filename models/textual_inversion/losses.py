"""Losses of textual inversion."""

from __future__ import annotations

import torch
from torch.nn import functional


def simclr(one: torch.Tensor, other: torch.Tensor, temperature: float = 0.25) -> torch.Tensor:
    """SimCLR's form over 2B vectors (SEARLE, equation 5; PALAVRA's contrastive term).

    For each of the stacked unit vectors z_1 ... z_2B the positive is its partner in the other
    half, and all remaining 2B - 2 vectors are negatives:

        L = -1/2B sum_i log( exp(z_i.z_p(i) / tau) / sum_{j != i} exp(z_i.z_j / tau) )

    Args:
        one: (B, d), normalised here.
        other: (B, d), normalised here.
        temperature: tau.
    """
    rows = functional.normalize(torch.cat([one.float(), other.float()]), dim=-1)
    count = len(one)
    own = torch.eye(2 * count, dtype=torch.bool, device=rows.device)
    logits = (rows @ rows.T / temperature).masked_fill(own, float("-inf"))
    partners = torch.arange(2 * count, device=rows.device).roll(count)
    return functional.cross_entropy(logits, partners)


def cosine_distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 - cos of each row: (B, d), (B, d) -> (B,)."""
    return 1 - functional.cosine_similarity(one.float(), other.float(), dim=-1)
