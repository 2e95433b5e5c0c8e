"""MagicLens's choices as named values (Zhang et al., ICML 2024, arXiv:2403.19651)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from models.settings import Settings

TrainedTowers: TypeAlias = Literal["both", "neither"]


class MagicLensSettings(Settings):
    """The fusion transformer, its pooling and the loss."""

    layers: int = Field(4, ge=1)
    """Layers of the fusion transformer."""
    heads: int = Field(8, ge=1)
    """Heads of its attention and of the pooling; they divide the width of the joint space. 8 in
    the published base model, 16 in the large one; a published file tells both numbers."""
    feedforward: int = Field(2048, ge=1)
    """Width of its feed-forward layers: four times the joint space's."""
    trained: TrainedTowers = "both"
    """Towers of the backbone that are trained with the fusion."""
    query_negatives: bool = True
    """Whether the reference images of a batch, without a text, are negatives of its queries too."""
    scale: float = Field(100.0, gt=0)
    """1 / temperature of the loss."""
