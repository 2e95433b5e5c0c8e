"""Settings of the refinement of a PALAVRA-style token (`models.textual_inversion.palavra`)."""

from __future__ import annotations

from pydantic import Field

from models.settings import Settings


class RefiningSettings(Settings):
    """Adam steps on a token alone, towards its image and away from a coarse name."""

    steps: int = Field(30, ge=0)
    """Adam steps; 0 leaves the token as the network made it."""
    learning_rate: float = Field(0.01, gt=0)
    """Adam's."""
    temperature: float = Field(0.25, gt=0)
    """Of the contrast."""
    coarse: str = "item"
    """Name of the kind that all images' contents are of."""
