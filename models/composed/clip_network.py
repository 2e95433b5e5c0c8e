"""A composed network on the towers of a CLIP: its tokenizer, pictures and description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.composed.clip_towers import ClipTowers
from models.composed.network import ComposedNetwork, Frozen, Texts
from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE, EncoderSpec
from models.instructcir.parts import (
    Check,
    NetworkParts,
    bare_backbone,
    load_backbone,
    make_tokens,
)
from models.instructcir.text_sequence import TextIds
from models.training.trainable import ParameterGroup, parameter_groups


class ClipNetwork(ComposedNetwork):
    """Towers, and whatever a system puts on top of them.

    Attributes:
        towers: Of the backbone.
        parts: Its tokenizer, preprocessing and identity.
    """

    def __init__(self, towers: ClipTowers, parts: NetworkParts) -> None:
        """Take over towers and what belongs to them."""
        super().__init__()
        self.towers = towers
        self.parts = parts
        self.preprocess = parts.preprocess
        self.base = parts.base

    def train_towers(self, *, image: bool, text: bool) -> None:
        """Choose the towers that are trained; fixed positions never are."""
        self.towers.image.requires_grad_(image)
        self.towers.text.requires_grad_(text)
        vision = self.parts.architecture.get("vision_cfg", {})
        if vision.get("pos_embed_type", "learnable") != "learnable":
            self.towers.image.positional_embedding.requires_grad_(False)

    def frozen(self) -> Frozen:
        """The vectors of a tower of which nothing is trained."""
        return Frozen(
            images=self.towers.image_vector if _is_frozen(self.towers.image) else None,
            texts=self._text_vectors if _is_frozen(self.towers.text) else None,
        )

    def _text_vectors(self, texts: Texts) -> dict[str, torch.Tensor]:
        return {name: self.towers.text_vector(ids) for name, ids in texts.items()}

    @property
    def dim(self) -> int:
        """d, the width of the joint space."""
        return self.towers.dim

    @property
    def text_ids(self) -> TextIds:
        """How texts become token ids: cropped to the longest of a batch."""
        return TextIds(self.parts.tokens)

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: token ids (B, L)."""
        return {"texts": self.text_ids(texts)}

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tower's vectors (B, d)."""
        return self.towers.image_vector(pixels)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the blocks' inputs for the backward pass, of both towers."""
        self.towers.text.checkpointing = enabled
        self.towers.image.set_grad_checkpointing(enabled)

    def architecture(self) -> dict[str, Any]:
        """The CLIP's configuration and preprocessing."""
        return {"clip": dict(self.parts.architecture), "preprocess": self.preprocess.record}

    def files(self) -> Mapping[str, bytes]:
        """The byte-pair file of a backbone that has its own."""
        return {} if self.parts.bpe is None else {BPE_FILE: self.parts.bpe}

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The towers are pre-trained, all else is new."""
        return parameter_groups(
            self,
            lambda name: not name.startswith("towers."),
            undecayed=frozenset({"positional", "positional_embedding"}),
        )


def _is_frozen(tower: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in tower.parameters())


def load_towers(spec: EncoderSpec, check: Check) -> tuple[ClipTowers, NetworkParts]:
    """The towers of a backbone with its weights, in fp32 on the CPU; see `load_backbone`."""
    backbone, parts = load_backbone(spec, check)
    return ClipTowers(backbone, parts.tokens.end), parts


def bare_towers(architecture: Mapping[str, Any], folder: Path) -> tuple[ClipTowers, NetworkParts]:
    """Towers without weights, on torch's default device, from `ClipNetwork.architecture`.

    Args:
        architecture: As `ClipNetwork.architecture` gave it.
        folder: Of the network's further files.

    Raises:
        KeyError, TypeError, ValueError, OSError: The description or a file is damaged.
    """
    bpe = folder / BPE_FILE
    own = bpe.read_bytes() if bpe.is_file() else None
    preprocess = ImagePreprocess.of(architecture["preprocess"])
    clip = architecture["clip"]
    tokens = make_tokens(clip, own)
    parts = NetworkParts(clip, tokens, preprocess, {}, own)
    return ClipTowers(bare_backbone(clip), tokens.end), parts
