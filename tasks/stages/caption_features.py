"""Caption features: the mean text feature of an image's captions (t_c, equation 5).

With N captions an image, any smaller N follows from the vectors of each caption. These are a table
of their own, made only where a smaller N is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from models.retrieval.caption_features import (
    caption_means_or_zeros,
    caption_vectors,
    means_of_first,
)
from storage.tables.plans import Keys
from storage.tables.schemas import OK
from tasks.engines import encoder_dim, encoder_fingerprint, load_encoder
from tasks.stages.captions import CaptionStage
from tasks.stages.stage import Stage, Tick

if TYPE_CHECKING:
    from models.protocols import FloatArray


class CaptionVectorStage(Stage):
    """The vector of each of an image's N captions, of the images of a caption stage."""

    table_name: ClassVar[str] = "caption_vectors"
    producer: ClassVar[str] = "cirflow/caption_vectors/1"

    captions: CaptionStage
    encoder: EncoderSpec

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"vectors of each caption of {self.captions.images.title}"

    @property
    def width(self) -> int:
        """Captions of an image, N."""
        return self.captions.sampling.n

    def identity(self) -> dict[str, Any]:
        """Encoder, and the captions' own spec."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "captions": self.captions.spec_key,
            "dim": encoder_dim(self.encoder) * self.width,
            "dtype": "float32",
        }

    def planned(self) -> Sequence[str]:
        """Image ids."""
        return self.captions.planned()

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.captions.planned_keys()

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members' captions; an image without captions is a row that says so."""
        texts = captions_of(self.captions, members)
        own = [texts.get(member, [])[: self.width] for member in members]
        vectors = caption_vectors(load_encoder(self.encoder), own, self.width)
        tick(len(members))
        return _rows(self, members, vectors.reshape(len(members), -1), [len(each) for each in own])


class CaptionFeatureStage(Stage):
    """Mean caption features of the images of a caption stage."""

    table_name: ClassVar[str] = "caption_features"
    producer: ClassVar[str] = "cirflow/caption_features/1"

    captions: CaptionStage
    encoder: EncoderSpec
    mean: Literal["unit_mean", "raw_mean"] = "unit_mean"
    first: int = 0
    """Captions of an image that enter the mean, at most: its first ones; 0: all."""
    vectors: CaptionVectorStage | None = None
    """The vectors of each caption, to average without encoding; None: encode the captions. The
    means are the same, and so is their key."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        some = f"the first {self.first} of each of " if self.first else ""
        return f"caption features of {some}{self.captions.images.title}"

    def identity(self) -> dict[str, Any]:
        """Encoder, kind of mean, the captions' own spec, and how many are averaged if not all."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "captions": self.captions.spec_key,
            "mean": self.mean,
            **({"first": self.first} if self.first else {}),
            "dim": encoder_dim(self.encoder),
            "dtype": "float32",
        }

    def planned(self) -> Sequence[str]:
        """Image ids."""
        return self.captions.planned()

    def planned_keys(self) -> Keys:
        """The ids; as derived keys where they follow from a listing."""
        return self.captions.planned_keys()

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Average the members' captions; an image without captions is a row that says so."""
        means, counts = (self._averaged if self.vectors else self._encoded)(members)
        tick(len(members))
        return _rows(self, members, means, counts)

    def _encoded(self, members: Sequence[str]) -> tuple[FloatArray, list[int]]:
        texts = captions_of(self.captions, members)
        own = [texts.get(member, [])[: self.first or None] for member in members]
        means = caption_means_or_zeros(load_encoder(self.encoder), own, self.mean)
        return means, [len(each) for each in own]

    def _averaged(self, members: Sequence[str]) -> tuple[FloatArray, list[int]]:
        assert self.vectors is not None
        table, width = self.vectors.table(), self.vectors.width
        rows = table.read(["n_captions", "status"], list(members))
        held = {key: n for key, n, status in rows.iter_rows() if status == OK}
        keys = [member for member in members if member in held]
        vectors = table.vectors(keys).reshape(len(keys), width, encoder_dim(self.encoder))
        counts = [held.get(member, 0) for member in members]
        means = means_of_first(vectors, counts, self.first, self.mean)
        return means, [min(count, self.first or width) for count in counts]


def _rows(
    stage: Stage, members: Sequence[str], vectors: FloatArray, counts: Sequence[int]
) -> pa.Table:
    """One row an image; one without captions says so."""
    return stage.table().rows(
        image_id=list(members),
        vector=vectors,
        n_captions=[count or None for count in counts],
        status=[OK if count else "no_captions" for count in counts],
        reason=["" if count else "the image has no captions" for count in counts],
    )


def captions_of(stage: CaptionStage, image_ids: Sequence[str]) -> dict[str, list[str]]:
    """Captions by image id, of those images that have some."""
    rows = stage.table().read(["captions", "status"], image_ids)
    return {
        image_id: captions
        for image_id, captions, status in rows.iter_rows()
        if status == OK and captions
    }
