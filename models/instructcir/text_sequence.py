"""CLIP's text tower read as a whole sequence, and the texts it reads as ids.

The tower is causal, so nothing behind a text's end-of-text token changes the positions before
it: cropping a batch to its longest text is exact wherever the later positions are not read.
Shape legend: B batch, L tokens, T text-tower width, d joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.encoders.text_tokens import TextTokens
from models.encoders.text_tower import pad_rows


class TextReading(NamedTuple):
    """A batch of texts as the text tower understands them.

    Attributes:
        sequence: (B, L, T) output of the last layer norm, un-projected: S of the paper.
        ends: (B,) position of each end-of-text token.
        pooled: (B, d) projected end-of-text token: e_T, not normalised.
    """

    sequence: torch.Tensor
    ends: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class TextIds:
    """Turns texts into padded token ids; picklable, for the workers that prepare batches.

    Attributes:
        tokens: The backbone's tokenizer.
        whole_context: Pad to the context length instead of to the longest text.
    """

    tokens: TextTokens
    whole_context: bool = False

    def batch(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids of a batch of triplets, by the name that the network reads them under."""
        return {"texts": self(texts)}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids (B, L) int64, padded with 0 behind the end-of-text token."""
        ids, _, _ = pad_rows([self.tokens.row(text) for text in texts])
        if self.whole_context:
            return functional.pad(ids, (0, self.tokens.context_length - ids.shape[1]))
        return ids


class TextSequence(nn.Module):
    """The text half of an open_clip model; `encoders.text_tower.why_unlike_clip` says which."""

    def __init__(self, model: nn.Module, end: int) -> None:
        """Take over the tower's modules without copying weights.

        Args:
            model: An open_clip model.
            end: Id of the end-of-text token.
        """
        super().__init__()
        tower = getattr(model, "text", model)
        self.end = end
        self.checkpointing = False
        self.embedding: nn.Embedding = tower.token_embedding
        self.positional: nn.Parameter = tower.positional_embedding
        self.blocks: nn.ModuleList = tower.transformer.resblocks
        self.ln_final: nn.Module = tower.ln_final
        self.projection: nn.Linear | nn.Parameter | None = tower.text_projection

    @property
    def width(self) -> int:
        """T, width of the token sequence."""
        return self.embedding.embedding_dim

    @property
    def dim(self) -> int:
        """d, width of the joint space."""
        if self.projection is None:
            return self.width
        linear = isinstance(self.projection, nn.Linear)
        return int(self.projection.out_features if linear else self.projection.shape[1])

    def forward(self, ids: torch.Tensor) -> TextReading:
        """Read texts (B, L), each with one end-of-text token."""
        x = self.embedding(ids) + self.positional[: ids.shape[1]]
        later = torch.full((ids.shape[1],) * 2, float("-inf"), device=ids.device, dtype=x.dtype)
        later = later.triu_(1)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(
                    block, x, attn_mask=later, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = block(x, attn_mask=later)
        sequence = self.ln_final(x)
        ends = self.ends(ids)
        return TextReading(sequence, ends, self._projected(sequence, ends))

    def ends(self, ids: torch.Tensor) -> torch.Tensor:
        """Position (B,) of each row's first end-of-text token."""
        return (ids == self.end).int().argmax(dim=1)

    def _projected(self, sequence: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        at_end = sequence[torch.arange(len(ends), device=ends.device), ends]
        if self.projection is None:
            return at_end
        # Like the image tower's head: small, and never in half precision.
        with torch.autocast(sequence.device.type, enabled=False):
            if isinstance(self.projection, nn.Linear):
                return self.projection(at_end.to(self.projection.weight.dtype))
            return at_end.to(self.projection.dtype) @ self.projection
