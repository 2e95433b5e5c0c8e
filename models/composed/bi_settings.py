"""BLIP4CIR+Bi's choices as named values (Liu et al., WACV 2024)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from models.blip.vocabulary_file import vocabulary_beside
from models.composed.clip4cir_settings import CombinerSettings, SumSettings, TrainedTowers
from models.composed.directions import Splitting
from models.published_files import only_file
from models.settings import Settings


class DirectionSettings(Settings):
    """Reversed queries."""

    reversed_weight: float = Field(0.4, ge=0)
    """Weight of the reversed queries' loss: 0.4 (FashionIQ), 0.1 (CIRR); in stage two 0.5 and 0.1.
    0 leaves them out; the forward marker stays."""
    splitting: Splitting = "words"
    """Where a text is cut into parts that are marked: at the word "and", at its letters also inside
    words (`letters`, as the published weights were trained), or nowhere (`none`)."""
    unit_targets: bool = False
    """Whether reversed queries read targets at length one, as the released code of stage one does;
    forward queries always read references as the image tower gives them."""


class BiSumSettings(SumSettings, DirectionSettings):
    """Stage one: image and text are added."""

    trained: TrainedTowers = "text"
    """Towers of the backbone that are trained; `text` leaves gallery vectors as they are."""


class BiCombinerSettings(CombinerSettings, DirectionSettings):
    """Stage two: the towers are frozen, and a combiner is trained on their vectors."""

    reversed_weight: float = Field(0.5, ge=0)
    """Weight of the reversed queries' loss: 0.5 (FashionIQ), 0.1 (CIRR)."""


def published_files(folder: Path) -> tuple[Path, Path, Path]:
    """Base, tuned tower and combiner in a published folder, which holds their vocabulary too.

    Raises:
        UnusableCheckpoint: One is missing, or is not a file of weights.
    """
    needed = (
        "put model_base.pth, tuned_blip*.pt and combiner*.pt of one training and vocab.txt into "
        "one folder"
    )
    base, tuned, combiner = (
        only_file(folder, pattern, needed)
        for pattern in ("model_base*.pth", "tuned_blip*.pt", "combiner*.pt")
    )
    vocabulary_beside(tuned)
    return base, tuned, combiner
