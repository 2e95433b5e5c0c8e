"""Examples as named arrays: features, tokens and numbers that were made before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from models.training.batches import Batch, StepBatches, TrainingData
from models.training.settings import CommonTraining


class ArrayBatches(StepBatches):
    """Rows of arrays by the number of their batch."""

    def __init__(
        self, rows: Batch, settings: CommonTraining, rank: int = 0, world_size: int = 1
    ) -> None:
        """Prepare the share of one process of arrays with equally many rows each."""
        super().__init__(settings, rows_of(rows), rank=rank, world_size=world_size)
        self._rows = rows

    def __getitem__(self, number: int) -> Batch:
        chosen = torch.tensor(self.members(number))
        return {name: values[chosen] for name, values in self._rows.items()}


class ArrayData(TrainingData):
    """Training and held-out rows of named arrays.

    Attributes:
        settings: Of the training.
    """

    def __init__(
        self,
        training: Mapping[str, torch.Tensor],
        validation: Mapping[str, torch.Tensor],
        settings: CommonTraining,
        workers: int = 0,
    ) -> None:
        """Take arrays as they are.

        Args:
            training: By name, each (N, ...).
            validation: The same names, each (V, ...); V may be 0.
            settings: Of the training.
            workers: Threads that make batches ahead; 0 makes each when it is asked for.

        Raises:
            ValueError: Arrays have unequal lengths, the sides have other names, or there are too
                few rows for one batch.
        """
        super().__init__()
        if training.keys() != validation.keys():
            raise ValueError(
                f"training has {', '.join(training)}, validation has {', '.join(validation)}"
            )
        self.settings = settings
        self.workers = workers
        self._training, self._validation = dict(training), dict(validation)
        settings.steps_of(self.count)
        rows_of(self._validation)

    @property
    def count(self) -> int:
        """Training rows."""
        return rows_of(self._training)

    @property
    def held_out(self) -> int:
        """Held-out rows."""
        return rows_of(self._validation)

    def batches(self, rank: int, world_size: int) -> ArrayBatches:
        """The training batches of one process."""
        return ArrayBatches(self._training, self.settings, rank, world_size)

    def held_out_batches(self, size: int) -> Iterator[Batch]:
        """The held-out rows in order."""
        for start in range(0, self.held_out, size):
            part = slice(start, start + size)
            yield {name: values[part] for name, values in self._validation.items()}


def rows_of(arrays: Mapping[str, torch.Tensor]) -> int:
    """The number of rows, which is the same for all.

    Raises:
        ValueError: It is not.
    """
    counts = {name: len(values) for name, values in arrays.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"the arrays have {counts} rows; all need as many")
    return next(iter(counts.values()))
