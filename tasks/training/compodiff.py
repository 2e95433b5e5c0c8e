"""Train CompoDiff's denoiser on the cached image features of triplets, and publish it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from models.compodiff.settings import DenoiserSettings
from models.training.settings import TrainingSettings
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from tasks.engines import encoder_fingerprint, load_encoder
from tasks.stages.image_features import ImageFeatureStage
from tasks.training.card import Card, publish_network, summary_of
from tasks.training.fitting import train_once_in_folder
from tasks.training.folder import History
from tasks.training.publish import publishing_once, result_of
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress
from tasks.training.spent import cost_file
from tasks.training.triplet_job import TripletJob

if TYPE_CHECKING:
    from models.compodiff.training import CompoDiffTraining
    from models.training.array_data import ArrayData
    from models.training.batches import Batch
    from models.training.lightning_module import SystemModule
    from models.triplets import Triplet

PRODUCER: Final = "cirflow/compodiff/1"


@dataclass(frozen=True)
class CompoDiffJob(TripletJob):
    """A denoiser over the image features of one backbone.

    Attributes:
        features: the image features of the triplets.
        network: the denoiser and its noise.
        training: of the training.
        not_zero_shot: why its results must not be called zero-shot; empty where they may be.
    """

    KIND: ClassVar[str] = "compodiff"

    features: ImageFeatureStage
    network: DenoiserSettings = field(default_factory=DenoiserSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    not_zero_shot: str = ""

    @property
    def settings(self) -> TrainingSettings:
        """Of the training."""
        return self.training

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the denoiser."""
        return {
            "producer": PRODUCER,
            "encoder": dict(encoder_fingerprint(self.features.encoder)),
            "triplets": self.content,
            "network": self.network.model_dump(),
            **self._captions,
            "training": self.training.model_dump(mode="json"),
            **self.features.pictures.identity,
            **({"not_zero_shot": self.not_zero_shot} if self.not_zero_shot else {}),
        }

    @property
    def _captions(self) -> dict[str, Any]:
        """Captions of the targets, where rows are trained by them."""
        if not self.network.captions:
            return {}
        split = self.split()
        both = (*split.training, *split.validation)
        return {"captions": content_key([t.target_caption for t in both])}

    def new_network(self) -> CompoDiffTraining:
        """The denoiser with the backbone's text tower."""
        from models.compodiff.training import build_training

        encoder = self.features.encoder.changed(dtype="fp32", device="cpu")
        return build_training(load_encoder(encoder), self.network, self.training.seed)

    def load_data(self, run: RunSettings, network: CompoDiffTraining) -> ArrayData:
        """Features and token ids of the triplets whose images could be read."""
        from models.training.array_data import ArrayData

        split, table = self.split(), self.features.table()
        known = table.read(["status"], split.image_ids())
        ids = sorted(image for image, status in known.iter_rows() if status == OK)
        place = {image: row for row, image in enumerate(ids)}
        vectors = table.vectors(ids)

        def usable(triplets: tuple[Triplet, ...]) -> Batch:
            kept = [t for t in triplets if t.reference in place and t.target in place]
            return network.rows(
                vectors,
                [place[t.reference] for t in kept],
                [place[t.target] for t in kept],
                [t.text for t in kept],
                [t.target_caption for t in kept],
            )

        return ArrayData(
            usable(split.training), usable(split.validation), self.training, run.workers
        )

    def module(self, network: CompoDiffTraining, steps: int) -> SystemModule:
        """The denoiser in training."""
        from models.training.lightning_module import SystemModule

        return SystemModule(network, self.training, steps)


@publishing_once("train CompoDiff's denoiser")
def train_denoiser(job: CompoDiffJob, run: RunSettings, notes: dict[str, Any]) -> dict[str, Any]:
    """Train from the last saved state and publish; a published denoiser is left alone.

    Args:
        job: Settings and triplets of the training; the features of the triplets are made.
        run: Where and how fast it runs.
        notes: Further facts for the model card, by name.
    """

    def finish(data: ArrayData, history: History, weights: Path, shown: ShownProgress) -> None:
        _publish(job, run, notes, data, history, weights)

    if not job.is_published:
        train_once_in_folder(job, run, finish)
    return result_of(job)


def _publish(
    job: CompoDiffJob,
    run: RunSettings,
    notes: dict[str, Any],
    data: ArrayData,
    history: History,
    weights: Path,
) -> None:
    """Publish the denoiser below its key."""
    from models.compodiff.checkpoint import denoiser_files
    from models.training.weight_files import kept_weights

    network = job.new_network()
    network.load_state_dict(kept_weights(weights, "network."))
    base = job.spec["encoder"]

    def save(folder: Path, provenance: Mapping[str, Any]) -> None:
        folder.mkdir()
        files = denoiser_files(network.answering, job.network, base, provenance)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    card = Card(
        title=f"CompoDiff denoiser {job.key}",
        purpose="Samples the image feature of a target from a reference's feature and a text; the "
        "nearest gallery feature of the backbone is the answer. CompoDiff's own training is not "
        "public: this one follows its description.",
        base=base,
        groups={"network": job.network, "training": job.training},
    )
    publish_network(
        job,
        save,
        card,
        history,
        summary=_summary(job, data, history),
        notes=notes,
        not_zero_shot=job.not_zero_shot,
        spent=cost_file(history.seconds, run.devices),
    )


def _summary(job: CompoDiffJob, data: ArrayData, history: History) -> dict[str, Any]:
    split = job.split()
    known = job.features.table().read(["status"], split.image_ids())
    return summary_of(
        job.key,
        history,
        triplets=data.count,
        held_out=data.held_out,
        skipped=len(split.training) + len(split.validation) - data.count - data.held_out,
        unreadable=sum(status != OK for _, status in known.iter_rows()),
    )
