"""The re-ranker's score of a query and a candidate: twin encoder and head.

Shape legend: Q queries, C candidates, L text tokens, M image tokens, W text and V image width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import BlipTextConfig

from models.reranking.twin_layers import TwinTextEncoder


class CrossEncoder(nn.Module):
    """Reads a fused query and a candidate image; a state dict has the published names."""

    def __init__(self, config: BlipTextConfig) -> None:
        """Make it with random weights."""
        super().__init__()
        width = config.hidden_size
        self.text_encoder = TwinTextEncoder(config)
        self.cls_head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(
        self, fused: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Scores (Q, C), the higher the better; they may be compared within a query.

        Args:
            fused: (Q, L, W) the filter's states of text and reference.
            ids: (Q, L) token ids.
            mask: (Q, L) bool, true where a token is.
            images: (C, M, V) tokens of the candidates, or (Q, C, M, V), each query's own.
        """
        first, second = self.text_encoder(fused, ids, mask, images, kept=1)
        # The head has two outputs and the published code reads the first one.
        scores: torch.Tensor = self.cls_head(torch.cat([first[..., 0, :], second[..., 0, :]], -1))
        return scores[..., 0]


def matching_loss(scores: torch.Tensor, target_ids: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy over the candidates of a batch, in fp32: query i belongs to candidate i.

    Args:
        scores: (B, B) of query i and candidate j.
        target_ids: (B,) equal where candidates are the same image, which are then no negatives;
            None takes every other candidate as a negative.
    """
    own = torch.arange(len(scores), device=scores.device)
    scores = scores.float()
    if target_ids is not None:
        repeats = target_ids[:, None] == target_ids[None, :]
        repeats.fill_diagonal_(False)
        scores = scores.masked_fill(repeats, float("-inf"))
    return functional.cross_entropy(scores, own)


def choice_loss(scores: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over each query's own candidates (Q, C), in fp32: the first is its target."""
    first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return functional.cross_entropy(scores.float(), first)
