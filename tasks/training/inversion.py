"""Train a mapping network on the images of a collection, resumably, and publish it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from models.encoders.spec import EncoderSpec
from models.settings import Settings
from models.spelling import counted
from models.textual_inversion.learner_settings import INVERSIONS, InversionSystem
from models.training.settings import TrainingSettings
from storage.tables.keys import content_key
from tasks.engines import encoder_fingerprint, load_encoder
from tasks.networks import texts_seen_by
from tasks.stages.concepts import (
    ConceptPhraseStage,
    ConceptVectorStage,
    known_phrases,
    usable_concepts,
    words_identity,
)
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.pseudo_tokens import ImportedTokenStage, OtiTokenStage, usable_images
from tasks.training.card import Card, backbone_rows, card_text
from tasks.training.curve_artifacts import show_curves
from tasks.training.curves import curves_csv, curves_page
from tasks.training.fitting import train_once_in_folder
from tasks.training.folder import History
from tasks.training.lightning_job import LightningJob
from tasks.training.publish import publish, publishing_once, result_of
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress
from tasks.training.spent import FILE, cost_file

if TYPE_CHECKING:
    from models.textual_inversion.token_learner import TokenLearner
    from models.training.array_data import ArrayData
    from models.training.lightning_module import SystemModule

PRODUCER: Final = "cirflow/inversion/1"


@dataclass(frozen=True, kw_only=True)
class InversionJob(LightningJob):
    """A mapping network that learns from image features.

    Attributes:
        system: Name of the system.
        encoder: Backbone whose text tower reads the tokens.
        images: Features of the images.
        choices: The system's own settings, as plain values.
        training: Of the training.
        content: Key of the images that it is trained on.
        tokens: Optimised tokens of the images, where the system learns from them.
        vectors: Vectors of concepts, where the system reads words.
        phrases: File of phrases; empty: those of `written`.
        written: Phrases of the text generator.
    """

    KIND: ClassVar[str] = "mapping"
    UNIT: ClassVar[str] = "images"
    """What one example is."""

    system: str
    encoder: EncoderSpec
    images: ImageFeatureStage
    choices: dict[str, Any]
    training: TrainingSettings
    content: str = ""
    tokens: OtiTokenStage | ImportedTokenStage | None = None
    vectors: ConceptVectorStage | None = None
    phrases: str = ""
    written: ConceptPhraseStage | None = field(default=None)

    def pinned(self) -> InversionJob:
        """The job on the images as they are now.

        Raises:
            ValueError: There are too few.
        """
        own = replace(self, content=content_key(self.ids))
        own.training.steps_of(own.examples())
        return own

    @property
    def record(self) -> InversionSystem:
        """The system."""
        return INVERSIONS[self.system]

    @property
    def own_settings(self) -> Settings:
        """The system's own settings."""
        return self.record.settings.model_validate(self.choices)

    @property
    def settings(self) -> TrainingSettings:
        """Of the training."""
        return self.training

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the network."""
        words: dict[str, Any] = {}
        if self.vectors is not None:
            words = {"words": words_identity(self.vectors, self.phrases, self.written)}
        return {
            "producer": PRODUCER,
            "system": self.system,
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "images": self.images.spec_key,
            "content": self.content,
            **({"tokens": self.tokens.spec_key} if self.tokens else {}),
            **words,
            "settings": self.own_settings.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
        }

    @cached_property
    def ids(self) -> list[str]:
        """Images with everything that is learned from, sorted: in an order of chance.

        Raises:
            ValueError: They have changed since the job was made.
        """
        found = self.usable()
        if self.content not in ("", content_key(sorted(found))):
            raise ValueError(
                f"{self.images.images.title} has changed since this training was planned; start it "
                "again to train on the present images"
            )
        return sorted(found)

    def usable(self) -> set[str]:
        """Images with features and, where they are learned from, tokens."""
        planned = self.images.planned()
        found = usable_images(self.images.table(), planned)
        return found & usable_images(self.tokens.table(), planned) if self.tokens else found

    @property
    def count(self) -> int:
        """Examples in all."""
        return len(self.ids)

    @property
    def held_out(self) -> int:
        """Examples that validate, the first ones: at most a tenth."""
        return min(self.training.validation, self.count // 10)

    def examples(self) -> int:
        """Training examples."""
        return self.count - self.held_out

    @property
    def _vectors(self) -> ConceptVectorStage:
        assert self.vectors is not None  # of systems that read words
        return self.vectors

    def new_network(self) -> TokenLearner:
        """The network as training begins with it."""
        from models.textual_inversion.learners import Pic2WordLearner, SearleLearner

        encoder = load_encoder(self.encoder)
        settings: Any = self.own_settings
        if self.vectors is None:
            scale = float(encoder.model.logit_scale.exp())
            return Pic2WordLearner(encoder.tower, encoder.dim, scale, settings, self.training.seed)
        phrases = known_phrases(self.phrases, self.written)
        names = usable_concepts(self._vectors, phrases)
        return SearleLearner(
            encoder.tower, encoder.dim, names, phrases, settings, self.training.seed
        )

    def load_data(self, run: RunSettings, network: TokenLearner) -> ArrayData:
        """Features, and what else the system reads, of training and held-out images."""
        from models.textual_inversion.learner_data import learner_data

        return learner_data(self.arrays(), self.held_out, self.training, run.workers)

    def arrays(self) -> Mapping[str, Any]:
        """Arrays by name, a row for each image."""
        from models.textual_inversion.nearest import nearest_concepts

        features = self.images.table().vectors(self.ids)
        found = {"features": features}
        if self.tokens is not None:
            found["tokens"] = self.tokens.table().vectors(self.ids)
        if self.vectors is not None:
            names = usable_concepts(self.vectors, known_phrases(self.phrases, self.written))
            vectors = self.vectors.table().vectors(names)
            count = int(self.own_settings.model_dump()["concepts"])
            found["concepts"] = nearest_concepts(features, vectors, count)
        return found

    def files(self, learner: Any, recipe: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of the trained network, by name."""
        from models.textual_inversion.network import dump_mapping

        return dump_mapping(learner.network(), recipe)

    def module(self, network: TokenLearner, steps: int) -> SystemModule:
        """The network in training."""
        from models.training.lightning_module import SystemModule

        return SystemModule(network, self.training, steps)


@publishing_once("train mapping network")
def train_inversion(job: InversionJob, run: RunSettings) -> dict[str, Any]:
    """Train from the last saved state and publish; a published network is left alone.

    Args:
        job: System, settings and images of the training.
        run: Where and how fast it runs.
    """

    def finish(data: ArrayData, history: History, weights: Path, shown: ShownProgress) -> None:
        _publish(job, run, history, weights)

    if not job.is_published:
        train_once_in_folder(job, run, finish)
    return result_of(job, "recipe")


def _publish(job: InversionJob, run: RunSettings, history: History, weights: Path) -> None:
    """Write the files of the network below its key; its configuration last."""
    from models.training.weight_files import kept_weights

    learner = job.new_network()
    learner.load_state_dict(kept_weights(weights, "network."))
    summary: dict[str, Any] = {
        **history.summary,
        job.UNIT: job.examples(),
        f"held_out_{job.UNIT}": job.held_out,
        "collection": job.images.images.title,
    }
    reason = texts_seen_by(job.written.spec["generator"]) if job.written else ""
    recipe: dict[str, Any] = {
        "spec": job.spec,
        "zero_shot": not reason,
        "zero_shot_reason": reason,
        "summary": summary,
    }
    title = f"{job.record.title} {job.key}"
    texts = {
        "README.md": _card(job, title, summary, history, reason),
        "curves.csv": curves_csv(history),
        "curves.html": curves_page(title, history),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files[FILE] = cost_file(history.seconds, run.devices)
    publish(job, {**files, **job.files(learner, recipe)})
    show_curves(job.key, title, history, job.place)


def _card(
    job: InversionJob, title: str, summary: Mapping[str, Any], history: History, reason: str
) -> str:
    tokens = f" with the tokens `{job.tokens.spec_key}`" if job.tokens else ""
    words = f" and the words `{content_key(job.spec['words'])}`" if job.vectors else ""
    rows = {
        **backbone_rows(job.spec["encoder"]),
        job.UNIT: f"{job.examples():,} of {summary['collection']}, features "
        f"`{job.images.spec_key}`{tokens}{words}; no annotation is read",
        "held out": counted(job.held_out, job.UNIT.removesuffix("s")),
        "weights of step": f"{summary['step']:,} of {summary['steps']:,} ({job.training.keep})",
    }
    card = Card(
        title=title,
        purpose="Maps an image feature to a pseudo token that stands for the image in a text. "
        f"Trained here; use it as `mapping.{job.system}=FOLDER`.",
        base=job.spec["encoder"],
        groups={"settings": job.own_settings, "training": job.training},
    )
    return card_text(
        card,
        rows,
        history,
        measured=f"Shares of held-out {job.UNIT} that their token finds.",
        not_zero_shot=reason,
    )
