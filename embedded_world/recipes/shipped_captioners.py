"""The shipped captioners as anybody loads them: by the library alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2Processor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from embedded_world.drawing import draw
from embedded_world.recipes.captioner_tokenizer import LONGEST
from embedded_world.scenes import Scene
from models.prompts.library import load_prompt

BATCH = 50


class ShippedCaptioner(ABC):
    """A captioner's folder, loaded in float32."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model = model.eval()
        self.processor = processor

    @torch.no_grad()
    def captions(self, scenes: Sequence[Scene], **sampling: object) -> list[str]:
        """Captions of drawings of the scenes, greedy unless `sampling` says otherwise."""
        options = {"max_new_tokens": LONGEST, "do_sample": False, **sampling}
        texts: list[str] = []
        for start in range(0, len(scenes), BATCH):
            part = scenes[start : start + BATCH]
            pictures = [draw(scene, start + i) for i, scene in enumerate(part)]
            tokens = self._tokens(pictures, options)
            texts += self.processor.batch_decode(tokens, skip_special_tokens=True)
        return texts

    @abstractmethod
    def _tokens(self, pictures: list[Image.Image], options: dict[str, object]) -> Tensor:
        """Tokens of one caption of each picture; special ones are dropped later."""


class ShippedBlip2(ShippedCaptioner):
    """BLIP-2, which is asked nothing."""

    def __init__(self, folder: Path) -> None:
        model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        super().__init__(model, Blip2Processor.from_pretrained(folder))

    def _tokens(self, pictures: list[Image.Image], options: dict[str, object]) -> Tensor:
        inputs = self.processor(images=pictures, return_tensors="pt")
        return self.model.generate(**inputs, **options)


class ShippedLlava(ShippedCaptioner):
    """LLaVA, which is asked for a description in a chat."""

    def __init__(self, folder: Path) -> None:
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        super().__init__(model, LlavaProcessor.from_pretrained(folder))
        question = load_prompt("llava_caption", ()).template
        content = [{"type": "image"}, {"type": "text", "text": question}]
        self.chat = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )

    def _tokens(self, pictures: list[Image.Image], options: dict[str, object]) -> Tensor:
        inputs = self.processor(
            images=pictures, text=[self.chat] * len(pictures), return_tensors="pt"
        )
        tokens = self.model.generate(**inputs, **options)
        return tokens[:, inputs["input_ids"].shape[1] :]
