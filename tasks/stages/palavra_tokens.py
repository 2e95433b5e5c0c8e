"""Pseudo tokens of images by a PALAVRA-style set encoder, refined on their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from models.textual_inversion.refining import RefiningSettings
from storage.tables.plans import Keys
from storage.tables.table import Table
from tasks.engines import encoder_fingerprint, load_encoder, palavra_fingerprint, token_width
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.pseudo_tokens import NO_FEATURE, token_rows, usable_images
from tasks.stages.stage import Stage, Tick

if TYPE_CHECKING:
    from models.protocols import FloatArray


class PalavraTokenStage(Stage):
    """A pseudo token for each image, which is a set of its own."""

    table_name: ClassVar[str] = "pseudo_tokens"
    producer: ClassVar[str] = "cirflow/palavra_tokens/1"

    images: ImageFeatureStage
    """Features of the images."""
    encoder: EncoderSpec
    """Backbone whose text tower reads the tokens, in fp32."""
    network: str
    """Folder of the network."""
    refining: RefiningSettings = RefiningSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"PALAVRA-style pseudo tokens of {self.images.images.title}"

    def identity(self) -> dict[str, Any]:
        """Image features, network, text tower and refinement."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "images": self.images.spec_key,
            "network_of_sets": dict(palavra_fingerprint(self.network)),
            "refining": self.refining.model_dump(),
            "dim": token_width(self.encoder),
            "dtype": "float32",
        }

    def planned(self) -> list[str]:
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
        tokens = self.tokens_of(usable, table.vectors(usable))
        tick(len(members))
        return token_rows(self, members, dict(zip(usable, tokens, strict=True)), NO_FEATURE)

    def tokens_of(
        self, image_ids: Sequence[str], features: FloatArray, concepts: Table | None = None
    ) -> FloatArray:
        """Tokens (B, dt) of images with features (B, d), made now."""
        from models.textual_inversion.palavra import image_tokens
        from tasks.engines import load_palavra

        network, encoder = load_palavra(self.network), load_encoder(self.encoder)
        return image_tokens(network, encoder.tower, features, self.refining)
