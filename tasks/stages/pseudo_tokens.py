"""Pseudo tokens of images: optimised one by one (SEARLE-OTI), or optimised elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from models.textual_inversion.oti_settings import OtiSettings
from storage.locations.location import Location
from storage.tables.plans import Keys
from storage.tables.schemas import OK
from storage.tables.table import Table, load_table
from tasks.engines import encoder_fingerprint, load_encoder, token_width
from tasks.stages.concepts import (
    ConceptPhraseStage,
    ConceptVectorStage,
    Phrases,
    known_phrases,
    usable_concepts,
    words_identity,
)
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.image_sets import ImageSet
from tasks.stages.stage import Stage, Tick

if TYPE_CHECKING:
    from models.protocols import FloatArray

MISSING = "missing_input"


class MadeTokenStage(Stage):
    """Pseudo tokens that are made of image features."""

    table_name: ClassVar[str] = "pseudo_tokens"

    images: ImageFeatureStage
    """Features of the images."""
    encoder: EncoderSpec
    """Backbone whose text tower reads the tokens, in fp32."""

    @abstractmethod
    def tokens_of(self, image_ids: Sequence[str], features: FloatArray) -> FloatArray:
        """Tokens (B, dt) of images with features (B, d), made now.

        Args:
            image_ids: Their content keys.
            features: As the backbone encodes them.
        """

    def made(self, image_ids: Sequence[str], features: FloatArray) -> FloatArray:
        """As `tokens_of`, where all stages that this one reads have their rows."""
        return self.tokens_of(image_ids, features)

    def planned(self) -> Sequence[str]:
        """Image ids."""
        return self.images.planned()

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.images.planned_keys()

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Make the members' tokens; an image without a feature is a row that says so."""
        table = self.images.table()
        known = usable_images(table, members)
        usable = [key for key in members if key in known]
        tokens = self.made(usable, table.vectors(usable))
        tick(len(members))
        return token_rows(self, members, dict(zip(usable, tokens, strict=True)), NO_FEATURE)


class OtiTokenStage(MadeTokenStage):
    """A pseudo token for each image by optimisation; it follows from the image's content."""

    producer: ClassVar[str] = "cirflow/pseudo_tokens/1"

    oti: OtiSettings
    vectors: ConceptVectorStage
    """Vectors of the vocabulary's concepts."""
    phrases: str = ""
    """JSON file of phrases; empty: those of `written`."""
    written: ConceptPhraseStage | None = None
    """Phrases of the text generator."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"optimised pseudo tokens of {self.images.images.title}"

    def identity(self) -> dict[str, Any]:
        """Image features, text tower, settings, vocabulary and phrases."""
        words: dict[str, Any] = {"concepts": {}, "phrases": {}}
        if self.oti.phrase_weight:
            words = words_identity(self.vectors, self.phrases, self.written)
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "images": self.images.spec_key,
            "oti": self.oti.model_dump(),
            **words,
            "dim": token_width(self.encoder),
            "dtype": "float32",
        }

    def made(self, image_ids: Sequence[str], features: FloatArray) -> FloatArray:
        """With the stored vectors of concepts."""
        return self._optimised(image_ids, features, self.vectors.table())

    def tokens_of(self, image_ids: Sequence[str], features: FloatArray) -> FloatArray:
        """Tokens (B, dt); the concepts are encoded, and all draws follow from the image ids.

        Raises:
            ValueError: None of the vocabulary's concepts has a phrase.
        """
        return self._optimised(image_ids, features, None)

    def _optimised(
        self, image_ids: Sequence[str], features: FloatArray, concepts: Table | None
    ) -> FloatArray:
        from models.textual_inversion.nearest import concept_vectors, nearest_concepts
        from models.textual_inversion.oti import draws, optimised_tokens

        encoder = load_encoder(self.encoder)
        own: list[list[str]] = [[] for _ in image_ids]
        phrases: Phrases = {}
        if self.oti.phrase_weight:
            phrases = known_phrases(self.phrases, self.written)
            names = usable_concepts(self.vectors, phrases)
            vectors = concepts.vectors(names) if concepts else concept_vectors(encoder, names)
            nearest = nearest_concepts(features, vectors, self.oti.concepts)
            own = [[names[row] for row in rows] for rows in nearest.tolist()]
        drawn = [
            draws(key, near, phrases, encoder.token_width, self.oti)
            for key, near in zip(image_ids, own, strict=True)
        ]
        return optimised_tokens(encoder.tower, features, drawn, self.oti)


class ImportedTokenStage(Stage):
    """Pseudo tokens that others optimised (`cirflow import features FOLDER`), of some images."""

    table_name: ClassVar[str] = "pseudo_tokens"
    producer: ClassVar[str] = "cirflow/imported_tokens/1"

    images: ImageSet
    imported: str
    """Key of the imported table of `image_features`."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"imported pseudo tokens of {self.images.title}"

    def identity(self) -> dict[str, Any]:
        """The import."""
        spec = self._source().spec
        return {"imported": self.imported, "dim": spec["dim"], "dtype": "float32"}

    def planned(self) -> Sequence[str]:
        """Image ids."""
        return self.images.ids(self.root)

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.images.planned_keys(self.root)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Copy the members' tokens; an image that the import lacks is a row that says so."""
        source = self._source()
        known = usable_images(source, members)
        held = [key for key in members if key in known]
        found = dict(zip(held, source.vectors(held), strict=True))
        tick(len(members))
        reason = f"image_features/{self.imported} holds no token of the image"
        return token_rows(self, members, found, reason)

    def tokens_of(self, image_ids: Sequence[str], features: FloatArray) -> FloatArray:
        """Imported tokens (B, dt).

        Raises:
            IncompleteTable: an image has none.
        """
        return self._source().vectors(image_ids)

    def _source(self) -> Table:
        return load_table(Location(self.root), "image_features", self.imported)


NO_FEATURE = "the image has no feature"


def token_rows(
    stage: Stage, members: Sequence[str], tokens: dict[str, FloatArray], reason: str
) -> pa.Table:
    """One row an image; one without a token says why."""
    return stage.table().rows(
        image_id=list(members),
        vector=[tokens.get(key) for key in members],
        status=[OK if key in tokens else MISSING for key in members],
        reason=["" if key in tokens else reason for key in members],
    )


def usable_images(table: Table, members: Sequence[str]) -> set[str]:
    """The members that have an ok row."""
    rows = table.read(["status"], list(members))
    return {key for key, status in rows.iter_rows() if status == OK}


def stored_tokens(table: Table, image_ids: Sequence[str]) -> dict[str, FloatArray]:
    """Tokens (dt,) by image, of those images that have one."""
    held = sorted(usable_images(table, list(dict.fromkeys(image_ids))))
    return dict(zip(held, table.vectors(held), strict=True))
