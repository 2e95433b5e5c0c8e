"""Image features: f_v of every image (q_v and t_v of CVSI's equations 1 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from tasks.engines import encoder_dim, encoder_fingerprint, load_encoder
from tasks.stages.decoded import Decoding
from tasks.stages.over_images import ImageStage
from tasks.stages.stage import Tick


class ImageFeatureStage(ImageStage):
    """Un-normalised image features of a set of images."""

    table_name: ClassVar[str] = "image_features"
    producer: ClassVar[str] = "cirflow/image_features/1"

    encoder: EncoderSpec

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"image features of {self.images.title}"

    def identity(self) -> dict[str, Any]:
        """The encoder, and the reading of files."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "dim": encoder_dim(self.encoder),
            "dtype": "float32",
            **self.pictures.identity,
        }

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members; an image that does not decode is a row with its status."""
        data = dict(self.images.read(self.root, members))
        encoder = load_encoder(self.encoder)
        side = encoder.preprocess.side
        images = Decoding([data[m] for m in members], tick, self.pictures, side)
        vectors = encoder.encode_images(images, self.pictures.threads)
        return self.table().rows(
            image_id=list(members), vector=vectors, status=images.statuses, reason=images.reasons
        )
