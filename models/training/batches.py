"""Batches by their number, the same ones in every process.

The members of a batch follow from (seed, epoch): the position in the data is a number, and a
resumed run continues exactly where it stopped.
"""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from models.training.settings import CommonTraining

Batch: TypeAlias = dict[str, torch.Tensor]
"""Tensors by name, each with a first axis of B rows. Of triplets: `references` and `targets`
(B, H, W, 3) uint8, `target_ids` and `reference_ids` (B,), equal where images are, also between the
two, and what the network reads of the texts; where there are any, `negatives`, n images of each
row, B * n rows."""

_BATCHES_AHEAD: Final = 2


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


class StepBatches(ABC):
    """The batches of a run by their number; any number of threads may ask at once.

    Attributes:
        settings: Of the training.
        per_epoch: Batches in an epoch.
        batches: Batches in all.
    """

    def __init__(
        self,
        settings: CommonTraining,
        count: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        classes: Sequence[str] | None = None,
        grouping: int = 0,
    ) -> None:
        """Prepare the share of one process.

        Args:
            settings: Batch size, seed, epochs.
            count: Training examples.
            rank: Number of this process.
            world_size: Processes that share a batch.
            classes: The class of each example, where `grouping` is above 1.
            grouping: See `epoch_order`.

        Raises:
            ValueError: The processes cannot share a batch equally.
        """
        self.settings = settings
        self.per_epoch, steps = settings.steps_of(count)
        self.batches = steps * settings.accumulate
        self._rank, self._share = rank, settings.share(world_size)
        self._classes = [""] * count if classes is None else classes
        self._grouping = grouping
        self._order = functools.lru_cache(maxsize=2)(self._order_of)  # this epoch's and the next

    def _order_of(self, epoch: int) -> np.ndarray:
        return epoch_order(self._classes, self._grouping, self.settings.seed, epoch)

    def members(self, number: int) -> list[int]:
        """Rows of batch `number` that this process trains on."""
        epoch, place = divmod(number, self.per_epoch)
        start = place * self.settings.batch_size + self._rank * self._share
        return self._order(epoch)[start : start + self._share].tolist()

    @abstractmethod
    def __getitem__(self, number: int) -> Batch:
        """This process's share of batch `number`."""


class StepLoader:
    """Batches from a position on. Lightning keeps the position in its checkpoints.

    Threads make the batches ahead, not processes: decoding and resizing release the interpreter's
    lock, the pictures are kept once, and a flow run, which has threads of its own, is never forked.
    """

    def __init__(self, dataset: StepBatches, workers: int) -> None:
        """Start at the first batch.

        Args:
            dataset: The batches.
            workers: Threads that make batches ahead; 0 makes each when it is asked for.
        """
        self._dataset = dataset
        self._workers = workers
        self.position = 0
        self.waited = 0.0
        """Seconds that batches were waited for since this process began."""

    def __len__(self) -> int:
        return self._dataset.batches

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.position, len(self))
        began = time.monotonic()
        for batch in self._ahead(numbers) if self._workers else map(self._batch, numbers):
            self.waited += time.monotonic() - began
            self.position += 1
            yield batch
            began = time.monotonic()

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


class TrainingData(LightningDataModule, ABC):
    """Examples to train on and examples held out.

    Attributes:
        settings: Of the training.
    """

    settings: CommonTraining

    @property
    @abstractmethod
    def count(self) -> int:
        """Training examples."""

    @property
    @abstractmethod
    def held_out(self) -> int:
        """Examples that validate."""

    @abstractmethod
    def held_out_batches(self, size: int) -> Iterator[Batch]:
        """The held-out examples in order, in batches of at most `size`."""

    @abstractmethod
    def batches(self, rank: int, world_size: int) -> StepBatches:
        """The training batches of one process."""

    workers: int = 0
    """Threads that make batches ahead; 0 makes each when it is asked for."""
    loader: StepLoader | None = None
    """The batches of this process, once a training has asked for them."""

    def train_dataloader(self) -> StepLoader:
        """The batches of this process."""
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        self.loader = StepLoader(self.batches(rank, world_size), self.workers)
        return self.loader
