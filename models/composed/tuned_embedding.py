"""An embedding model tuned on triplets: one vector of reference image and text, one of an image.

Training is the contrastive one of the models' own papers (Qwen3-VL-Embedding, arXiv:2601.04720;
GME, arXiv:2412.16855), with the targets of a batch as each other's negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from models.composed.system_record import ComposedSystem
from models.embedders.forms import Preset
from models.embedders.tunable import require_tunable
from models.settings import Settings
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.embedders.tuned_network import EmbeddingNetwork


class TunedEmbeddingSettings(Settings):
    """How pictures and texts are put to the model, and the loss."""

    form: Preset = "qwen3-vl-embedding"
    """The models' own programs that prompts follow; a form of Qwen-VL models."""
    instruction: str = ""
    """What a query asks for; empty: the form's own words."""
    target_instruction: str = ""
    """The same for gallery pictures."""
    side: int = Field(0, ge=0)
    """Pixels of both sides to which pictures are brought; 0: the most that the checkpoint's
    processor lets through, at most 448."""
    scale: float = Field(50.0, gt=0)
    """1 / temperature of the loss."""


def _published(path: Path, settings: TunedEmbeddingSettings) -> EmbeddingNetwork:
    from models.embedders.tuned_network import published_embedder

    return published_embedder(path, settings)


def _continued(
    start: EmbeddingNetwork, settings: TunedEmbeddingSettings, seed: int
) -> EmbeddingNetwork:
    from models.embedders.tuned_network import EmbeddingNetwork

    return EmbeddingNetwork.continuing(start, settings)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> EmbeddingNetwork:
    from models.embedders.tuned_network import EmbeddingNetwork

    return EmbeddingNetwork.rebuilt(architecture, folder)


SYSTEM: Final = ComposedSystem(
    name="tuned-embedding",
    title="Tuned embedding model",
    settings=TunedEmbeddingSettings,
    starts_from="tuned-embedding",
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    require_published=require_tunable,
    training=ComposedTraining(
        batch_size=128,
        epochs=1,
        learning_rate=1e-5,
        new_learning_rate=1e-5,
        weight_decay=0.01,
        warmup=0.05,
        clip=1.0,
    ),
)
