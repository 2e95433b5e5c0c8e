"""TransAgg's choices as named values (Liu et al., 2023)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from models.settings import Settings

MaskMode: TypeAlias = Literal["masked", "train_plus_one", "eval_as_torch"]
TrainedTowers: TypeAlias = Literal["text", "neither", "both"]


class TransAggSettings(Settings):
    """The fusion transformer, its combiner and the loss."""

    mask: MaskMode = "masked"
    """What padding behind a text is to the fusion transformer. `masked`: nobody attends to it.
    `train_plus_one`: its logits are raised by one, always; the released code trains so, since it
    joins a mask of truth values and a mask of numbers. `eval_as_torch`: raised by one in
    training, masked in evaluation, as PyTorch's fused layers read the same mask there; the
    published weights were made and measured so."""
    trained: TrainedTowers = "text"
    """Towers of the backbone that are trained. Targets are always embedded by the image tower
    as it is, and `both` trains it on the references' side alone."""
    layers: int = Field(2, ge=1)
    """Layers of the fusion transformer."""
    heads: int = Field(8, ge=1)
    """Its heads; they divide the width of the joint space."""
    feedforward: int = Field(2048, ge=1)
    """Width of its feed-forward layers."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropped share in the fusion transformer and the combiner while training."""
    scale: float = Field(100.0, gt=0)
    """1 / temperature of the loss."""
