"""Triplets as batches of pixels and tokens, the same ones in every process.

A crop follows from (seed, epoch, triplet, side), a drawn text or negative from (seed, epoch,
triplet).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import torch

from models.training.batches import Batch, StepBatches
from models.training.crops import Pixels, random_crop
from models.training.settings import TripletTraining
from models.triplets import Triplet, readings_of

Tokenised: TypeAlias = Callable[[Sequence[str]], Batch]
"""From B texts to what a network reads of them, by name, each with B rows."""


class Pictures(Protocol):
    """Where pixels come from; any number of threads may ask at once."""

    def get(self, image_ids: Sequence[str]) -> list[Pixels]:
        """Pixels of images, in order.

        Raises:
            ValueError: An image cannot be read.
        """


def stacked(pixels: Sequence[Pixels]) -> torch.Tensor:
    """Pictures of one size as (B, H, W, 3) uint8."""
    return torch.from_numpy(np.stack(pixels))


@dataclass(frozen=True)
class TripletRows:
    """Triplets ready to be trained on.

    Attributes:
        triplets: The rows, in their order.
        tokenised: How texts become token ids.
        numbers: Image id -> a number, the same in every process; a reference that is also a target
            has one number.
    """

    triplets: Sequence[Triplet]
    tokenised: Tokenised
    numbers: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        images = sorted({image for t in self.triplets for image in (t.reference, t.target)})
        object.__setattr__(self, "numbers", {image: i for i, image in enumerate(images)})

    @property
    def target_ids(self) -> torch.Tensor:
        """(N,) numbers of the targets; equal where targets are the same image."""
        return torch.tensor([self.numbers[triplet.target] for triplet in self.triplets])

    def images(self, rows: Sequence[int]) -> list[str]:
        """Image ids of the references of some rows, then of their targets."""
        triplets = [self.triplets[row] for row in rows]
        return [t.reference for t in triplets] + [t.target for t in triplets]

    def batch(
        self, rows: Sequence[int], pixels: Sequence[Pixels], texts: Sequence[str] | None = None
    ) -> Batch:
        """A batch of some rows with the pixels of their `images`, and their own texts or others."""
        both = stacked(pixels)
        halves = {"references": both[: len(rows)], "targets": both[len(rows) :]}
        return halves | self.text_and_targets(rows, texts)

    def text_and_targets(self, rows: Sequence[int], texts: Sequence[str] | None = None) -> Batch:
        """What is read of the texts, and the numbers (B,) of targets and references."""
        triplets = [self.triplets[row] for row in rows]
        return {
            **self.tokenised([t.text for t in triplets] if texts is None else texts),
            "target_ids": torch.tensor([self.numbers[t.target] for t in triplets]),
            "reference_ids": torch.tensor([self.numbers[t.reference] for t in triplets]),
        }


@dataclass(frozen=True)
class Negatives:
    """Images that stand beside the targets, other ones in each epoch.

    Attributes:
        lists: For each training triplet the images that its own are drawn from.
        count: Images that are drawn for a triplet, each once.
    """

    lists: Sequence[Sequence[str]]
    count: int

    def drawn(self, row: int, key: Sequence[int]) -> list[str]:
        """The images of a triplet, by the seeds of this draw."""
        chosen = np.random.default_rng(tuple(key)).permutation(len(self.lists[row]))
        return [self.lists[row][place] for place in chosen[: self.count]]


class TripletBatches(StepBatches):
    """The batches of a training on triplets."""

    def __init__(
        self,
        rows: TripletRows,
        pictures: Pictures,
        settings: TripletTraining,
        *,
        size: tuple[int, int],
        rank: int = 0,
        world_size: int = 1,
        negatives: Negatives | None = None,
    ) -> None:
        """Prepare the share of one process.

        Args:
            rows: Training triplets.
            pictures: Their images; whole ones where crops are random.
            settings: Batch size, order, crops, epochs.
            size: Height and width that the vision tower reads.
            rank: Number of this process.
            world_size: Processes that share a batch.
            negatives: Further images of each triplet.

        Raises:
            ValueError: The processes cannot share a batch equally.
        """
        super().__init__(
            settings,
            len(rows.triplets),
            rank=rank,
            world_size=world_size,
            classes=[f"{t.source}\n{t.meta_class}" for t in rows.triplets],
            grouping=settings.class_grouping,
        )
        self._rows = rows
        self._pictures = pictures
        self._negatives = negatives
        self._crops = settings.augmentation == "random_resized_crop"
        self._draws = settings.captions == "drawn"
        self._size = size

    def __getitem__(self, number: int) -> Batch:
        rows = self.members(number)
        epoch = number // self.per_epoch
        others = self._others(rows, epoch)
        pixels = self._pictures.get([*self._rows.images(rows), *others])
        if self._crops:
            keys = [(row, side) for side in (0, 1) for row in rows]
            keys += [(row, 2 + place) for row in rows for place in range(len(others) // len(rows))]
            pixels = [
                random_crop(each, self._size, (self.settings.seed, epoch, *key))
                for each, key in zip(pixels, keys, strict=True)
            ]
        texts = None
        if self._draws:
            seed = self.settings.seed
            texts = [drawn_text(self._rows.triplets[row], (seed, epoch, row)) for row in rows]
        both = 2 * len(rows)
        beside = {"negatives": stacked(pixels[both:])} if others else {}
        return self._rows.batch(rows, pixels[:both], texts) | beside

    def _others(self, rows: Sequence[int], epoch: int) -> list[str]:
        """The negatives of some rows, those of a row together."""
        if self._negatives is None:
            return []
        seed = self.settings.seed
        drawn = (self._negatives.drawn(row, (seed, epoch, row)) for row in rows)
        return [image for images in drawn for image in images]


def drawn_text(triplet: Triplet, key: Sequence[int]) -> str:
    """One of a triplet's readings, each with equal chance, by the seeds of this draw."""
    readings = readings_of(triplet)
    return readings[np.random.default_rng(tuple(key)).integers(len(readings))]
