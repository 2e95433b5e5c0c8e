"""Any open_clip backbone as an `ImageTextEncoder`: features in float32, never normalised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from models.encoders.backbone_files import encoder_fingerprint
from models.encoders.feeding import encoded
from models.encoders.preprocess import ImagePreprocess
from models.encoders.text_tokens import TokenRow
from models.encoders.text_tower import SpliceUnsupported, TextTower, why_unsupported
from models.metering import Spent, current_meter, device_time
from models.spelling import agreed

if TYPE_CHECKING:
    from PIL import Image

    from models.protocols import Fingerprint, FloatArray, Json, SplicedText

logger = logging.getLogger(__name__)

TEXTS_PER_BATCH: Final = 256
"""Texts in one forward pass of a tower that cannot be cropped."""


class OpenClipEncoder:
    """An open_clip model that encodes pictures, texts and texts with a pseudo token."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], torch.Tensor],
        preprocess: ImagePreprocess,
        *,
        identity: Mapping[str, Json],
        device: torch.device,
        image_batch: int = 64,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        """Wrap a loaded model; `models.encoders.loading.load_encoder` is the usual door.

        Args:
            model: An open_clip model in evaluation mode, on `device`.
            tokenizer: The tokenizer that belongs to it.
            preprocess: How pictures are prepared.
            identity: Name, tag, precision and weight hashes for the fingerprint.
            device: Where the model lies.
            image_batch: Images in one forward pass.
            channels_last: Whether the image tower keeps channels last; its weights are moved.
            compiled: Whether pictures go through `torch.compile`; the model itself does not.
        """
        self.model = model
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self._identity = dict(identity)
        self._device = device
        self._image_batch = image_batch
        self._pixel_dtype = _pixel_dtype(model)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            model.visual.to(memory_format=torch.channels_last)
        self._image_tower = torch.compile(model.encode_image) if compiled else model.encode_image
        self._no_splice = why_unsupported(model, tokenizer)
        self.text: TextTower | None = None
        if not self._no_splice:
            self.text = TextTower(model, tokenizer).to(device).eval()

    @cached_property
    def dim(self) -> int:
        """Width d of the joint space."""
        return int(self.encode_texts([""]).shape[1])

    @property
    def token_width(self) -> int:
        """Width dt of the text tower's token embeddings."""
        return self.tower.width

    @property
    def tower(self) -> TextTower:
        """The text tower that takes pseudo tokens; an error where there is none."""
        if self.text is None:
            raise SpliceUnsupported(
                f"{self._identity.get('model')} takes no pseudo tokens: {self._no_splice}. "
                "Methods without pseudo tokens run; for the others choose a CLIP backbone "
                "such as ViT-L-14 with tag openai."
            )
        return self.text

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, weights, tokenizer, preprocessing, precision and library version."""
        return encoder_fingerprint(self._identity, self.preprocess.fingerprint)

    def encode_images(self, images: Sequence[Image.Image], threads: int = 0) -> FloatArray:
        """Encode pictures; returns (B, d) float32, not normalised.

        A sequence that decodes on access works too: it is indexed once per image, in threads
        that run ahead of the model.

        Args:
            images: B pictures.
            threads: Pictures prepared at a time; 0: one a core.
        """
        if not len(images):
            return np.zeros((0, self.dim), dtype=np.float32)
        with device_time():
            return encoded(
                images,
                lambda pixels, start: self.image_features(pixels),
                preprocess=self.preprocess,
                batch=self._image_batch,
                device=self._device,
                threads=threads,
            )

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (b, 3, H, W) on the device, normalised -> (b, d) in the tower's precision."""
        pixels = pixels.to(self._pixel_dtype).contiguous(memory_format=self._layout)
        features: torch.Tensor = self._image_tower(pixels, normalize=False)
        return features

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Encode texts; returns (B, d) float32, not normalised, each distinct text once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, self.dim), dtype=np.float32)
        place = {text: row for row, text in enumerate(distinct)}
        with device_time():
            features = self._encode_distinct(distinct)
        return features[[place[text] for text in texts]]

    def encode_spliced(self, texts: Sequence[SplicedText], tokens: FloatArray) -> FloatArray:
        """Encode texts that carry one pseudo token each.

        Args:
            texts: B texts with a hole.
            tokens: (B, dt) float32, the pseudo token of each.

        Raises:
            SpliceUnsupported: The text tower has no place for pseudo tokens.
            ValueError: The two arguments do not fit each other.
        """
        tower = self.tower
        if tokens.shape != (len(texts), tower.width):
            raise ValueError(
                f"{len(texts)} {agreed(len(texts), 'text needs', 'texts need')} pseudo tokens of "
                f"shape ({len(texts)}, {tower.width}), not {tokens.shape}; the mapping network "
                "may belong to another backbone"
            )
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        rows = [tower.tokens.spliced_row(text) for text in texts]
        _count_overlong(rows, tower.tokens.context_length)
        with device_time():
            return tower.encode_rows(rows, np.ascontiguousarray(tokens, dtype=np.float32))

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids (B, context length) as the library pads them; for comparisons."""
        return self.tokenizer(list(texts)).to(self._device)

    def overlong(self, texts: Sequence[str | SplicedText]) -> list[bool]:
        """Which texts are cut at the context length; for the counts that reports carry."""
        rows = self.tower.tokens
        return [
            (rows.row(text) if isinstance(text, str) else rows.spliced_row(text)).truncated
            for text in texts
        ]

    def _encode_distinct(self, texts: Sequence[str]) -> FloatArray:
        if self.text is not None:
            rows = [self.text.tokens.row(text) for text in texts]
            _count_overlong(rows, self.text.tokens.context_length)
            return self.text.encode_rows(rows)
        features = []
        with torch.inference_mode():
            for start in range(0, len(texts), TEXTS_PER_BATCH):
                ids = self.tokenize(texts[start : start + TEXTS_PER_BATCH])
                features.append(self.model.encode_text(ids, normalize=False).float())
            return torch.cat(features).cpu().numpy()


def _pixel_dtype(model: nn.Module) -> torch.dtype:
    """Precision the vision tower reads pixels in: that of its first convolution."""
    for module in model.visual.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.dtype
    return next(model.visual.parameters()).dtype


def _count_overlong(rows: Sequence[TokenRow], context_length: int) -> None:
    if cut := sum(row.truncated for row in rows):
        current_meter().add(Spent(cut_texts=cut))
        texts, were = agreed(len(rows), "text"), agreed(cut, "was", "were")
        logger.warning(
            "%d of %d %s %s cut at %d tokens", cut, len(rows), texts, were, context_length
        )
