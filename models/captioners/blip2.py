"""BLIP-2 captions: the image is read once, its captions are drawn from independent streams.

CVSI eq. 3 and 4 ask for N captions of an image by nucleus sampling. The vision tower and the
Q-Former run once per image, the language model reads the image's prefix once, and only the
key-value cache is repeated N times. Sampling is counter-based (`models.sampling`), so that a
caption depends on (image key, sample index, seed, model) and not on the batch it is drawn in.

Shapes: B images, N captions each, L prefix length, H language width.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from models.checkpoints import (
    identity_or_load,
    loading_arguments,
    model_name,
    pick_device,
    pick_dtype,
)
from models.decoding import Sampling, decode
from models.protocols import CaptionReply, CaptionSampling, Fingerprint
from models.sampling import stream_seed

VERSION = 1
"""Raised when the code draws other captions from the same checkpoint and sampling."""

_IMAGE_FAILURES = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""What a bad image or a full memory raises inside preprocessing or the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blip2Settings:
    """Which BLIP-2 checkpoint runs, and where.

    Attributes:
        model: Local directory or hub id of a BLIP-2 with an OPT (decoder-only) language model.
        revision: Hub revision; ignored for a directory.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto` (bfloat16 on a GPU, else float32), `float32`, `bfloat16` or `float16`.
        batch_size: Images run at once; does not change a caption.
    """

    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Refuse a batch that holds nothing."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")


class Blip2Captioner:
    """Captions images with a BLIP-2 checkpoint; fulfils `models.protocols.Captioner`."""

    def __init__(self, settings: Blip2Settings) -> None:
        """Remember the settings; the checkpoint is loaded when the first image comes."""
        self._settings = settings
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.dtype, self._device)

    @cached_property
    def _model(self) -> Blip2ForConditionalGeneration:
        settings = self._settings
        model = Blip2ForConditionalGeneration.from_pretrained(
            settings.model,
            dtype=self._dtype,
            **loading_arguments(settings.model, settings.revision),
        )
        if not model.config.use_decoder_only_language_model:
            raise ValueError(
                f"{settings.model!r} has an encoder-decoder language model (T5); only BLIP-2 with "
                "OPT is supported, for example Salesforce/blip2-opt-6.7b"
            )
        return model.eval().to(self._device)

    @cached_property
    def _processor(self) -> Any:
        settings = self._settings
        return AutoProcessor.from_pretrained(
            settings.model, **loading_arguments(settings.model, settings.revision)
        )

    @property
    def _end_tokens(self) -> list[int]:
        return _as_list(self._model.language_model.generation_config.eos_token_id)

    @property
    def _num_queries(self) -> int:
        return int(self._model.config.num_query_tokens)

    @property
    def _image_token(self) -> int:
        return int(self._model.config.image_token_id)

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, dtype and code version; loads no weights that are on disk."""
        settings = self._settings
        identity = identity_or_load(settings.model, settings.revision, lambda: self._model)
        return {
            "engine": "transformers-blip2",
            "engine_version": importlib.metadata.version("transformers"),
            "version": VERSION,
            "model": model_name(self._settings.model, identity),
            "files": dict(identity),
            "dtype": str(self._dtype).removeprefix("torch."),
        }

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        """Caption every (key, image) exactly once, in the order given.

        At most `batch_size` images are held at a time. An image that cannot be captioned
        becomes a reply with status `engine_error`; the others are not affected.
        """
        prefix = self._prefix(sampling.prompt)
        stream = iter(images)
        while batch := list(itertools.islice(stream, self._settings.batch_size)):
            yield from self._caption_or_split(batch, sampling, prefix)

    def _caption_or_split(
        self, batch: Sequence[tuple[str, Image.Image]], sampling: CaptionSampling, prefix: Tensor
    ) -> Iterator[CaptionReply]:
        """Caption a batch; when it fails, halve it until the images at fault stand alone."""
        reason = ""
        try:
            captions = self._caption_batch(batch, sampling, prefix)
        except _IMAGE_FAILURES as failure:
            # Only the text is kept: the exception's traceback would hold the batch in memory.
            reason = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
        if not reason:
            for (key, _), texts in zip(batch, captions, strict=True):
                yield _reply(key, texts)
            return
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            yield CaptionReply(batch[0][0], (), "engine_error", reason)
            return
        half = len(batch) // 2
        yield from self._caption_or_split(batch[:half], sampling, prefix)
        yield from self._caption_or_split(batch[half:], sampling, prefix)

    @torch.inference_mode()
    def _caption_batch(
        self, batch: Sequence[tuple[str, Image.Image]], sampling: CaptionSampling, prefix: Tensor
    ) -> list[list[str]]:
        """N stripped captions for each image of the batch."""
        pixels = self._processor.image_processor(
            images=[image for _, image in batch], return_tensors="pt"
        )["pixel_values"].to(self._device, self._dtype)
        prompt = self._embed(pixels, prefix)
        if sampling.mode == "beam_sample":
            token_rows = self._beam_sample(prompt, [key for key, _ in batch], sampling)
        else:
            seeds: tuple[int, ...] = ()
            if sampling.mode == "nucleus":
                seeds = tuple(
                    stream_seed("caption", sampling.seed, key, index)
                    for key, _ in batch
                    for index in range(sampling.n)
                )
            rows = decode(
                self._model.language_model,
                prompt,
                repeats=sampling.n,
                max_new_tokens=sampling.max_new_tokens,
                end_tokens=self._end_tokens,
                sampling=Sampling(seeds, sampling.temperature, sampling.top_p),
                min_new_tokens=1,  # LAVIS's min_length
            )
            token_rows = [row.tokens for row in rows]
        texts = self._processor.tokenizer.batch_decode(token_rows, skip_special_tokens=True)
        stripped = [text.strip() for text in texts]
        return [stripped[i : i + sampling.n] for i in range(0, len(stripped), sampling.n)]

    def _embed(self, pixels: Tensor, prefix: Tensor) -> dict[str, Tensor]:
        """The language model's input for every image: query outputs, then the prompt, (B, L, H)."""
        features = self._model.get_image_features(pixels, return_dict=True).pooler_output
        input_ids = prefix.expand(len(pixels), -1)
        embeds = self._model.get_input_embeddings()(input_ids)
        is_image = (input_ids == self._image_token)[..., None]
        return {
            "inputs_embeds": embeds.masked_scatter(is_image, features.to(embeds.dtype)),
            "attention_mask": torch.ones_like(input_ids),
        }

    def _prefix(self, prompt: str) -> Tensor:
        """Token ids (1, L) that stand before a caption: image placeholders, then the prompt.

        Raises:
            ValueError: When the number of placeholders is not the number of queries: a
                processor without `num_query_tokens` inserts none, and the model would then
                describe nothing, silently.
        """
        if prompt:
            blank = Image.new("RGB", (8, 8))
            ids = self._processor(images=blank, text=prompt, return_tensors="pt")["input_ids"]
        else:
            start = self._model.config.text_config.bos_token_id
            ids = torch.tensor([[self._image_token] * self._num_queries + [start]])
        found = int((ids == self._image_token).sum())
        if found != self._num_queries:
            raise ValueError(
                f"the processor of {self._settings.model!r} put {found} image placeholders before "
                f"the prompt, but the model has {self._num_queries} queries; set num_query_tokens "
                f"to {self._num_queries} in its processor_config.json"
            )
        return ids.to(self._device)

    def _beam_sample(
        self, prompt: dict[str, Tensor], keys: Sequence[str], sampling: CaptionSampling
    ) -> list[list[int]]:
        """The present LAVIS behaviour (difference D8): N beams, N returns, seeded per image."""
        token_rows: list[list[int]] = []
        for index, key in enumerate(keys):
            one = {name: tensor[index : index + 1] for name, tensor in prompt.items()}
            devices = [self._device] if self._device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(stream_seed("beam_sample", sampling.seed, key) & (2**63 - 1))
                out = self._model.language_model.generate(
                    **one,
                    do_sample=True,
                    num_beams=sampling.n,
                    num_return_sequences=sampling.n,
                    top_p=sampling.top_p,
                    top_k=0,
                    temperature=sampling.temperature,
                    max_new_tokens=sampling.max_new_tokens,
                    min_new_tokens=1,
                )
            token_rows += out.tolist()
        return token_rows


def _reply(key: str, captions: Sequence[str]) -> CaptionReply:
    """A reply, refused when a caption has no words: its feature would be that of no text."""
    empty = [index for index, caption in enumerate(captions) if not caption]
    if empty:
        reason = f"caption {empty[0] + 1} of {len(captions)} is empty"
        return CaptionReply(key, (), "rejected", reason)
    return CaptionReply(key, tuple(captions))


def _as_list(token: int | Sequence[int] | None) -> list[int]:
    if token is None:
        return []
    return [token] if isinstance(token, int) else list(token)
