"""A training of a reformulation network: data, settings and identity, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from models.encoders.spec import EncoderSpec
from models.instructcir.settings import (
    CombinerSettings,
    EmaSettings,
    LossSettings,
    NetworkSettings,
    check_trainable,
)
from models.instructcir.training_settings import ReformulationTraining
from tasks.engines import encoder_fingerprint
from tasks.networks import network_config, network_facts, on_this_machine
from tasks.training.triplet_job import TripletJob
from tasks.training.triplet_sets import TripletSet

if TYPE_CHECKING:
    from models.instructcir.lightning_module import ReformulationModule
    from models.instructcir.network import ReformulationNetwork
    from models.training.triplet_data import TripletData
    from tasks.training.run_settings import RunSettings

PRODUCER: Final = "cirflow/reformulation/1"


@dataclass(frozen=True)
class ReformulationJob(TripletJob):
    """A reformulation network with its combiner.

    Attributes:
        encoder: the backbone that training starts from.
        network: the network that is built on it.
        loss: of both stages.
        ema: of the moving average.
        combiner: of stage two; None leaves it out.
        training: of both stages.
        not_zero_shot: whether the training data owes something to a benchmark's annotations.
        start: folder of the network that training starts from; empty: the backbone.
    """

    KIND: ClassVar[str] = "reformulation"

    encoder: EncoderSpec
    network: NetworkSettings = field(default_factory=NetworkSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    combiner: CombinerSettings | None = field(default_factory=CombinerSettings)
    training: ReformulationTraining = field(default_factory=ReformulationTraining)
    not_zero_shot: bool = False
    start: str = ""

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
        return job.planned()

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the network."""
        return {
            "producer": PRODUCER,
            **self._origin,
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
    def _origin(self) -> dict[str, Any]:
        """What training starts from: the backbone, or another network."""
        if self.start:
            return {"start": dict(network_facts(self.start).identity)}
        return {"encoder": dict(encoder_fingerprint(self.encoder))}

    @property
    def base(self) -> dict[str, Any]:
        """Identity of the backbone below everything."""
        if self.start:
            return dict(network_config(self.start)["base"])
        return dict(encoder_fingerprint(self.encoder))

    @property
    def label_of_start(self) -> str:
        """Why the network that training starts from is not zero-shot; empty where it is."""
        return network_facts(self.start).zero_shot_reason if self.start else ""

    @property
    def settings(self) -> ReformulationTraining:
        """Of stage one."""
        return self.training

    def new_network(self) -> ReformulationNetwork:
        """The network on its backbone, or the one that it starts from."""
        from models.instructcir.checkpoint import continued_network
        from models.instructcir.network import build_network

        if self.start:
            return continued_network(on_this_machine(self.start))
        return build_network(self.encoder, self.network, self.training.seed)

    def load_data(self, run: RunSettings, network: ReformulationNetwork) -> TripletData:
        """The triplets with their images."""
        from tasks.training.data import load_triplets

        return load_triplets(
            self.split(),
            self.triplets,
            preprocess=network.parts.preprocess,
            tokenised=network.text_ids.batch,
            settings=self.training,
            run=run,
            folder=self.training_folder,
        )

    def module(self, network: ReformulationNetwork, steps: int) -> ReformulationModule:
        """The network with its moving average and temperature."""
        from models.instructcir.lightning_module import ReformulationModule

        return ReformulationModule(
            network, loss=self.loss, ema=self.ema, training=self.training, total_steps=steps
        )

    def amounts(self) -> tuple[int, int]:
        """Optimiser steps, and the cost of stage two in such steps, for progress bars.

        A step passes a triplet forward twice and once back, which is twice a pass forward; stage
        two passes each forward twice.
        """
        count = self.examples()
        steps, _ = super().amounts()
        if self.combiner is None:
            return steps, 0
        return steps, -(-count // (2 * self.training.batch_size * self.training.accumulate))
