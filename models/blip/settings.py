"""Settings of the systems that read a text over the reference image."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from models.settings import Settings

ON_BACKBONE: Final = frozenset({"text_layers", "dropout"})
"""Settings of a text tower that is new; where training starts from a network, that has its own."""


class EarlyFusionSettings(Settings):
    """The network, where it is built on a backbone and not on BLIP's published towers, and the
    temperature."""

    text_layers: int = Field(3, ge=1)
    """Layers of the text tower that is built on a backbone; BLIP has 12."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropped share in the text tower while training."""
    temperature: float = Field(0.07, ge=0.01)
    """tau; the start value where it is learned."""
    mask_repeats: bool = True
    """Whether other targets that are the same image as a query's own are left out of its
    negatives; the released codes count them."""
