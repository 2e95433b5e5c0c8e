"""Settings of the mapping networks that are trained on images (`models.textual_inversion.learners`)
and their published schedules, where a paper or its code states one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydantic import Field

from models.settings import Settings
from models.textual_inversion.concepts import Replace
from models.training.settings import TrainingSettings


class Pic2WordSettings(Settings):
    """Pic2Word (Saito et al., CVPR 2023): the token of an image finds the image again."""

    hidden: int = Field(512, ge=1)
    """Width of the two hidden layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of the hidden layers, while training."""


class SearleSettings(Settings):
    """SEARLE (Baldrati et al., ICCV 2023): optimised tokens are distilled into a network."""

    dropout: float = Field(0.5, ge=0, lt=1)
    """Of the hidden layers, while training."""
    temperature: float = Field(0.25, gt=0)
    """Of the contrast between optimised and mapped tokens."""
    distil_weight: float = Field(1.0, ge=0)
    """Weight of that contrast."""
    phrase_weight: float = Field(0.75, ge=0)
    """Weight of the distance between a phrase and the same with the token as its concept."""
    concepts: int = Field(150, ge=1)
    """Nearest concepts of an image whose phrases are drawn from."""
    replace: Replace = "first"
    """Occurrences of the concept that leave a phrase; `all_as_code` as the released code has it."""


class PalavraSettings(Settings):
    """PALAVRA-style set-encoder inversion (Cohen et al., ECCV 2022): a set of images of a concept
    becomes a token that stands for the concept's name."""

    hidden: int = Field(4096, ge=1)
    """Width of the hidden layers."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Of the layers behind the mean over a set, while training."""
    set_size: int = Field(5, ge=1)
    """Images, or texts, of a set in training; in use the reference image is alone."""
    temperature: float = Field(0.25, gt=0)
    """Of the contrast between sentences with names and with tokens."""
    name_weight: float = Field(1.0, ge=0)
    """Weight of the squared distance between a token and the embedding of its name's first word
    piece, both of length one."""
    images_per_concept: int = Field(32, ge=1)
    """Images, and phrases, of a concept that sets are drawn from."""


@dataclass(frozen=True)
class InversionSystem:
    """A mapping network that is trained on images.

    Attributes:
        name: On the command line, and the setting `mapping.NAME` that uses the result.
        title: In words.
        settings: Of the network and its loss.
        training: The defaults of its training.
        tokens: Whether it learns from optimised tokens.
        words: Whether it reads concepts and phrases.
        captions: Whether it reads captions of the images.
    """

    name: str
    title: str
    settings: type[Settings]
    training: TrainingSettings
    tokens: bool = False
    words: bool = False
    captions: bool = False


INVERSIONS: Final[Mapping[str, InversionSystem]] = MappingProxyType(
    {
        each.name: each
        for each in (
            InversionSystem(
                "pic2word",
                "Pic2Word",
                Pic2WordSettings,
                TrainingSettings(
                    batch_size=128,
                    epochs=30,
                    new_learning_rate=1e-4,
                    weight_decay=0.1,
                    betas=(0.9, 0.98),
                    eps=1e-6,
                    clip=0.0,
                    keep="last",
                ),
            ),
            InversionSystem(
                "searle",
                "SEARLE",
                SearleSettings,
                TrainingSettings(
                    batch_size=256,
                    epochs=100,
                    new_learning_rate=1e-4,
                    weight_decay=0.01,
                    warmup=0.0,
                    schedule="constant",
                    clip=0.0,
                    seed=42,
                    keep="last",
                ),
                tokens=True,
                words=True,
            ),
            InversionSystem(
                "palavra",
                "PALAVRA-style",
                PalavraSettings,
                TrainingSettings(
                    batch_size=256,
                    epochs=300,
                    new_learning_rate=1e-4,
                    weight_decay=0.0,
                    warmup=0.0,
                    schedule="constant",
                    clip=0.0,
                    keep="last",
                ),
                words=True,
                captions=True,
            ),
        )
    }
)
"""Pic2Word warms up over 10,000 steps, which are a share of the steps here; SEARLE keeps its rate.
PALAVRA lowers its rate after 200 epochs, which is left out here. None selects a step."""
