"""LLaVA captions in process: an image, a question, and the answer a chat would give.

InstructCIR captions every image once with LLaVA-1.5 (arXiv:2412.05756, section III). The prompt is
rendered by the checkpoint's own chat template, which is what a server does with it, so that both
give the same greedy caption. All images share one prompt and become the same number of tokens:
nothing is padded, and the batch does not change a caption.

Shapes: B images, P patches each, L prompt length, H language width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from models.captioners.chat import check_proportions, prompt_fingerprint, question
from models.captioners.processor_size import processor_side
from models.checkpoints import PROCESSOR, TOKENIZER
from models.engine_settings import CheckpointSettings
from models.loaded_checkpoint import LoadedCheckpoint, images_scaled_by
from models.protocols import CaptionReply, CaptionSampling, Fingerprint

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

VERSION = 1
"""Raised when the code draws other captions from the same checkpoint and sampling."""


class LlavaSettings(CheckpointSettings):
    """LLaVA in this process."""

    MODEL_TYPES: ClassVar[Sequence[str]] = ("llava",)
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = (TOKENIZER, PROCESSOR)

    engine: Literal["llava"] = "llava"
    batch_size: int = Field(16, ge=1)
    """Images captioned at once; does not change a caption."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, precision, prompt and code version."""
        return {
            **self.contents("transformers-llava", VERSION, lambda: self.load().fetch()),
            "images_scaled_by": images_scaled_by(),
            **prompt_fingerprint(),
        }

    @property
    def picture_side(self) -> int | None:
        """The processor's size."""
        return processor_side(self.model, self.revision)

    def check(self) -> None:
        """Compare names and shapes of the weights with the model's; none is read.

        Raises:
            UnusableCheckpoint: Something is missing or does not fit.
        """
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        from models.loaded_weights import check_model

        super().check()
        check_model(LlavaForConditionalGeneration, AutoProcessor, self.model, self.revision)

    def load(self) -> LlavaCaptioner:
        """The captioner; its checkpoint is read when the first image comes."""
        return LlavaCaptioner(self)


class LlavaCaptioner(LoadedCheckpoint[LlavaSettings]):
    """Captions images with a LLaVA checkpoint; fulfils `models.protocols.Captioner`."""

    MODEL = "LlavaForConditionalGeneration"

    def _set_up(self, processor: Any) -> Any:
        """Refuse a processor that lacks what places pictures in a chat."""
        needed = ("patch_size", "vision_feature_select_strategy", "chat_template")
        if missing := [name for name in needed if getattr(processor, name, None) is None]:
            raise ValueError(
                f"the processor of {self._settings.model!r} lacks {', '.join(missing)}; take a "
                "newer revision of the checkpoint, or add it to processor_config.json (a chat "
                "template to chat_template.jinja)"
            )
        return processor

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        """Caption every (key, image) exactly once, in the order given; see `in_process`.

        Raises:
            ValueError: Before the first image, when the prompt or the checkpoint's processor
                cannot be used, or prompt and caption together are longer than the model reads.
        """
        from models.captioners.in_process import caption_in_batches

        prefix = self._prefix(question(sampling))
        self._check_length(prefix.shape[1], sampling.max_new_tokens)
        caption_batch = partial(self._caption_batch, sampling=sampling, prefix=prefix)
        yield from caption_in_batches(images, self._settings.batch_size, caption_batch)

    def _caption_batch(
        self, batch: Sequence[tuple[str, Image.Image]], sampling: CaptionSampling, prefix: Tensor
    ) -> list[list[str]]:
        """N stripped captions for each image of the batch."""
        import torch

        from models.captioners.in_process import as_list, draw_captions, grouped, images_in_place

        with torch.inference_mode():
            features = self._features([image for _, image in batch])
            token_rows = draw_captions(
                self._model,
                images_in_place(self._model, prefix, features),
                [key for key, _ in batch],
                sampling,
                end_tokens=as_list(self._model.generation_config.eos_token_id),
            )
        texts = self._processor.tokenizer.batch_decode(token_rows, skip_special_tokens=True)
        return grouped(texts, sampling.n)

    def _features(self, images: Sequence[Image.Image]) -> Tensor:
        """Projected patch tokens (B, P, H): what stands in the place of the image."""
        import torch

        for image in images:
            check_proportions(image)
        pixels = self._processor.image_processor(images=list(images), return_tensors="pt")
        with torch.inference_mode():
            found = self._model.get_image_features(
                pixels["pixel_values"].to(self._device, self._dtype), return_dict=True
            )
        return torch.stack(list(found.pooler_output))

    def _prefix(self, prompt: str) -> Tensor:
        """Token ids (1, L) of the chat before the answer, one placeholder per patch in it.

        Raises:
            ValueError: When the prompt holds a placeholder of its own, or the processor makes
                another number of them than the model has patches.
        """
        from PIL import Image

        processor, blank = self._processor, Image.new("RGB", (8, 8))
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        chat = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        if (held := chat.count(processor.image_token)) != 1:
            raise ValueError(
                f"the chat holds {held} times {processor.image_token}, not once, for the prompt "
                f"{prompt!r}; a prompt must not name it, and the chat template must place it"
            )
        start = processor.tokenizer.bos_token
        ids = processor(
            images=blank,
            text=chat,
            add_special_tokens=not (start and chat.startswith(start)),
            return_tensors="pt",
        )["input_ids"]
        found = int((ids == self._model.config.image_token_id).sum())
        patches = self._features([blank]).shape[1]
        if found != patches:
            raise ValueError(
                f"the processor of {self._settings.model!r} makes {found} placeholders of an "
                f"image, but the model has {patches} patch tokens; set patch_size, "
                "num_additional_image_tokens and vision_feature_select_strategy in its "
                "processor_config.json to those of the model's vision tower"
            )
        return ids.to(self._device)

    def _check_length(self, prompt: int, answer: int) -> None:
        """Refuse what would run past the positions that the language model knows."""
        most = self._model.config.text_config.max_position_embeddings
        if prompt + answer > most:
            raise ValueError(
                f"prompt and image take {prompt} tokens and a caption up to {answer}, but "
                f"{self._settings.model!r} reads {most}; shorten the prompt or lower max_new_tokens"
            )
