"""Early fusion: a query is the modification text, read over the reference image.

    q = text_proj( text tower([ENC] T, over all tokens of Ir)[0] ),    t = vision_proj(CLS of It)

The image tower and its projection are frozen (CoVR, section 4).
Shape legend: B batch, L text tokens, N image tokens, W their width, d joint space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import torch
from open_clip.transform import PreprocessCfg

from models.blip.backbone import bare_towers, towers_on_backbone
from models.blip.clean_texts import cleaned
from models.blip.original import load_towers
from models.blip.settings import EarlyFusionSettings
from models.blip.shape import TextShape, VisionShape
from models.blip.towers import BlipTowers, blip_without_weights
from models.blip.vocabulary_file import VOCABULARY_FILE
from models.blip.word_pieces import WordPieces
from models.composed.network import ComposedNetwork, Frozen, Texts
from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE, EncoderSpec
from models.training.trainable import ParameterGroup, parameter_groups

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)

LONGEST_TEXT: Final = 64
"""Tokens of a text, both ends included (CoVR at test)."""


class Words(Protocol):
    """A tokenizer with BLIP's extra tokens."""

    pad: int

    def __call__(
        self, texts: Sequence[str], *, over_image: bool, longest: int, marked: bool = False
    ) -> torch.Tensor:
        """Token ids (B, L), padded behind."""


@dataclass(frozen=True)
class FusionParts:
    """What a network consists of apart from weights and preprocessing.

    Attributes:
        architecture: JSON values; see `rebuilt`.
        words: The tokenizer.
        files: The files that the tokenizer is made of.
        new_text: Whether the text tower is new and not BLIP's.
    """

    architecture: Mapping[str, Any]
    words: Words
    files: Mapping[str, bytes]
    new_text: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> FusionParts:
        """Itself: nothing in it changes, so copies of a network share it."""
        return self


class EarlyFusionNetwork(ComposedNetwork):
    """Two towers of which the text tower reads over the other's tokens; see the module's text."""

    def __init__(self, towers: BlipTowers, parts: FusionParts, settings: Any) -> None:
        """Freeze the image side.

        Args:
            towers: The towers; taken over.
            parts: All else.
            settings: The system's own.
        """
        super().__init__()
        self.towers = towers
        self.parts = parts
        self.settings = settings
        self.scale = 1.0 / settings.temperature
        towers.requires_grad_(True)
        towers.vision_model.requires_grad_(False)
        towers.vision_proj.requires_grad_(False)

    @classmethod
    def on_backbone(cls, spec: EncoderSpec, settings: EarlyFusionSettings, seed: int) -> Self:
        """A new text tower on the frozen image tower of an open_clip backbone."""
        towers, backbone, words = towers_on_backbone(
            spec, settings.text_layers, settings.dropout, seed
        )
        architecture = {
            "backbone": dict(backbone.architecture),
            "text": towers.shape.record,
        }
        files = {} if backbone.bpe is None else {BPE_FILE: backbone.bpe}
        network = cls(towers, FusionParts(architecture, words, files, True), settings)
        network.preprocess = backbone.preprocess
        return network

    @classmethod
    def of_state(
        cls,
        state: Mapping[str, torch.Tensor],
        words: WordPieces,
        where: Path,
        settings: EarlyFusionSettings,
        **sizes: int,
    ) -> Self:
        """BLIP's own towers from weights under its own names; pictures are resized directly.

        Args:
            state: Of a whole file.
            words: The tokenizer.
            where: The file, for messages.
            settings: The system's own.
            sizes: Of `models.blip.original.load_towers`.

        Raises:
            UnusableCheckpoint: The weights are not those of a BLIP with this tokenizer.
        """
        towers, vision = load_towers(state, where, **sizes)
        words.require_rows(towers.shape.vocabulary, where)
        architecture = {"vision": asdict(vision), "text": towers.shape.record}
        files = {VOCABULARY_FILE: words.vocabulary}
        network = cls(towers, FusionParts(architecture, words, files, False), settings)
        network.preprocess = ImagePreprocess(
            "clip",
            1.25,
            PreprocessCfg(
                size=vision.image_size,
                mean=CLIP_MEAN,
                std=CLIP_STD,
                interpolation="bicubic",
                resize_mode="squash",
            ),
        )
        return network

    @classmethod
    def continuing(cls, start: EarlyFusionNetwork, settings: EarlyFusionSettings) -> Self:
        """Training on the towers of another network, which are taken over."""
        network = cls(start.towers, start.parts, settings)
        network.preprocess = start.preprocess
        return network

    @classmethod
    def rebuilt(
        cls, architecture: Mapping[str, Any], folder: Path, settings: EarlyFusionSettings
    ) -> Self:
        """A network whose weights are still to come, from its `architecture` and its files."""
        text = TextShape(**architecture["text"])
        words: Words
        if "backbone" in architecture:
            file = folder / BPE_FILE
            bpe = file.read_bytes() if file.is_file() else None
            towers, words = bare_towers(architecture["backbone"], text, bpe)
            parts = FusionParts(architecture, words, {} if bpe is None else {BPE_FILE: bpe}, True)
        else:
            vision = VisionShape(**architecture["vision"])
            towers = blip_without_weights(vision, text)
            words = WordPieces((folder / VOCABULARY_FILE).read_bytes(), folder / VOCABULARY_FILE)
            parts = FusionParts(architecture, words, {VOCABULARY_FILE: words.vocabulary}, False)
        return cls(towers, parts, settings)

    @property
    def dim(self) -> int:
        """d."""
        return self.towers.shape.dim

    def architecture(self) -> dict[str, Any]:
        """See `rebuilt`."""
        return dict(self.parts.architecture)

    def files(self) -> Mapping[str, bytes]:
        """The tokenizer's."""
        return self.parts.files

    def frozen(self) -> Frozen:
        """The tokens of the image tower."""
        return Frozen(images=self.towers.image_tokens)

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: ids (B, L), cleaned and cut as BLIP's data code does."""
        return {"texts": self.ids(texts)}

    def ids(self, texts: Sequence[str], *, marked: bool = False) -> torch.Tensor:
        """Ids (B, L) of cleaned texts that are read over an image; `marked` as the tokenizers'."""
        longest = min(LONGEST_TEXT, self.towers.shape.positions)
        return self.parts.words(
            [cleaned(text) for text in texts], over_image=True, longest=longest, marked=marked
        )

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Vectors (B, d) of texts over images."""
        return self.fused(self.towers.image_tokens(pixels), texts["texts"])

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """Projected class tokens (B, d)."""
        return self.towers.image_vector(self.towers.image_tokens(pixels))

    def fused(self, tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Vectors (B, d) of texts over image tokens (B, N, W)."""
        return self.towers.text_vector(ids, ids != self.parts.words.pad, tokens)

    def train(self, mode: bool = True) -> Self:
        """The frozen image tower stays in evaluation mode."""
        super().train(mode)
        self.towers.vision_model.eval()
        return self

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the layers' inputs of the text tower for the backward pass."""
        self.towers.set_gradient_checkpointing(enabled)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The text side: new on a backbone, pre-trained where it is BLIP's."""
        return parameter_groups(self, lambda name: self.parts.new_text)
