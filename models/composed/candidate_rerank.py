"""Candidate re-ranking's second stage (Liu et al., TMLR 2024): a cross-encoder over candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from models.blip.settings import EarlyFusionSettings
from models.blip.vocabulary_file import vocabulary_beside
from models.composed.system_record import ComposedSystem
from models.published_files import only_file
from models.settings import Settings
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork
    from models.composed.network import ComposedNetwork


FILTER_SHARE: Final = "filter_share"
"""Name in an architecture, where a score has such a share."""


class RerankSettings(Settings):
    """The re-ranker's loss; its network is as large as its filter's text tower."""

    mask_repeats: bool = True
    """Whether other targets that are the same image as a query's own are left out of its
    negatives; the released code counts them."""
    filter_dropout: bool = True
    """Whether the frozen filter's dropout is on while the re-ranker is trained, as in the released
    code."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropped share in the re-ranker's training; none: as in its filter, which is published so."""
    negatives: int = Field(0, ge=0)
    """Images that a query's target is chosen from, besides the target: drawn in each epoch from the
    filter's own ranking of the training images, as candidates are at test. 0, as published: the
    targets of the batch."""
    among: int = Field(50, ge=1)
    """First images of that ranking from which `negatives` are drawn."""
    filter_share: float = Field(0.0, ge=0)
    """What of the filter's own score (cosine over its temperature) is added to each score, in
    training and in use, so that the re-ranker learns where its filter errs; 0, as published."""
    filter_in_loss: bool = True
    """Whether that share is in the training's scores; if not, the re-ranker learns to rank alone,
    and its score and the filter's are added in use."""

    @model_serializer(mode="wrap")
    def _plain(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A later setting is left out at its default or without effect: no key changes by it."""
        plain: dict[str, Any] = written(self)
        if self.dropout is None:
            del plain["dropout"]
        if not self.negatives:
            del plain["negatives"], plain["among"]
        if not self.filter_share:
            del plain["filter_share"]
        if self.filter_in_loss or not self.filter_share:
            del plain["filter_in_loss"]
        return plain


def _continued(
    start: FilterNetwork | RerankNetwork, settings: RerankSettings, seed: int
) -> RerankNetwork:
    from models.blip.candidate_rerank import RerankNetwork

    if isinstance(start, RerankNetwork):
        return RerankNetwork.continuing(start, settings)
    return RerankNetwork.on_filter(start, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork

    own = {name: each for name, each in architecture.items() if name != FILTER_SHARE}
    stage_one = FilterNetwork.rebuilt(own, folder, EarlyFusionSettings())
    return RerankNetwork(stage_one, RerankSettings(filter_share=architecture.get(FILTER_SHARE, 0)))


def published_files(folder: Path) -> tuple[Path, Path]:
    """The files of both stages in a published folder, which holds their vocabulary too.

    Raises:
        UnusableCheckpoint: One is missing, or is not a file of weights.
    """
    needed = (
        "put the published files of both stages and vocab.txt into one folder, as stage1.pt and "
        "stage2.pt"
    )
    first, second = (only_file(folder, f"{stage}*.pt", needed) for stage in ("stage1", "stage2"))
    vocabulary_beside(first)
    return first, second


def _published(path: Path, settings: RerankSettings) -> ComposedNetwork:
    from models.blip.candidate_rerank import published_rerank

    return published_rerank(path, settings)


SYSTEM: Final = ComposedSystem(
    name="candidate-rerank",
    title="Candidate re-ranking",
    settings=RerankSettings,
    starts_from="candidate-filter",
    goes_on=True,
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    require_published=published_files,
    training=ComposedTraining(
        batch_size=16,
        epochs=80,
        learning_rate=2e-5,
        new_learning_rate=2e-5,
        weight_decay=0.05,
        warmup=0.0,
        clip=0.0,
        augmentation="targetpad",
    ),
)
