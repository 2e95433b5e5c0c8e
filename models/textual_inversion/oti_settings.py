"""Settings of SEARLE-OTI: a pseudo token optimised for each image (`models.textual_inversion.oti`).

Baldrati et al., Zero-Shot Composed Image Retrieval with Textual Inversion, ICCV 2023.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from models.settings import Settings


class OtiSettings(Settings):
    """How a pseudo token is optimised; everything here changes tokens."""

    steps: int = Field(350, ge=1)
    """Optimiser steps for each image."""
    learning_rate: float = Field(0.02, gt=0)
    """AdamW's, constant."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average, which is the result; it starts at the random token."""
    deviation: float = Field(0.02, gt=0)
    """Standard deviation of the random tokens that optimisation starts from."""
    image_weight: float = Field(1.0, ge=0)
    """Weight of the distance between a sentence with the token and the image."""
    phrase_weight: float = Field(0.5, ge=0)
    """Weight of the distance between a phrase and the same with the token as its concept."""
    concepts: int = Field(15, ge=1)
    """Nearest concepts of an image whose phrases are drawn from."""
    seed: int = 42
    """Of random tokens and of all draws, which follow from the image and not from its batch."""

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if not self.image_weight + self.phrase_weight:
            raise ValueError("image_weight and phrase_weight are both 0; one of them must not be")
        return self
