"""MagicLens's fusion: a picture and a text as two tokens, and one pooled vector.

    X0      = [v ; e]                                     v, e: vectors of picture and text
    Y       = X + A(n(X), n(X)),   X' = Y + W2 relu(W1 n(Y))              each layer
    q       = n(A'(p, X))                                 p: the learned query of the pooling

A caps its logits z at 50 tanh(z / 50). Logits of a layer are scaled by 1 / sqrt(h), those of the
pooling by softplus(s) / (ln 2 sqrt(h)), s learned for each of the h numbers of a head.
Shape legend: B batch, T queries of the attention, S tokens, N heads, h width of a head, d width.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from models.composed.heads import require_heads
from models.composed.magiclens_settings import MagicLensSettings

CAP: Final = 50.0
EPSILON: Final = 1e-6
POOLED: Final = 4
"""The pooling attends in so many times the width."""


class Attention(nn.Module):
    """Attention with capped logits.

    Attributes:
        heads: N.
        scales: (h,) s, where the scale of logits is learned; else None.
    """

    scales: nn.Parameter | None

    def __init__(self, dim: int, inside: int, heads: int, *, learned: bool) -> None:
        """Make it.

        Args:
            dim: d.
            inside: N h.
            heads: N.
            learned: Whether the scale of logits is.
        """
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, inside)
        self.key = nn.Linear(dim, inside)
        self.value = nn.Linear(dim, inside)
        self.post = nn.Linear(inside, dim)
        self.scales = nn.Parameter(torch.ones(inside // heads)) if learned else None

    def forward(self, asked: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T, d) and (B, S, d) -> (B, T, d)."""
        query, key, value = (
            layer(each).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, each in ((self.query, asked), (self.key, tokens), (self.value, tokens))
        )
        scale = query.shape[-1] ** -0.5
        if self.scales is not None:
            query = query * (functional.softplus(self.scales) / math.log(2))
        logits = CAP * torch.tanh(scale * query @ key.transpose(-1, -2) / CAP)
        return self.post((logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """One layer of the fusion transformer."""

    def __init__(self, dim: int, settings: MagicLensSettings) -> None:
        """Make it for tokens of width `dim`."""
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPSILON)
        self.attention = Attention(dim, dim, settings.heads, learned=False)
        self.second_norm = nn.LayerNorm(dim, EPSILON)
        self.expand = nn.Linear(dim, settings.feedforward)
        self.shrink = nn.Linear(settings.feedforward, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, S, d) -> (B, S, d)."""
        seen = self.norm(tokens)
        tokens = tokens + self.attention(seen, seen)
        return tokens + self.shrink(functional.relu(self.expand(self.second_norm(tokens))))


class MagicLensHead(nn.Module):
    """Everything of MagicLens that its backbone does not have."""

    def __init__(self, dim: int, settings: MagicLensSettings) -> None:
        """Make it for vectors of width `dim`.

        Raises:
            ValueError: The heads do not divide the width.
        """
        super().__init__()
        require_heads(settings.heads, dim)
        self.layers = nn.ModuleList([Layer(dim, settings) for _ in range(settings.layers)])
        self.asked = nn.Parameter(torch.randn(1, dim))
        self.pooling = Attention(dim, POOLED * dim, settings.heads, learned=True)
        self.norm = nn.LayerNorm(dim, EPSILON)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Vectors (B, d) of pictures and texts -> (B, d), not normalised."""
        tokens = torch.stack([image, text], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        pooled = self.pooling(self.asked.expand(len(tokens), -1, -1), tokens)
        return self.norm(pooled[:, 0])
