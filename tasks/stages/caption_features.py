"""Caption features: the mean text feature of an image's captions (t_c, equation 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from models.retrieval.caption_features import caption_means_or_zeros
from storage.tables.plans import Keys
from storage.tables.schemas import OK
from tasks.engines import encoder_dim, encoder_fingerprint, load_encoder
from tasks.stages.captions import CaptionStage
from tasks.stages.stage import Stage, Tick


class CaptionFeatureStage(Stage):
    """Mean caption features of the images of a caption stage."""

    table_name: ClassVar[str] = "caption_features"
    producer: ClassVar[str] = "cirflow/caption_features/1"

    captions: CaptionStage
    encoder: EncoderSpec
    mean: Literal["unit_mean", "raw_mean"] = "unit_mean"

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"caption features of {self.captions.images.title}"

    def identity(self) -> dict[str, Any]:
        """Encoder, kind of mean, and the captions' own spec."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "captions": self.captions.spec_key,
            "mean": self.mean,
            "dim": encoder_dim(self.encoder),
            "dtype": "float32",
        }

    def planned(self) -> list[str]:
        """Image ids."""
        return self.captions.planned()

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.captions.planned_keys()

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Average the members' captions; an image without captions is a row that says so."""
        texts = captions_of(self.captions, members)
        vectors = caption_means_or_zeros(
            load_encoder(self.encoder), [texts.get(m, ()) for m in members], self.mean
        )
        tick(len(members))
        return self.table().rows(
            image_id=list(members),
            vector=vectors,
            n_captions=[len(texts[m]) if m in texts else None for m in members],
            status=[OK if m in texts else "no_captions" for m in members],
            reason=["" if m in texts else "the image has no captions" for m in members],
        )


def captions_of(stage: CaptionStage, image_ids: Sequence[str]) -> dict[str, list[str]]:
    """Captions by image id, of those images that have some."""
    rows = stage.table().read(["captions", "status"], list(image_ids))
    return {
        image_id: captions
        for image_id, captions, status in rows.iter_rows()
        if status == OK and captions
    }
