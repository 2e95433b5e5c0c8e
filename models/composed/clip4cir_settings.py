"""CLIP4CIR's choices as named values (Baldrati et al., 2022 and 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from models.published_files import only_file
from models.settings import Settings

TrainedTowers: TypeAlias = Literal["both", "text"]


class SumSettings(Settings):
    """Stage one: the towers learn to be added."""

    trained: TrainedTowers = "both"
    """Towers of the backbone that are trained; `text` leaves gallery vectors as they are."""
    scale: float = Field(100.0, gt=0)
    """1 / temperature of the loss."""


class CombinerSettings(Settings):
    """Stage two: the towers are frozen, and a combiner is trained on their vectors."""

    projection: int = Field(2560, ge=1)
    """Width of each side's projection; 2560 on RN50x4, whose vectors are 640 wide."""
    hidden: int = Field(5120, ge=1)
    """Width of the joint hidden layer; 5120 on RN50x4."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropped share while training."""
    scale: float = Field(100.0, gt=0)
    """1 / temperature of the loss."""


def published_files(folder: Path) -> tuple[Path, Path]:
    """The files of both stages in a published folder.

    Raises:
        UnusableCheckpoint: One is missing, or is not a file of weights.
    """
    needed = "give a folder with tuned_clip*.pt and combiner*.pt of one training"
    return only_file(folder, "tuned_clip*.pt", needed), only_file(folder, "combiner*.pt", needed)
