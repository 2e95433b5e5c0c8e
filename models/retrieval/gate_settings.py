"""Settings of the training of weights for each query."""

from __future__ import annotations

from pydantic import Field

from models.settings import Settings


class GateTraining(Settings):
    """How weights for each query are trained."""

    temperature: float = Field(0.02, gt=0)
    """T of the loss over fused cosines."""
    penalties: tuple[float, ...] = Field((1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)
    """Ridge penalties that are tried; held-out triplets choose."""
    step: float = Field(0.1, gt=0, le=0.5)
    """Grid step of the fixed weights that the training starts from, and of the oracle."""
    iterations: int = Field(60, ge=1)
    """Iterations of L-BFGS for each penalty."""
    validation: int = Field(400, ge=1)
    """Triplets held out at most; a tenth of all at most."""
