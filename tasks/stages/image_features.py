"""Image features: f_v of every image (q_v and t_v of CVSI's equations 1 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from models.open_clip_loading import EncoderSpec
from storage.images import ImageProblem, decode_image
from storage.schemas import OK
from tasks.engines import encoder_fingerprint, encoder_shape, load_encoder
from tasks.stages.base import ImageSet, Stage, Tick


class ImageFeatureStage(Stage):
    """Un-normalised image features of a set of images."""

    table_name: ClassVar[str] = "image_features"
    producer: ClassVar[str] = "cirflow/image_features/1"

    images: ImageSet
    encoder: EncoderSpec

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"image features of {self.images.title}"

    def identity(self) -> dict[str, Any]:
        """The encoder."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "dim": encoder_shape(self.encoder).dim,
            "dtype": "float32",
        }

    def planned(self) -> list[str]:
        """Image ids."""
        return self.images.ids(self.root)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members; an image that does not decode is a row with its status."""
        data = dict(self.images.read(self.root, members))
        images = _Decoding([data[m] for m in members], tick)
        vectors = load_encoder(self.encoder).encode_images(images)
        status = [images.status(i) for i in range(len(members))]
        reason = [images.reason(i) for i in range(len(members))]
        broken = [s != OK for s in status]
        vectors = np.where(np.array(broken)[:, None], np.float32(0), vectors)
        return self.table().rows(
            image_id=list(members), vector=vectors, status=status, reason=reason
        )


class _Decoding(Sequence[Image.Image]):
    """Images that are decoded when they are asked for, so that few are in memory at once."""

    def __init__(self, data: Sequence[bytes], tick: Tick) -> None:
        self._data = data
        self._tick = tick
        self._problems: dict[int, ImageProblem] = {}

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        self._tick(1)
        try:
            return decode_image(self._data[index])
        except ImageProblem as problem:
            self._problems[index] = problem
            return Image.new("RGB", (1, 1))  # keeps the batch whole; its vector is dropped

    def status(self, index: int) -> str:
        problem = self._problems.get(index)
        return problem.status if problem else OK

    def reason(self, index: int) -> str:
        problem = self._problems.get(index)
        return problem.reason if problem else ""
