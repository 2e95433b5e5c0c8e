"""Train a composed query encoder on triplets, resumably, and publish it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from models.composed.registry import system
from models.composed.system_record import ComposedSystem
from models.encoders.spec import EncoderSpec
from models.settings import Settings
from models.training.settings import ComposedTraining
from tasks.engines import encoder_fingerprint
from tasks.networks import load_composed_network, network_config, network_facts
from tasks.training.card import Card, publish_network, summary_of
from tasks.training.fitting import train_once_in_folder
from tasks.training.folder import History
from tasks.training.publish import publishing_once, result_of
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress
from tasks.training.spent import cost_file
from tasks.training.triplet_job import TripletJob
from tasks.training.triplet_sets import TripletSet

if TYPE_CHECKING:
    from models.composed.network import ComposedNetwork
    from models.training.lightning_module import SystemModule
    from models.training.triplet_data import TripletData

PRODUCER: Final = "cirflow/composed/1"


@dataclass(frozen=True)
class ComposedJob(TripletJob):
    """A composed query encoder.

    Attributes:
        system: name of the system.
        encoder: the backbone that training starts from.
        choices: the system's own settings, as plain values.
        training: of the training.
        start: folder of the trained network that this one starts from; empty: the backbone.
        not_zero_shot: why its results must not be called zero-shot; empty where they may be.
    """

    KIND: ClassVar[str] = "composed"

    system: str
    encoder: EncoderSpec
    choices: dict[str, Any]
    training: ComposedTraining = field(default_factory=ComposedTraining)
    start: str = ""
    not_zero_shot: str = ""

    @classmethod
    def of(
        cls,
        root: str,
        name: str,
        triplets: TripletSet,
        encoder: EncoderSpec,
        choices: Settings,
        training: ComposedTraining,
        not_zero_shot: str = "",
        start: str = "",
    ) -> ComposedJob:
        """A job on triplets as they are now.

        Raises:
            ValueError: too few triplets.
        """
        backbone = encoder.changed(preprocess="clip", dtype="fp32", device="cpu")
        plain = choices.model_dump(mode="json")
        if start:
            not_zero_shot = not_zero_shot or network_facts(start).zero_shot_reason
        job = cls(root, triplets, "", name, backbone, plain, training, start, not_zero_shot)
        return job.planned()

    @property
    def record(self) -> ComposedSystem:
        """The system."""
        return system(self.system)

    @property
    def own_settings(self) -> Settings:
        """The system's own settings."""
        return self.record.settings.model_validate(self.choices)

    @property
    def settings(self) -> ComposedTraining:
        """Of the training."""
        return self.training

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the network."""
        return {
            "producer": PRODUCER,
            "system": self.system,
            **self._origin,
            "triplets": self.content,
            "settings": self.own_settings.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            **({"not_zero_shot": self.not_zero_shot} if self.not_zero_shot else {}),
        }

    @property
    def _origin(self) -> dict[str, Any]:
        """What training starts from: the backbone, or another system's network."""
        if not self.start:
            return {"encoder": dict(encoder_fingerprint(self.encoder))}
        return {"start": dict(network_facts(self.start).identity)}

    @property
    def base(self) -> dict[str, Any]:
        """Identity of the backbone below everything."""
        if not self.start:
            return dict(encoder_fingerprint(self.encoder))
        return dict(network_config(self.start)["base"])

    def new_network(self) -> ComposedNetwork:
        """The network on its backbone, or on the network that it starts from."""
        record = self.record
        if record.continued is not None and self.start:
            start = load_composed_network(self.start)
            return record.continued(start, self.own_settings, self.training.seed)
        if record.build is None:
            raise ValueError(
                f"{record.title} starts from a trained {record.starts_from}; give its folder"
            )
        return record.build(self.encoder, self.own_settings, self.training.seed)

    def load_data(self, run: RunSettings, network: ComposedNetwork) -> TripletData:
        """The triplets with their images."""
        from tasks.training.data import load_triplets

        return load_triplets(
            self.split(),
            self.triplets,
            preprocess=network.preprocess,
            tokenised=network.tokenised,
            settings=self.training,
            run=run,
            folder=self.training_folder,
        )

    def made_ready(
        self, data: TripletData, run: RunSettings, network: ComposedNetwork
    ) -> TripletData:
        """With what frozen towers make of images and texts, unless crops are random.

        With negatives by the network's own ranking, where it has a use for them.
        """
        from models.composed.frozen_states import with_frozen_states
        from models.composed.ranked_negatives import with_negatives

        device, precision = run.device(), self.training.precision
        if self.training.augmentation != "random_resized_crop":
            room = run.cache_mb * 2**20
            data = with_frozen_states(data, network, device, precision=precision, room=room)
        return with_negatives(data, network, device, precision=precision)

    def module(self, network: ComposedNetwork, steps: int) -> SystemModule:
        """The network in training."""
        from models.training.lightning_module import SystemModule

        return SystemModule(network, self.training, steps, network.preprocess)


@publishing_once("train composed query encoder")
def train_composed_network(
    job: ComposedJob, run: RunSettings, notes: dict[str, Any]
) -> dict[str, Any]:
    """Train from the last saved state and publish; a published network is left alone.

    Args:
        job: System, settings and triplets of the training.
        run: Where and how fast it runs.
        notes: Further facts for the model card, by name.
    """

    def finish(data: TripletData, history: History, weights: Path, shown: ShownProgress) -> None:
        _publish(job, run, notes, data, history, weights)

    if not job.is_published:
        train_once_in_folder(job, run, finish)
    return result_of(job)


def _publish(
    job: ComposedJob,
    run: RunSettings,
    notes: dict[str, Any],
    data: TripletData,
    history: History,
    weights: Path,
) -> None:
    """Publish the network below its key."""
    from models.composed.checkpoint import save_composed
    from models.training.crops import still_preprocess
    from models.training.weight_files import kept_weights

    network = job.new_network()
    network.load_state_dict(kept_weights(weights, "network."))
    network.preprocess = still_preprocess(network.preprocess, job.training.augmentation)

    def save(folder: Path, provenance: Mapping[str, Any]) -> None:
        save_composed(
            folder,
            job.system,
            network,
            job.own_settings,
            base=job.base,
            provenance=provenance,
            dtype=job.training.saved_as,
        )

    card = Card(
        title=f"{job.record.title} {job.key}",
        purpose="Embeds a reference image and a modification text into one vector; the nearest "
        "gallery vector is the answer.",
        base=job.base,
        groups={"settings": job.own_settings, "training": job.training},
    )
    publish_network(
        job,
        save,
        card,
        history,
        summary=summary_of(job.key, history, **data.counts),
        notes=notes,
        not_zero_shot=job.not_zero_shot,
        spent=cost_file(history.seconds, run.devices),
    )
