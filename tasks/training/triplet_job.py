"""A training on triplets: what it sees, pinned to the table as it was when it was planned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from tasks.training.lightning_job import LightningJob
from tasks.training.triplet_sets import TripletSet, TripletSplit, planned_split


@dataclass(frozen=True)
class TripletJob(LightningJob):
    """A Lightning job whose examples are triplets.

    Attributes:
        triplets: what it is trained on.
        content: key of the parts of them that training depends on, see `TripletSplit.content`;
            empty until it is `planned`.
    """

    triplets: TripletSet
    content: str

    def planned(self) -> Self:
        """The job on triplets as they are now.

        Raises:
            ValueError: there are too few.
        """
        split = self.split()
        self.settings.steps_of(len(split.training))
        return replace(self, content=split.content)

    def split(self) -> TripletSplit:
        """Training and validation triplets.

        Raises:
            ValueError: there are none, or the table has changed since the job was planned.
        """
        return planned_split(self.triplets, self.settings.validation, self.content)

    def examples(self) -> int:
        """Training triplets."""
        return len(self.split().training)
