"""Both towers of a CLIP: pooled vectors, and every token in the joint space.

open_clip gives back patch tokens before its projection and without the class token, and the text
at its end alone; fusion models read all tokens, all projected.
Shape legend: B batch, L text tokens, N image tokens (class token first), d joint space.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from models.encoders.text_tower import why_unlike_clip
from models.instructcir.parts import BackboneUnsupported
from models.instructcir.text_sequence import TextSequence

PICTURES: Final = 4
"""Axes of pictures."""
TOKENS: Final = 3
"""Axes of tokens."""


class TextTokens(NamedTuple):
    """Texts as a fusion model reads them; nothing is normalised.

    Attributes:
        tokens: (B, L, d) every position, projected.
        ends: (B,) position of each end-of-text token.
        pooled: (B, d) the token there.
    """

    tokens: torch.Tensor
    ends: torch.Tensor
    pooled: torch.Tensor


class ClipTowers(nn.Module):
    """The towers of an open_clip model, taken over without copying weights.

    They stay in evaluation mode: the statistics of a ResNet's batch norms are frozen, as in
    CLIP4CIR, and a CLIP has no dropout.
    """

    def __init__(self, model: nn.Module, end: int) -> None:
        """Take over a model that `encoders.text_tower.why_unlike_clip` accepts.

        Args:
            model: An open_clip model.
            end: Id of the end-of-text token.
        """
        super().__init__()
        self.text = TextSequence(model, end)
        self.image = model.visual
        if isinstance(self.image, VisionTransformer):
            self.image.patch_dropout = nn.Identity()
        self.eval()

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        return self.text.dim  # timm's image towers do not say it

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode, whatever is asked for."""
        return super().train(False)

    def image_vector(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) -> (B, d), not normalised.

        What this or `image_tokens` made of pictures is taken in their place, here and there.
        """
        if pixels.ndim == PICTURES:
            return self.image(pixels)
        return pixels[:, 0] if pixels.ndim == TOKENS else pixels

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) -> (B, N, d): final norm and projection on every token.

        The first is `image_vector`.
        """
        if pixels.ndim != PICTURES:
            return pixels
        x = self.image.transformer(self.image._embeds(pixels))
        x = self.image.ln_post(x)
        return x if self.image.proj is None else x @ self.image.proj

    def text_vector(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, L) -> (B, d) at the end-of-text token, not normalised.

        Such vectors are taken in the place of token ids.
        """
        return ids if ids.is_floating_point() else self.text(ids).pooled

    def text_tokens(self, ids: torch.Tensor) -> TextTokens:
        """Token ids (B, L) -> every position, final norm and projection on each."""
        read = self.text(ids)
        projection = self.text.projection
        if projection is None:
            tokens = read.sequence
        elif isinstance(projection, nn.Linear):
            tokens = projection(read.sequence)
        else:
            tokens = read.sequence @ projection
        return TextTokens(tokens, read.ends, read.pooled)


def check_towers(model: nn.Module, tokenizer: object, name: str) -> None:
    """Refuse a backbone whose vectors cannot be learned from.

    Raises:
        BackboneUnsupported: With the reason, and the backbones to choose instead.
    """
    if reason := why_unlike_clip(model, tokenizer):
        raise _unsupported(name, reason)


def check_tokens(model: nn.Module, tokenizer: object, name: str) -> None:
    """Refuse a backbone whose image vector is not its projected class token.

    Raises:
        BackboneUnsupported: With the reason, and the backbones to choose instead.
    """
    visual = model.visual
    if not isinstance(visual, VisionTransformer):
        tower = type(visual).__name__
        raise _unsupported(name, f"its image tower is {tower}, not open_clip's VisionTransformer")
    if visual.attn_pool is not None or visual.pool_type != "tok":
        raise _unsupported(name, "its image vector is pooled, not read at the class token")
    check_towers(model, tokenizer, name)


def _unsupported(name: str, reason: str) -> BackboneUnsupported:
    return BackboneUnsupported(
        f"{name!r} cannot be built on: {reason}. Choose a CLIP such as ViT-B-32 or ViT-L-14"
    )
