"""Training and validation triplets with their pixels, for Lightning and for the second stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from models.encoders.preprocess import ImagePreprocess
from models.training.batches import Batch, TrainingData
from models.training.settings import TripletTraining
from models.training.triplet_batches import (
    Negatives,
    Pictures,
    Tokenised,
    TripletBatches,
    TripletRows,
    stacked,
)
from models.triplets import Triplet


class TripletData(TrainingData):
    """Training and validation triplets with their images.

    Attributes:
        training: Triplets that are trained on.
        validation: Triplets held out.
        settings: Of the training.
        left_out: Image id -> why it cannot be read.
        skipped: Triplets left out because of those images.
        negatives: Further images of each training triplet.
    """

    settings: TripletTraining

    def __init__(
        self,
        training: TripletRows,
        validation: TripletRows,
        settings: TripletTraining,
        *,
        preprocess: ImagePreprocess,
        pictures: Pictures,
        still: Pictures,
        workers: int = 0,
        left_out: Mapping[str, str] | None = None,
        skipped: int = 0,
        negatives: Negatives | None = None,
    ) -> None:
        """Join triplets and pictures.

        Args:
            training: Triplets to train on.
            validation: Triplets held out.
            settings: Of the training.
            preprocess: The backbone's.
            pictures: Pixels for training: whole pictures where crops are random.
            still: Pixels without random crops, see `crops.still_pixels`.
            workers: Threads that make batches ahead; 0 makes each when it is asked for.
            left_out: Image id -> why it cannot be read.
            skipped: Triplets left out because of those images.
            negatives: Further images of each training triplet.

        Raises:
            ValueError: There are too few triplets for one batch.
        """
        super().__init__()
        settings.steps_of(len(training.triplets))
        self.training = training
        self.validation = validation
        self.settings = settings
        self.left_out = left_out or {}
        self.skipped = skipped
        self.negatives = negatives
        self._preprocess = preprocess
        self._pictures = pictures
        self._still = still
        self.workers = workers

    def on(
        self,
        pictures: Pictures | None = None,
        tokenised: Tokenised | None = None,
        negatives: Negatives | None = None,
    ) -> TripletData:
        """The same triplets with other pictures, reading of texts or negatives; None: the same."""
        return TripletData(
            TripletRows(self.training.triplets, tokenised or self.training.tokenised),
            TripletRows(self.validation.triplets, tokenised or self.validation.tokenised),
            self.settings,
            preprocess=self._preprocess,
            pictures=pictures or self._pictures,
            still=pictures or self._still,
            workers=self.workers,
            left_out=self.left_out,
            skipped=self.skipped,
            negatives=negatives or self.negatives,
        )

    @property
    def all_triplets(self) -> list[Triplet]:
        """Training triplets, then held-out ones."""
        return [*self.training.triplets, *self.validation.triplets]

    @property
    def counts(self) -> dict[str, int]:
        """What the record of a training says of its triplets."""
        return {
            "triplets": self.count,
            "held_out": self.held_out,
            "skipped": self.skipped,
            "unreadable": len(self.left_out),
        }

    @property
    def count(self) -> int:
        """Training triplets."""
        return len(self.training.triplets)

    @property
    def held_out(self) -> int:
        """Held-out triplets."""
        return len(self.validation.triplets)

    def batches(self, rank: int, world_size: int) -> TripletBatches:
        """The training batches of one process."""
        return TripletBatches(
            self.training,
            self._pictures,
            self.settings,
            size=_height_and_width(self._preprocess.config.size),
            rank=rank,
            world_size=world_size,
            negatives=self.negatives,
        )

    def held_out_batches(self, size: int) -> Iterator[Batch]:
        """The held-out triplets in order, without random crops."""
        return self.still_batches(self.validation, range(self.held_out), size)

    def still_batches(self, rows: TripletRows, chosen: Sequence[int], size: int) -> Iterator[Batch]:
        """Triplets in order, without random crops, in batches of at most `size`."""
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield rows.batch(part, self._still.get(rows.images(part)))

    def still_images(self, image_ids: Sequence[str]) -> torch.Tensor:
        """Images without random crops, (B, H, W, 3) uint8."""
        return stacked(self._still.get(image_ids))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 as the vision tower reads them."""
        return self._preprocess.normalised(images.numpy())


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
