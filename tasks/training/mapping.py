"""Train a mapping network from captions, resumably, and publish it once under its content key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from models.devices import require_device
from models.encoders.spec import EncoderSpec
from models.textual_inversion.settings import LinCirConfig, WordMasking
from storage.tables.keys import sha256_hex
from storage.tables.schemas import OK
from tasks.engines import encoder_fingerprint, load_encoder
from tasks.stages.captions import CaptionStage
from tasks.training.publish import Job, publishing_once, train_and_publish

if TYPE_CHECKING:
    from models.textual_inversion.training import LinCirTraining

PRODUCER = "cirflow/mapping/1"
SAVE_EVERY = 500
"""Steps between two saved states."""


@dataclass(frozen=True)
class MappingJob(Job):
    """A mapping network for one backbone.

    Attributes:
        encoder: backbone with the text tower that reads the pseudo tokens.
        config: hyper-parameters.
        words: the words to mask, and how.
        captions_key: hash of the captions in their order.
    """

    KIND: ClassVar[str] = "mapping"

    encoder: EncoderSpec
    config: LinCirConfig
    words: WordMasking
    captions_key: str

    def require_host(self) -> None:
        """Refuse a device of the text tower that is not there."""
        require_device(self.encoder.device)

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the network."""
        return {
            "producer": PRODUCER,
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "config": self.config.model_dump(),
            "keywords": self.words.keywords,
            "masking": self.words.masking,
            "captions": self.captions_key,
        }


def cached_captions(stage: CaptionStage) -> list[str]:
    """All captions of a caption cache, in the order of their images.

    Raises:
        ValueError: it holds none of these images.
    """
    rows = stage.table().read(["captions", "status"], stage.planned())
    found = [text for _, texts, status in rows.iter_rows() if status == OK for text in texts]
    if not found:
        raise ValueError(
            f"{stage.images.title} has no captions by {stage.captioner.title} "
            f"({stage.sampling.n} an image) yet: make them first (cirflow run backfill-captions, "
            "or its form, with the same collection, captioning and profile)"
        )
    return found


def captions_key(captions: Sequence[str]) -> str:
    """Hash of captions in their order."""
    return sha256_hex("\n".join(captions).encode())[:20]


class Captions:
    """Captions on their way into the task: Prefect does not look inside."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts


@publishing_once("train mapping network")
def train_network(job: MappingJob, captions: Captions) -> dict[str, Any]:
    """Train from the last saved state and publish; a published network is left alone."""
    from models.textual_inversion.network import dump_mapping

    if not job.is_published:
        training = _training(job, captions.texts)
        train_and_publish(
            job,
            training,
            lambda: dump_mapping(training.network(), job.spec),
            title="mapping network",
            state=f"{job.folder}/state.pt",
            save_every=SAVE_EVERY,
        )
    return {"checkpoint": job.place, "steps": job.config.steps}


def _training(job: MappingJob, captions: Sequence[str]) -> LinCirTraining:
    from models.textual_inversion.keywords import extractor
    from models.textual_inversion.masking import training_rows
    from models.textual_inversion.training import LinCirTraining

    tower = load_encoder(job.encoder).tower
    find = extractor(job.words.keywords)
    rows = training_rows(captions, tower.tokens, find, job.words.masking)
    return LinCirTraining(job.config, tower, rows)
