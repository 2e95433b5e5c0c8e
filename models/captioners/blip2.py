"""BLIP-2 captions: the image is read once, its captions are drawn from independent streams.

CVSI eq. 3 and 4 ask for N captions of an image by nucleus sampling. The vision tower and the
Q-Former run once per image, the language model reads the image's prefix once, and only the
key-value cache is repeated N times. The language model is OPT, or T5 (CIReVL's captioner).

Shapes: B images, N captions each, L prefix length, H language width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from models.captioners.processor_size import processor_side
from models.checkpoints import PROCESSOR, TOKENIZER
from models.engine_settings import CheckpointSettings
from models.loaded_checkpoint import LoadedCheckpoint
from models.protocols import CaptionReply, CaptionSampling, Fingerprint
from models.spelling import agreed

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

VERSION = 1
"""Raised when the code draws other captions from the same checkpoint and sampling."""


class Blip2Settings(CheckpointSettings):
    """BLIP-2 in this process."""

    MODEL_TYPES: ClassVar[Sequence[str]] = ("blip-2",)
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = (TOKENIZER, PROCESSOR)

    engine: Literal["blip2"] = "blip2"
    batch_size: int = Field(16, ge=1)
    """Images captioned at once; does not change a caption."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, precision and code version."""
        return self.contents("transformers-blip2", VERSION, lambda: self.load().fetch())

    @property
    def picture_side(self) -> int | None:
        """The processor's size."""
        return processor_side(self.model, self.revision)

    def check(self) -> None:
        """Compare names and shapes of the weights with the model's; none is read.

        Raises:
            UnusableCheckpoint: Something is missing or does not fit.
        """
        from transformers import AutoProcessor, Blip2ForConditionalGeneration

        from models.loaded_weights import check_model

        super().check()
        check_model(Blip2ForConditionalGeneration, AutoProcessor, self.model, self.revision)

    def load(self) -> Blip2Captioner:
        """The captioner; its checkpoint is read when the first image comes."""
        return Blip2Captioner(self)


class Blip2Captioner(LoadedCheckpoint[Blip2Settings]):
    """Captions images with a BLIP-2 checkpoint; fulfils `models.protocols.Captioner`."""

    MODEL = "Blip2ForConditionalGeneration"

    @property
    def _num_queries(self) -> int:
        return int(self._model.config.num_query_tokens)

    @property
    def _image_token(self) -> int:
        return int(self._model.config.image_token_id)

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        """Caption every (key, image) exactly once, in the order given; see `in_process`.

        Raises:
            ValueError: Before the first image, when the checkpoint or its processor cannot be used.
        """
        from models.captioners.in_process import caption_in_batches

        self.fetch()  # what is wrong with the checkpoint is not the first image's fault
        caption_batch = partial(
            self._caption_batch, sampling=sampling, prefix=self._prefix(sampling.prompt)
        )
        yield from caption_in_batches(images, self._settings.batch_size, caption_batch)

    def _caption_batch(
        self, batch: Sequence[tuple[str, Image.Image]], sampling: CaptionSampling, prefix: Tensor
    ) -> list[list[str]]:
        """N stripped captions for each image of the batch."""
        import torch

        from models.captioners.in_process import as_list, draw_captions, grouped, images_in_place

        pixels = self._processor.image_processor(
            images=[image for _, image in batch], return_tensors="pt"
        )["pixel_values"].to(self._device, self._dtype)
        language = self._model.language_model
        with torch.inference_mode():
            queries = self._model.get_image_features(pixels, return_dict=True).pooler_output
            token_rows = draw_captions(
                language,
                images_in_place(self._model, prefix, queries),
                [key for key, _ in batch],
                sampling,
                end_tokens=as_list(language.generation_config.eos_token_id),
                min_new_tokens=1,  # LAVIS's min_length
            )
        texts = self._processor.tokenizer.batch_decode(token_rows, skip_special_tokens=True)
        return grouped(texts, sampling.n)

    def _prefix(self, prompt: str) -> Tensor:
        """Token ids (1, L) that stand before a caption: image placeholders, then the prompt.

        Raises:
            ValueError: When the number of placeholders is not the number of queries: a
                processor without `num_query_tokens` inserts none, and the model would then
                describe nothing, silently.
        """
        import torch
        from PIL import Image

        # An encoder-decoder model (T5) has no start token: its empty prompt is an end token.
        if prompt or not self._model.config.use_decoder_only_language_model:
            blank = Image.new("RGB", (8, 8))
            ids = self._processor(images=blank, text=prompt, return_tensors="pt")["input_ids"]
        else:
            start = self._model.config.text_config.bos_token_id
            ids = torch.tensor([[self._image_token] * self._num_queries + [start]])
        found = int((ids == self._image_token).sum())
        if found != self._num_queries:
            placeholders = agreed(found, "image placeholder")
            queries = agreed(self._num_queries, "query")
            raise ValueError(
                f"the processor of {self._settings.model!r} put {found} {placeholders} before "
                f"the prompt, but the model has {self._num_queries} {queries}; set "
                f"num_query_tokens to {self._num_queries} in its processor_config.json"
            )
        return ids.to(self._device)
