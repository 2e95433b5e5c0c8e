"""Hyper-parameters of LinCIR's training; see `models.textual_inversion.training`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from pydantic import Field

from models.settings import Settings

Keywords: TypeAlias = Literal["function_words", "spacy"]
Masking: TypeAlias = Literal["offsets", "substring"]


@dataclass(frozen=True, slots=True)
class WordMasking:
    """Which words of a caption the pseudo token stands for.

    Attributes:
        keywords: How they are found; see `models.textual_inversion.keywords`.
        masking: How they are replaced; see `models.textual_inversion.masking`.
    """

    keywords: Keywords
    masking: Masking


PRESETS: Final[Mapping[str, WordMasking]] = MappingProxyType(
    {
        "cirflow": WordMasking("function_words", "offsets"),
        "lincir": WordMasking("spacy", "substring"),
    }
)
"""`lincir` is the released code's; its hyper-parameters are the defaults of `LinCirConfig` in
either case."""


class LinCirConfig(Settings):
    """Hyper-parameters of LinCIR's training."""

    steps: int = Field(20_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(512, ge=1)
    """Captions per step (512: eight GPUs with 64 each in the original)."""
    learning_rate: float = Field(1e-4, gt=0)
    """Constant, without warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, on all parameters."""
    dropout: float = 0.5
    """Of the mapping network."""
    noise: float = Field(1.0, ge=0)
    """Largest factor u of the noise; 0 switches it off."""
    normalise_input: bool = False
    """Scale the network's input to length one, in training and in use."""
    seed: int = 12_345
    """Of initial weights, batches, noise and dropout."""
