"""A training of a reformulation network: data, settings and identity, and where it runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from models.encoders.spec import EncoderSpec
from models.instructcir.settings import (
    CombinerSettings,
    EmaSettings,
    LossSettings,
    NetworkSettings,
    check_trainable,
)
from models.instructcir.training_settings import TrainingSettings
from storage.locations.location import Entry
from tasks.engines import encoder_fingerprint
from tasks.training.folder import TrainingFolder
from tasks.training.publish import Job
from tasks.training.triplet_sets import TripletSet, TripletSplit, split_triplets

PRODUCER: Final = "cirflow/reformulation/1"


@dataclass(frozen=True)
class ReformulationJob(Job):
    """A reformulation network with its combiner.

    Attributes:
        triplets: the triplets.
        content: key of the parts of them that training depends on; see `TripletSplit.content`.
        encoder: the backbone that training starts from.
        network: the network that is built on it.
        loss: of both stages.
        ema: of the moving average.
        combiner: of stage two; None leaves it out.
        training: of both stages.
        not_zero_shot: whether the training data owes something to a benchmark's annotations.
    """

    KIND: ClassVar[str] = "reformulation"

    triplets: TripletSet
    content: str
    encoder: EncoderSpec
    network: NetworkSettings = field(default_factory=NetworkSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    combiner: CombinerSettings | None = field(default_factory=CombinerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    not_zero_shot: bool = False

    @classmethod
    def of(
        cls, root: str, triplets: TripletSet, encoder: EncoderSpec, **settings: Any
    ) -> ReformulationJob:
        """A job on triplets as they are now.

        Raises:
            ValueError: settings that cannot be trained together, or too few triplets.
        """
        # Crops and precision are choices of training; the backbone is its weights.
        backbone = encoder.changed(preprocess="clip", dtype="fp32", device="cpu")
        job = cls(root, triplets, "", backbone, **settings)
        check_trainable(job.network, job.ema)
        split = job.split()
        job.training.steps_of(len(split.training))
        return replace(job, content=split.content)

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the network."""
        return {
            "producer": PRODUCER,
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "triplets": self.content,
            "network": self.network.model_dump(),
            "loss": self.loss.model_dump(),
            "ema": self.ema.model_dump(),
            "combiner": None if self.combiner is None else self.combiner.model_dump(),
            "training": self.training.model_dump(),
            # The label is published with the network: a labelled one is another network.
            **({"not_zero_shot": True} if self.not_zero_shot else {}),
        }

    @property
    def training_folder(self) -> TrainingFolder:
        """Where the state is kept while stage one is trained."""
        return TrainingFolder(self.root, f"training/{self.KIND}/{self.key}")

    def amounts(self) -> tuple[int, int]:
        """Optimiser steps, and the cost of stage two in such steps, for progress bars.

        A step passes a triplet forward twice and once back, which is twice a pass forward; stage
        two passes each forward twice.
        """
        count = len(self.split().training)
        _, steps = self.training.steps_of(count)
        if self.combiner is None:
            return steps, 0
        return steps, -(-count // (2 * self.training.batch_size * self.training.accumulate))

    def split(self) -> TripletSplit:
        """Training and validation triplets.

        Raises:
            ValueError: there are none, or the table has changed since the job was made.
        """
        parts = tuple(self.triplets.table().parts())
        split = _split(self.triplets, self.training.validation, parts)
        if self.content not in ("", split.content):
            raise ValueError(
                f"triplets/{self.triplets.spec_key} has changed since this training was planned; "
                "start it again to train on the present table"
            )
        return split


@functools.lru_cache(maxsize=2)
def _split(triplets: TripletSet, validation: int, parts: tuple[Entry, ...]) -> TripletSplit:
    """The split of a table's parts; they are there so that a table that grew is read again."""
    rows = triplets.triplets()
    if not rows:
        raise ValueError(
            f"none of the {triplets.count} pairs of triplets/{triplets.spec_key} has a text; see "
            "the quality report of generate-triplets for the reasons"
        )
    return split_triplets(rows, min(validation, len(rows) // 10))
