"""TransAgg on BLIP's own towers: as on CLIP, with BERT's word pieces and BLIP's projections.

A text is read alone ([CLS] first, at most 35 tokens) and read out at its first token; every state
of both towers is projected. Shape legend: B batch, L text tokens, N image tokens, d joint space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

import torch
from open_clip.transform import PreprocessCfg
from torch.nn import functional

from models.blip.early_fusion import EarlyFusionNetwork
from models.blip.original import load_towers
from models.blip.shape import HEAD_WIDTH, TextShape, VisionShape
from models.blip.towers import BlipTowers, blip_without_weights
from models.blip.word_pieces import VOCABULARY_FILE, WordPieces
from models.composed.clip_towers import TextTokens
from models.composed.network import ComposedNetwork, Frozen, Texts
from models.composed.transagg_head import TransAggHead
from models.composed.transagg_settings import TransAggSettings
from models.encoders.preprocess import ImagePreprocess
from models.published_state import State, fill
from models.training.trainable import ParameterGroup, parameter_groups

LONGEST_TEXT: Final = 35
"""Tokens of a text, both ends included."""


class BlipTransAgg(ComposedNetwork):
    """Query: the head on all tokens of both towers. Target: the image tower's vector."""

    def __init__(
        self, towers: BlipTowers, vision: VisionShape, words: WordPieces, settings: TransAggSettings
    ) -> None:
        """Build on towers, which are taken over.

        Raises:
            ValueError: The heads do not divide the towers' width.
        """
        super().__init__()
        self.towers = towers
        self.words = words
        self.settings = settings
        self.scale = settings.scale
        self.head = TransAggHead(towers.shape.dim, settings)
        self.preprocess = ImagePreprocess(
            "targetpad", 1.25, PreprocessCfg(size=(vision.image_size, vision.image_size))
        )
        self._vision = vision
        self._train_towers()

    def _train_towers(self) -> None:
        """Freeze what is not trained, and what no text that is read alone passes through."""
        towers, trained = self.towers, self.settings.trained
        for name, parameter in towers.named_parameters():
            image = name.startswith(("vision_model.", "vision_proj."))
            wanted = trained == "both" if image else trained != "neither"
            parameter.requires_grad_(wanted and ".crossattention." not in name)

    @property
    def dim(self) -> int:
        """d."""
        return self.towers.shape.dim

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: ids (B, L), padded to 35 where padding is attended to."""
        longest = min(LONGEST_TEXT, self.towers.shape.positions)
        ids = self.words(texts, over_image=False, longest=longest)
        if self.settings.mask != "masked":
            ids = functional.pad(ids, (0, longest - ids.shape[1]), value=self.words.pad)
        return {"texts": ids}

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Vectors (B, d) of reference images (B, 3, H, W) under texts."""
        ids, towers = texts["texts"], self.towers
        padding = ids == self.words.pad
        tokens = towers.text_proj(towers.text_states(ids, ~padding))
        first = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        image = towers.vision_proj(towers.image_tokens(pixels))
        return self.head(TextTokens(tokens, first, tokens[:, 0]), padding, image)

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tower's vectors (B, d); no gradient reaches it here."""
        with torch.no_grad():
            return self.towers.image_vector(self.towers.image_tokens(pixels))

    def frozen(self) -> Frozen:
        """The tokens of the image tower, unless it is trained."""
        trained = self.settings.trained == "both"
        return Frozen(images=None if trained else self.towers.image_tokens)

    def architecture(self) -> dict[str, Any]:
        """Sizes of the towers, and the head's settings."""
        return {
            "vision": asdict(self._vision),
            "text": self.towers.shape.record,
            "transagg": self.settings.model_dump(),
        }

    def files(self) -> Mapping[str, bytes]:
        """The tokenizer's vocabulary."""
        return {VOCABULARY_FILE: self.words.vocabulary}

    def train(self, mode: bool = True) -> Self:
        """The image tower stays in evaluation mode; the text tower's dropout is on in training."""
        super().train(mode)
        self.towers.vision_model.eval()
        return self

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the layers' inputs of the text tower for the backward pass."""
        self.towers.set_gradient_checkpointing(enabled)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The towers are pre-trained, the head is new."""
        return parameter_groups(self, lambda name: name.startswith("head."))


def on_early_fusion(
    start: EarlyFusionNetwork, settings: TransAggSettings, seed: int
) -> BlipTransAgg:
    """A new head on BLIP's towers in another network, such as BLIP's own imported file.

    Raises:
        ValueError: That network is not made of BLIP's own towers.
    """
    words, vision = start.parts.words, start.architecture().get("vision")
    if not isinstance(words, WordPieces) or vision is None:
        raise ValueError(
            "TransAgg starts from a backbone, or from BLIP's own towers; this network has a text "
            "tower that was made here"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BlipTransAgg(start.towers, VisionShape(**vision), words, settings)


def rebuild_on_blip(architecture: Mapping[str, Any], folder: Path) -> BlipTransAgg:
    """A network of a published folder, without weights."""
    vision, text = VisionShape(**architecture["vision"]), TextShape(**architecture["text"])
    towers = blip_without_weights(vision, text)
    file = folder / VOCABULARY_FILE
    words = WordPieces(file.read_bytes(), file)
    return BlipTransAgg(towers, vision, words, TransAggSettings(**architecture["transagg"]))


def published_on_blip(
    towers: State,
    head: State,
    path: Path,
    settings: TransAggSettings,
    head_width: int = HEAD_WIDTH,
) -> BlipTransAgg:
    """The network of a published file's BLIP variant; `vocab.txt` lies next to it.

    Args:
        towers: What lies under `pretrained_model.`, under BLIP's own names.
        head: All else.
        path: The file.
        settings: Mask mode; layers and widths are compared with the file's.
        head_width: Width of a tower's head, which no shape tells; 64 in every published file.

    Raises:
        UnusableCheckpoint: Names are missing or unknown, shapes differ, or there is no vocabulary.
    """
    words = WordPieces.beside(path)
    loaded, vision = load_towers(towers, path, head_width=head_width)
    words.require_rows(loaded.shape.vocabulary, path)
    network = BlipTransAgg(loaded, vision, words, settings)
    fill(network.head, head, path)
    return network.eval()
