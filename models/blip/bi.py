"""BLIP4CIR+Bi as published: BLIP's towers, of which the text tower reads texts alone, and combiner.

A query's text is read at [CLS] without an image; image tower and its projection are those of
`model_base.pth` as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from open_clip.transform import PreprocessCfg

from models.blip.early_fusion import CLIP_MEAN, CLIP_STD
from models.blip.original import load_towers
from models.blip.shape import HEAD_WIDTH, TextShape, VisionShape
from models.blip.towers import BlipTowers, blip_without_weights
from models.blip.vocabulary_file import VOCABULARY_FILE
from models.blip.word_pieces import WordPieces
from models.checkpoints import UnusableCheckpoint
from models.composed.bi_network import BiNetwork
from models.composed.bi_settings import BiCombinerSettings, published_files
from models.composed.clip4cir_network import from_published, new_combiner, published_name
from models.encoders.preprocess import ImagePreprocess
from models.published_state import fill, log_taken, read_state, sizes_of

LONGEST_TEXT: Final = 77
"""Tokens of a text, both ends included."""


class BiOnBlip(BiNetwork):
    """Both directions on BLIP's towers, combined by CLIP4CIR's combiner."""

    def __init__(
        self,
        towers: BlipTowers,
        vision: VisionShape,
        words: WordPieces,
        settings: BiCombinerSettings,
    ) -> None:
        """Freeze the towers; the combiner is new."""
        super().__init__()
        self.towers = towers.requires_grad_(False)
        self.words = words
        self.settings = settings
        self.scale = settings.scale
        self.combiner = new_combiner(towers.shape.dim, settings)
        self.preprocess = ImagePreprocess(
            "targetpad",
            1.25,
            PreprocessCfg(
                size=vision.image_size, mean=CLIP_MEAN, std=CLIP_STD, interpolation="bicubic"
            ),
        )
        self._vision = vision

    @property
    def dim(self) -> int:
        """d."""
        return self.towers.shape.dim

    def image_vector(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `BiNetwork`."""
        return self.towers.image_vector(self.towers.image_tokens(pixels))

    def text_vector(self, ids: torch.Tensor) -> torch.Tensor:
        """See `BiNetwork`."""
        return self.towers.text_vector(ids, ids != self.words.pad)

    def ids(self, texts: Sequence[str]) -> torch.Tensor:
        """See `BiNetwork`; what is longer than 77 tokens is cut."""
        longest = min(LONGEST_TEXT, self.towers.shape.positions)
        return self.words(texts, over_image=False, longest=longest)

    def architecture(self) -> dict[str, Any]:
        """Sizes of the towers, and the settings."""
        return {
            "vision": asdict(self._vision),
            "text": self.towers.shape.record,
            "bi": self.settings.model_dump(),
        }

    def files(self) -> Mapping[str, bytes]:
        """The vocabulary."""
        return {VOCABULARY_FILE: self.words.vocabulary}


def rebuild_on_blip(architecture: Mapping[str, Any], folder: Path) -> BiOnBlip:
    """A network of a folder, without weights."""
    vision = VisionShape(**architecture["vision"])
    towers = blip_without_weights(vision, TextShape(**architecture["text"]))
    words = WordPieces((folder / VOCABULARY_FILE).read_bytes(), folder / VOCABULARY_FILE)
    return BiOnBlip(towers, vision, words, BiCombinerSettings(**architecture["bi"]))


def published_bi(
    folder: Path, settings: BiCombinerSettings, head_width: int = HEAD_WIDTH
) -> BiOnBlip:
    """The network of the published files in one folder.

    Args:
        folder: Holds `model_base*.pth` (a dict with `model`, of which the image side is read),
            `tuned_blip*.pt` (a dict with `BLIPTextEncoder`), `combiner*.pt` (a dict with
            `Combiner`) and `vocab.txt`. The combiner's widths are the file's.
        settings: Of queries and loss. Texts are cut at the letters "and", as the weights know them,
            where `splitting` is not set.
        head_width: Width of a head, which no shape tells; 64 in every published file.

    Raises:
        UnusableCheckpoint: A file or a tensor is missing, unknown or of another shape.
    """
    base, tuned, combiner = published_files(folder)
    whole = read_state(base, "model")
    image_side = {
        n: t for n, t in whole.items() if n.startswith(("visual_encoder.", "vision_proj."))
    }
    text_side = read_state(tuned, "BLIPTextEncoder")
    if others := sorted(n for n in text_side if not n.startswith(("text_encoder.", "text_proj."))):
        raise UnusableCheckpoint(f"{tuned} holds more than a text tower, first {others[0]}")
    towers, vision = load_towers(
        {**image_side, **text_side}, f"{base.name} with {tuned}", head_width=head_width
    )
    words = WordPieces.beside(tuned)
    words.require_rows(towers.shape.vocabulary, tuned)
    state = read_state(combiner, "Combiner")
    widths = _widths(state, combiner)
    known = {} if "splitting" in settings.model_fields_set else {"splitting": "letters"}
    network = BiOnBlip(towers, vision, words, settings.changed(**widths, **known))
    fill(network.combiner, from_published(state), combiner, published_name)
    log_taken(base, image_side, whole.keys() - image_side.keys())
    log_taken(combiner, state, ())
    return network


def _widths(state: Mapping[str, torch.Tensor], where: Path) -> dict[str, int]:
    """Widths of a combiner by its shapes."""
    hidden, double = sizes_of(state, "combiner_layer.weight", 2, where)
    return {"projection": max(1, double // 2), "hidden": hidden}
