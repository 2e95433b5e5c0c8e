"""Hyper-parameters of LinCIR's training; see `models.textual_inversion.training`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LinCirConfig:
    """Hyper-parameters of LinCIR's training.

    Attributes:
        steps: Optimiser steps.
        batch_size: Captions per step (512: eight GPUs with 64 each in the original).
        learning_rate: Constant, without warm-up.
        weight_decay: AdamW's, on all parameters.
        dropout: Of the mapping network.
        noise: Largest factor u of the noise; 0 switches it off.
        normalise_input: Scale the network's input to length one.
        seed: Of initial weights, batches, noise and dropout.
    """

    steps: int = 20_000
    batch_size: int = 512
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    dropout: float = 0.5
    noise: float = 1.0
    normalise_input: bool = False
    seed: int = 12_345

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        if min(self.steps, self.batch_size) < 1 or self.learning_rate <= 0 or self.noise < 0:
            raise ValueError(
                f"steps and batch_size are at least 1, learning_rate positive, noise not "
                f"negative, not {self!r}"
            )
