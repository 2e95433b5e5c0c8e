"""A PALAVRA-style network: what it is trained on and published as."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.engines import load_encoder
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.concepts import known_phrases, usable_concepts
from tasks.stages.pseudo_tokens import usable_images
from tasks.training.inversion import InversionJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.textual_inversion.token_learner import TokenLearner


@dataclass(frozen=True, kw_only=True)
class PalavraJob(InversionJob):
    """A set encoder whose examples are concepts.

    Attributes:
        captions: Caption features of the images.
    """

    KIND: ClassVar[str] = "palavra"
    UNIT: ClassVar[str] = "concepts"

    captions: CaptionFeatureStage

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the network."""
        return {**super().spec, "captions": self.captions.spec_key}

    def usable(self) -> set[str]:
        """Images with captions."""
        return super().usable() & usable_images(self.captions.table(), self.images.planned())

    @property
    def count(self) -> int:
        """Concepts that an image belongs to."""
        return len(set(self._assigned.tolist()))

    @cached_property
    def _assigned(self) -> Any:
        from models.textual_inversion.concept_sets import concepts_of

        vectors = self._vectors.table().vectors(self.names)
        return concepts_of(self.images.table().vectors(self.ids), vectors)

    @cached_property
    def names(self) -> list[str]:
        """The concepts that have phrases."""
        return usable_concepts(self._vectors, known_phrases(self.phrases, self.written))

    def new_network(self) -> TokenLearner:
        """The network as training begins with it."""
        from models.textual_inversion.palavra import PalavraLearner

        encoder = load_encoder(self.encoder)
        settings: Any = self.own_settings
        return PalavraLearner(encoder.tower, encoder.dim, self.names, settings, self.training.seed)

    def arrays(self) -> Mapping[str, Any]:
        """Arrays by name, a row for each concept."""
        from models.textual_inversion.concept_sets import concept_sets

        phrases = known_phrases(self.phrases, self.written)
        return concept_sets(
            load_encoder(self.encoder),
            self.images.table().vectors(self.ids),
            self.captions.table().vectors(self.ids),
            self._assigned,
            [phrases[name] for name in self.names],
            int(self.own_settings.model_dump()["images_per_concept"]),
        )

    def files(self, learner: Any, recipe: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of the trained network, by name."""
        from models.textual_inversion.palavra_files import dump_palavra

        return dump_palavra(learner.network, recipe)
