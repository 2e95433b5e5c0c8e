"""A vision transformer's block with cross-attention on the text between its two halves.

Shape legend: B batch, N image tokens, L text tokens, W image width, T text width, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from open_clip.transformer import LayerNorm, ResidualAttentionBlock
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from models.instructcir.settings import Gate

KeysValues: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one block, (B or 1, H, L, W / H) each; 1 where all rows share a text."""


class CrossAttention(nn.Module):
    """Image tokens attend to text tokens: q = LNx(X), k = v = S, as many heads as the backbone.

    Weights start Xavier uniform and biases at zero, so that with gate `none` the paper's
    network starts away from CLIP's features; gate `zero_init` starts at them.
    """

    def __init__(self, width: int, text_width: int, heads: int, gate: Gate = "none") -> None:
        """Make a sub-layer.

        Args:
            width: W of the image tokens; a multiple of `heads`.
            text_width: T of the text tokens.
            heads: H, the backbone's.
            gate: Whether a scalar from 0 multiplies the output.
        """
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(text_width, width)
        self.value = nn.Linear(text_width, width)
        self.out = nn.Linear(width, width)
        # One number; of one axis, for FSDP shards no scalars.
        self.gate = nn.Parameter(torch.zeros(1)) if gate == "zero_init" else None
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def keys_values(self, sequence: torch.Tensor) -> KeysValues:
        """Keys and values of text tokens (B or 1, L, T)."""
        return self._split(self.key(sequence)), self._split(self.value(sequence))

    def forward(
        self, x: torch.Tensor, keys_values: KeysValues, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The text's contribution to image tokens, without the residual.

        Args:
            x: (B, N, W) image tokens.
            keys_values: Of the text, (B or 1, H, L, W / H) each.
            mask: (B, 1, 1, L), true where a text token is seen; None where all are.

        Returns:
            (B, N, W).
        """
        query = self._split(self.query(self.norm(x)))
        keys, values = (each.expand(len(x), -1, -1, -1) for each in keys_values)
        seen = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        out = self.out(seen.transpose(1, 2).flatten(2))
        return out if self.gate is None else self.gate.to(out.dtype) * out

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class CrossAttendedBlock(nn.Module):
    """Self-attention, cross-attention, MLP: each pre-norm and with its own residual."""

    def __init__(self, block: nn.Module, cross: CrossAttention | None) -> None:
        """Put `cross` into a pre-trained block of open_clip's; None leaves the block as it is."""
        super().__init__()
        self.block = block
        self.cross = cross

    def forward(
        self,
        x: torch.Tensor,
        sequence: torch.Tensor,
        mask: torch.Tensor | None,
        keys_values: KeysValues | None = None,
    ) -> torch.Tensor:
        """One block.

        Args:
            x: (B, N, W) image tokens.
            sequence: (B or 1, L, T) text tokens.
            mask: (B, 1, 1, L), true where a text token is seen; None where all are.
            keys_values: This block's keys and values of `sequence`, where they are known.

        Returns:
            (B, N, W).
        """
        block = self.block
        x = x + block.ls_1(self._self_attended(block.ln_1(x)))
        if self.cross is not None:
            known = self.cross.keys_values(sequence) if keys_values is None else keys_values
            x = x + self.cross(x, known, mask)
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    def _self_attended(self, normed: torch.Tensor) -> torch.Tensor:
        if isinstance(self.block, ResidualAttentionBlock):
            return self.block.attention(q_x=normed)
        return self.block.ln_attn(self.block.attn(normed))
