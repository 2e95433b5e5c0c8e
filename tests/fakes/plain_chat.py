"""The library's own way with a chat, one question a row: what engines here are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def chat_inputs(processor: Any, content: Sequence[dict[str, Any]]) -> Any:
    """What a model reads when a person says something, by the processor's chat template."""
    return processor.apply_chat_template(
        [{"role": "user", "content": list(content)}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


class PlainChat:
    """A vision-language model as the library loads it."""

    def __init__(self, folder: Path) -> None:
        """Load it in float32."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor: Any = AutoProcessor.from_pretrained(folder)
        kind = AutoModelForImageTextToText
        self._model = kind.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, words: Sequence[str]) -> list[int]:
        """Tokens of words that are one token each."""
        return list(self.processor.tokenizer.convert_tokens_to_ids(list(words)))

    def logits(self, content: Sequence[dict[str, Any]]) -> Any:
        """Logits of the answer's first token (V,), in float64."""
        import torch

        with torch.inference_mode():
            return self._model(**chat_inputs(self.processor, content)).logits[0, -1].double()
