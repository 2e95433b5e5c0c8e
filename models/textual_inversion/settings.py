"""Hyper-parameters of LinCIR's training; see `models.textual_inversion.training`."""

from __future__ import annotations

from pydantic import Field

from models.settings import Settings


class LinCirConfig(Settings):
    """Hyper-parameters of LinCIR's training."""

    steps: int = Field(20_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(512, ge=1)
    """Captions per step (512: eight GPUs with 64 each in the original)."""
    learning_rate: float = Field(1e-4, gt=0)
    """Constant, without warm-up."""
    weight_decay: float = 0.01
    """AdamW's, on all parameters."""
    dropout: float = 0.5
    """Of the mapping network."""
    noise: float = Field(1.0, ge=0)
    """Largest factor u of the noise; 0 switches it off."""
    normalise_input: bool = False
    """Scale the network's input to length one."""
    seed: int = 12_345
    """Of initial weights, batches, noise and dropout."""
