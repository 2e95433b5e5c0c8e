"""TransAgg's fusion transformer and combiner, under the names of its published files.

    F   = fusion([text tokens ; SEP ; image tokens])
    u   = W2 drop(relu(W1 [F_image ; F_text])),   F_image, F_text: F at class and end-of-text token
    w   = W3 u                                                             three free weights
    q   = w_0 text + w_1 u + w_2 image            text, image: as the towers give them

Shape legend: B batch, L text tokens, N image tokens (class token first), S = L + 1 + N, d width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.composed.clip_towers import TextTokens
from models.composed.heads import require_heads
from models.composed.transagg_settings import TransAggSettings


class TransAggHead(nn.Module):
    """Everything of TransAgg that its backbone does not have."""

    def __init__(self, dim: int, settings: TransAggSettings) -> None:
        """Make it for tokens of width `dim`.

        Raises:
            ValueError: The heads do not divide the width.
        """
        super().__init__()
        require_heads(settings.heads, dim)
        self.settings = settings
        self.sep_token = nn.Parameter(torch.randn(1, 1, dim))
        layer = nn.TransformerEncoderLayer(
            dim,
            settings.heads,
            settings.feedforward,
            settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.fusion = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.combiner_layer = nn.Linear(2 * dim, 8 * dim)
        self.output_layer = nn.Linear(8 * dim, dim)
        self.weighted_layer = nn.Linear(dim, 3)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, text: TextTokens, padding: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The query vectors.

        Args:
            text: Of the B texts.
            padding: (B, L) bool, true at padding.
            image: (B, N, d) projected tokens of the reference images.

        Returns:
            (B, d), not normalised.
        """
        rows, length = padding.shape
        sep = self.sep_token.expand(rows, 1, -1)
        joined = torch.cat([text.tokens, sep, image], dim=1)
        fused = self.fused(joined, self.bias(padding, joined.shape[1]))
        read = fused[torch.arange(rows, device=fused.device), text.ends]
        both = torch.cat([fused[:, length + 1], read], dim=-1)
        joint = self.output_layer(self.dropout(functional.relu(self.combiner_layer(both))))
        weights = self.weighted_layer(joint)[..., None]
        parts = torch.stack([text.pooled, joint, image[:, 0]], dim=1)
        return (weights * parts).sum(dim=1)

    def bias(self, padding: torch.Tensor, length: int) -> torch.Tensor:
        """What is added to attention logits, (B, 1, 1, S): of the mask mode, at padding.

        Args:
            padding: (B, L) bool.
            length: S.
        """
        mode = self.settings.mask
        learns = self.training or (torch.is_grad_enabled() and self.sep_token.requires_grad)
        plus_one = mode == "train_plus_one" or (mode == "eval_as_torch" and learns)
        at_padding = 1.0 if plus_one else float("-inf")
        added = torch.zeros_like(padding, dtype=self.sep_token.dtype)
        added = added.masked_fill(padding, at_padding)
        return functional.pad(added, (0, length - padding.shape[1]))[:, None, None]

    def fused(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The fusion transformer on (B, S, d).

        Its modules are PyTorch's and their computation is written out: in evaluation PyTorch
        chooses a fused form in which any bias but zero means "masked".
        """
        for layer in self.fusion.layers:
            x = x + layer.dropout1(_attended(layer.self_attn, layer.norm1(x), bias))
            hidden = layer.dropout(functional.gelu(layer.linear1(layer.norm2(x))))
            x = x + layer.dropout2(layer.linear2(hidden))
        return x


def _attended(
    attention: nn.MultiheadAttention, x: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Self-attention of x (B, S, d) with something added to its logits."""
    heads = attention.num_heads
    qkv = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    found = functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=bias.to(q.dtype),
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    return attention.out_proj(found.transpose(1, 2).flatten(2))
