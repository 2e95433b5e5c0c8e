"""BLIP's two towers and what composed retrieval computes with them.

An image becomes tokens of a vision transformer. A text is read alone, or *over* an image: each
layer of the text tower then attends to all image tokens between its self-attention and its
feed-forward part. Shape legend: B batch, N image tokens, W their width, L text tokens, T their
width, d joint space.
"""

from __future__ import annotations

from typing import Final, Protocol, cast

import torch
from torch import nn
from transformers import BlipTextModel, BlipVisionModel

from models.blip.shape import TextShape, VisionShape

TOKENS: Final = 3
"""Axes of tokens, where pictures have four."""


class ImageTokens(Protocol):
    """A vision transformer whose tokens a text tower can attend to."""

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised -> (B, N, W), the class token first, after the last norm."""


class BlipVision(BlipVisionModel):
    """BLIP's own vision transformer."""

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `ImageTokens`."""
        found: torch.Tensor = self(pixels).last_hidden_state
        return found


class BlipText(BlipTextModel):
    """BLIP's text tower; its layers can be recomputed, though the library's class denies it."""

    supports_gradient_checkpointing = True


class BlipTowers(nn.Module):
    """Image tower, text tower and their projections; no result is normalised."""

    def __init__(self, vision: nn.Module, text: BlipTextModel, shape: TextShape) -> None:
        """Join towers with new projections.

        Args:
            vision: Has the method of `ImageTokens`.
            text: Made of `shape`.
            shape: Of the text tower and the joint space.
        """
        super().__init__()
        self.shape = shape
        self.vision_model = vision
        self.text_encoder = text
        self.vision_proj = nn.Linear(shape.memory, shape.dim)
        self.text_proj = nn.Linear(shape.width, shape.dim)

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """All tokens of images (B, 3, H, W), (B, N, W); such tokens are taken for images too."""
        if pixels.ndim == TOKENS:
            return pixels
        return cast(ImageTokens, self.vision_model).tokens(pixels)

    def image_vector(self, tokens: torch.Tensor) -> torch.Tensor:
        """The projected class token of `image_tokens`, (B, d)."""
        projected: torch.Tensor = self.vision_proj(tokens[:, 0])
        return projected

    def text_states(
        self, ids: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The text tower's last states, (B, L, T).

        Args:
            ids: (B, L) token ids, the read-out token first.
            mask: (B, L), true at tokens and false at padding.
            tokens: (B, N, W) of the images that the texts are read over; None reads texts alone.
                All of them are seen: the text tower knows no mask of image tokens.
        """
        states: torch.Tensor = self.text_encoder(
            input_ids=ids, attention_mask=mask.long(), encoder_hidden_states=tokens
        ).last_hidden_state
        return states

    def text_vector(
        self, ids: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The projected state of the first token, (B, d); see `text_states`."""
        projected: torch.Tensor = self.text_proj(self.text_states(ids, mask, tokens)[:, 0])
        return projected

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the inputs of the text tower's layers for the backward pass."""
        if enabled:
            self.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.text_encoder.gradient_checkpointing_disable()

    def renew_buffers(self) -> None:
        """Make what no file holds, after the towers got their weights off `meta`."""
        embeddings = self.text_encoder.embeddings
        embeddings.position_ids = torch.arange(self.shape.positions).expand((1, -1))


def new_towers(vision: nn.Module, shape: TextShape) -> BlipTowers:
    """A new text tower and projections on an image tower, on torch's default device."""
    return BlipTowers(vision, BlipText(shape.config, add_pooling_layer=False), shape)


def blip_without_weights(vision: VisionShape, text: TextShape) -> BlipTowers:
    """BLIP's own towers, whose weights are still to come."""
    with torch.device("meta"):
        towers = new_towers(BlipVision(vision.config), text)
    towers.renew_buffers()
    return towers
