"""Triplets as batches of pixels and tokens, the same ones in every process.

The members of a batch follow from (seed, epoch), and a crop from (seed, epoch, triplet, side): the
position in the data is a number, and a resumed run continues exactly where it stopped.
"""

from __future__ import annotations

import functools
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from models.encoders.text_tower import pad_rows
from models.instructcir.crops import Pixels, random_crop
from models.instructcir.text_sequence import TextIds
from models.instructcir.training_settings import TrainingSettings
from models.instructcir.triplets import Triplet

Batch: TypeAlias = dict[str, torch.Tensor]
"""`references` and `targets` (B, H, W, 3) uint8, `texts` (B, L) token ids, `target_ids` (B,)."""

_BATCHES_AHEAD: Final = 2


class Pictures(Protocol):
    """Where pixels come from; any number of threads may ask at once."""

    def get(self, image_ids: Sequence[str]) -> list[Pixels]:
        """Pixels of images, in order.

        Raises:
            ValueError: An image cannot be read.
        """


def epoch_order(classes: Sequence[str], grouping: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch takes its triplets.

    Args:
        classes: The meta class of each triplet.
        grouping: Triplets of one class that stand together; 0 and 1 shuffle freely.
        seed: Seed of the run.
        epoch: Number of the epoch; another one has another order.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(classes))
    if grouping < 2:
        return order
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in order.tolist():
        members[classes[row]].append(row)
    groups = [
        rows[start : start + grouping]
        for rows in members.values()
        for start in range(0, len(rows), grouping)
    ]
    shuffled = np.random.default_rng((seed, epoch, grouping)).permutation(len(groups))
    return np.array([row for group in shuffled for row in groups[group]])


def stacked(pixels: Sequence[Pixels]) -> torch.Tensor:
    """Pictures of one size as (B, H, W, 3) uint8."""
    return torch.from_numpy(np.stack(pixels))


@dataclass(frozen=True)
class TripletRows:
    """Triplets ready to be trained on.

    Attributes:
        triplets: The rows, in their order.
        text_ids: How texts become token ids.
        numbers: Target image id -> a number, the same in every process.
        texts: The triplets' tokenised texts, each tokenised once.
    """

    triplets: Sequence[Triplet]
    text_ids: TextIds
    numbers: Mapping[str, int] = field(init=False)
    texts: Sequence[Any] = field(init=False)

    def __post_init__(self) -> None:
        targets = sorted({triplet.target for triplet in self.triplets})
        object.__setattr__(self, "numbers", {name: i for i, name in enumerate(targets)})
        row = functools.lru_cache(maxsize=None)(self.text_ids.tokens.row)
        object.__setattr__(self, "texts", [row(triplet.text) for triplet in self.triplets])

    @property
    def target_ids(self) -> torch.Tensor:
        """(N,) numbers of the targets; equal where targets are the same image."""
        return torch.tensor([self.numbers[triplet.target] for triplet in self.triplets])

    def images(self, rows: Sequence[int]) -> list[str]:
        """Image ids of the references of some rows, then of their targets."""
        triplets = [self.triplets[row] for row in rows]
        return [t.reference for t in triplets] + [t.target for t in triplets]

    def batch(self, rows: Sequence[int], pixels: Sequence[Pixels]) -> Batch:
        """A batch of some rows with the pixels of their `images`."""
        both = stacked(pixels)
        halves = {"references": both[: len(rows)], "targets": both[len(rows) :]}
        return halves | self.text_and_targets(rows)

    def text_and_targets(self, rows: Sequence[int]) -> Batch:
        """Token ids cropped to the longest text (B, L), and the targets' numbers (B,)."""
        targets = [self.numbers[self.triplets[row].target] for row in rows]
        ids, _, _ = pad_rows([self.texts[row] for row in rows])
        if self.text_ids.whole_context:
            ids = functional.pad(ids, (0, self.text_ids.tokens.context_length - ids.shape[1]))
        return {"texts": ids, "target_ids": torch.tensor(targets)}


class StepDataset:
    """The batches of a run by their number; any number of threads may ask at once."""

    def __init__(
        self,
        rows: TripletRows,
        pictures: Pictures,
        settings: TrainingSettings,
        *,
        size: tuple[int, int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare the share of one process.

        Args:
            rows: Training triplets.
            pictures: Their images; whole ones where crops are random.
            settings: Batch size, order, crops, epochs.
            size: Height and width that the vision tower reads.
            rank: Number of this process.
            world_size: Processes that share a batch.

        Raises:
            ValueError: The processes cannot share a batch equally.
        """
        self.per_epoch, steps = settings.steps_of(len(rows.triplets))
        self.batches = steps * settings.accumulate
        self._rows = rows
        self._pictures = pictures
        self._settings = settings
        self._size = size
        self._rank, self._share = rank, settings.share(world_size)
        self._classes = [f"{t.source}\n{t.meta_class}" for t in rows.triplets]
        self._order = functools.lru_cache(maxsize=2)(self._order_of)  # this epoch's and the next

    def _order_of(self, epoch: int) -> np.ndarray:
        settings = self._settings
        return epoch_order(self._classes, settings.class_grouping, settings.seed, epoch)

    def members(self, number: int) -> list[int]:
        """Rows of batch `number` that this process trains on."""
        epoch, place = divmod(number, self.per_epoch)
        start = place * self._settings.batch_size + self._rank * self._share
        return self._order(epoch)[start : start + self._share].tolist()

    def __getitem__(self, number: int) -> Batch:
        rows = self.members(number)
        pixels = self._pictures.get(self._rows.images(rows))
        if self._settings.augmentation == "random_resized_crop":
            epoch = number // self.per_epoch
            keys = [(row, side) for side in (0, 1) for row in rows]
            pixels = [
                random_crop(each, self._size, (self._settings.seed, epoch, *key))
                for each, key in zip(pixels, keys, strict=True)
            ]
        return self._rows.batch(rows, pixels)


class StepLoader:
    """Batches from a position on. Lightning keeps the position in its checkpoints.

    Threads make the batches ahead, not processes: decoding and resizing release the interpreter's
    lock, the pictures are kept once, and a flow run, which has threads of its own, is never forked.
    """

    def __init__(self, dataset: StepDataset, workers: int) -> None:
        """Start at the first batch.

        Args:
            dataset: The batches.
            workers: Threads that make batches ahead; 0 makes each when it is asked for.
        """
        self._dataset = dataset
        self._workers = workers
        self.position = 0

    def __len__(self) -> int:
        return self._dataset.batches

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.position, len(self))
        for batch in self._ahead(numbers) if self._workers else map(self._batch, numbers):
            self.position += 1
            yield batch

    def _batch(self, number: int) -> Batch:
        batch = self._dataset[number]
        if torch.cuda.is_available():
            return {name: tensor.pin_memory() for name, tensor in batch.items()}
        return batch

    def _ahead(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """Batches in order, two for each thread begun before they are asked for."""
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="batches")
        try:
            begun: deque[Future[Batch]] = deque()
            for number in numbers:
                begun.append(pool.submit(self._batch, number))
                if len(begun) >= _BATCHES_AHEAD * self._workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, int]:
        """The position of the run."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a position."""
        self.position = int(state["position"])
