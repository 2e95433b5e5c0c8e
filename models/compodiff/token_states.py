"""Texts as CompoDiff's denoiser reads them: one vector for each token.

A denoiser trained here reads the backbone's own text tower up to each text's end. The released one
reads transformers' CLIP bigG, padded to 77 tokens, and sees the padding too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from models.compodiff.sampling import TextStates
from models.encoders.text_tower import TextTower, pad_rows
from models.loaded_weights import load_model, load_processor


class TextSource(Protocol):
    """A frozen text encoder that gives a vector for each token."""

    @property
    def width(self) -> int:
        """W, width of a token's vector."""

    def states(self, texts: Sequence[str]) -> TextStates:
        """Token states of B texts."""


class BackboneStates:
    """The last layer norm's output of an open_clip text tower, start to end-of-text."""

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self.width = tower.width

    def ids(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded token ids (B, L) and lengths (B,); a text longer than the context is cut."""
        ids, lengths, _ = pad_rows([self._tower.tokens.row(text) for text in texts])
        return ids, lengths

    def states(self, texts: Sequence[str]) -> TextStates:
        """Token states of B texts."""
        device = self._tower.positional.device
        ids, lengths = self.ids(texts)
        return self.of_ids(ids.to(device), lengths.to(device))

    @torch.no_grad()
    def of_ids(self, ids: torch.Tensor, lengths: torch.Tensor) -> TextStates:
        """Token states of padded ids (B, L) with (B,) tokens each, where the ids lie."""
        states, seen = self._tower.to(ids.device).states(ids[:, : int(lengths.max())], lengths)
        return TextStates(states.float(), seen)


class TransformersStates:
    """The last hidden states of a transformers CLIP text model, padded to its whole context."""

    def __init__(self, model: str, device: torch.device) -> None:
        """Load it.

        Args:
            model: Folder or hub id.
            device: Where it computes.

        Raises:
            UnusableCheckpoint: It cannot be loaded whole.
        """
        from transformers import CLIPTextModel, CLIPTokenizer

        self._device = device
        self._model: Any = load_model(CLIPTextModel, model).to(device)
        self._tokenizer = load_processor(CLIPTokenizer, model, "", self._model)
        self.width = int(self._model.config.hidden_size)

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> TextStates:
        """Token states of B texts, all positions, as the released denoiser reads them."""
        given = self._tokenizer(
            list(texts),
            return_tensors="pt",
            padding="max_length",
            max_length=self._model.config.max_position_embeddings,
            truncation=True,
        ).to(self._device)
        found = self._model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
        return TextStates(found.last_hidden_state.float())
