"""CLIP whose towers are added: BGE-VL base and large, MMRet (MegaPairs, arXiv:2412.14475).

    v(pictures, text) = f_v(pictures) + f_t(text),    v(picture) = f_v(picture)

with features as the projections give them; several pictures count by their mean, and a part that
is empty is left out. It reads no instruction. The weights are those of CLIP's own class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import Field

from models.captioners.chat import check_proportions
from models.checkpoints import CONFIG_FILE, PROCESSOR, TOKENIZER, checkpoint_folder
from models.embedders.protocol import NO_EMBEDDER, ComposedQuery, Embedded, EmbedderEngine
from models.engine_settings import CheckpointSettings
from models.loaded_checkpoint import LoadedCheckpoint, images_scaled_by
from models.protocols import Fingerprint
from models.spelling import agreed

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from models.protocols import FloatArray

VERSION: Final = 1
"""Raised when the code gives other vectors to the same queries."""
_CLIP_WIDTH: Final = 512
"""Width of the joint space where a configuration names none."""


class ClipEmbedderSettings(EmbedderEngine, CheckpointSettings):
    """The sum of CLIP's towers in transformers' layout: BGE-VL base and large, MMRet."""

    MODEL_TYPES: ClassVar[Sequence[str]] = ("clip",)
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = (TOKENIZER, PROCESSOR)

    engine: Literal["clip-embedder"] = "clip-embedder"
    model: str = ""
    """Directory or hub id; empty: none."""
    batch_size: int = Field(64, ge=1)
    """Queries or pictures read at once; changes a vector by rounding alone."""

    @property
    def lacking(self) -> str:
        """A checkpoint."""
        return "" if self.model else NO_EMBEDDER

    @property
    def asked(self) -> str:
        """Nothing: it reads no instruction."""
        return ""

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        self.files(lambda: self.load().fetch())
        path = checkpoint_folder(self.model, self.revision) / CONFIG_FILE
        return int(json.loads(path.read_bytes()).get("projection_dim", _CLIP_WIDTH))

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, precision and code version."""
        return {
            **self.contents("transformers-clip-embedder", VERSION, lambda: self.load().fetch()),
            "images_scaled_by": images_scaled_by(),
        }

    def load(self) -> ClipEmbedder:
        """The embedder; its checkpoint is read when the first query comes."""
        return ClipEmbedder(self)


class ClipEmbedder(LoadedCheckpoint[ClipEmbedderSettings]):
    """Embeds by CLIP's towers; fulfils `models.embedders.protocol.ComposedEmbedder`."""

    MODEL = "CLIPModel"
    PROCESSOR = "CLIPProcessor"

    @property
    def _reader_of_words(self) -> Any:
        """CLIP's text tower; the whole model has no table of words."""
        return self._model.text_model

    def encode_composed(self, queries: Iterable[ComposedQuery], instruction: str = "") -> Embedded:
        """Vectors of queries; an instruction is not read."""
        from models.embedders.in_process import embed_in_batches

        _ = self._processor
        settings = self._settings
        return embed_in_batches(queries, settings.batch_size, settings.dim, self._embed)

    def encode_targets(self, pictures: Iterable[Image.Image]) -> Embedded:
        """Vectors of gallery pictures."""
        return self.encode_composed(ComposedQuery((picture,), "") for picture in pictures)

    def _embed(self, queries: Sequence[ComposedQuery]) -> FloatArray:
        import torch

        images = [each for query in queries for each in query.pictures]
        owners = [i for i, query in enumerate(queries) for _ in query.pictures]
        told = [i for i, query in enumerate(queries) if query.text]
        if lost := len(queries) - len({*owners, *told}):
            queries_have = agreed(lost, "query has", "queries have")
            raise ValueError(f"{lost} {queries_have} neither pictures nor a text")
        with torch.inference_mode():
            made = torch.zeros(len(queries), self._settings.dim, device=self._device)
            if owners:
                place = torch.tensor(owners, device=self._device)
                counts = torch.bincount(place, minlength=len(queries)).clamp(min=1)
                made.index_add_(0, place, self._seen(images))
                made /= counts[:, None]
            if told:
                made[told] += self._read([queries[i].text for i in told])
        found: FloatArray = made.cpu().numpy()
        return found

    def _seen(self, images: Sequence[Image.Image]) -> Tensor:
        for image in images:
            check_proportions(image)
        shown = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
        pixels = self._processor.image_processor(shown, return_tensors="pt")["pixel_values"]
        pooled = self._model.vision_model(pixels.to(self._device, self._dtype)).pooler_output
        features: Tensor = self._model.visual_projection(pooled).float()
        return features

    def _read(self, texts: Sequence[str]) -> Tensor:
        tokens = self._processor.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        pooled = self._model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        features: Tensor = self._model.text_projection(pooled).float()
        return features
