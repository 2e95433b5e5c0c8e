"""TransAgg on a CLIP (Liu et al., 2023): all tokens of image and text meet in a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.composed.clip_network import ClipNetwork, bare_towers, load_towers
from models.composed.clip_towers import ClipTowers, check_tokens
from models.composed.clip_weights import published_towers, split
from models.composed.network import Frozen, Texts
from models.composed.transagg_blip import BlipTransAgg, published_on_blip, rebuild_on_blip
from models.composed.transagg_head import TransAggHead
from models.composed.transagg_settings import TransAggSettings
from models.encoders.spec import EncoderSpec
from models.instructcir.parts import NetworkParts
from models.instructcir.text_sequence import TextIds
from models.published_state import fill, log_taken, read_state

PAD_ID = 0
"""Of padding; the published code takes any token of this id for padding."""


class TransAggNetwork(ClipNetwork):
    """Query: the head on all tokens of both towers. Target: the image tower's vector."""

    def __init__(self, towers: ClipTowers, parts: NetworkParts, settings: TransAggSettings) -> None:
        """Build on the towers of a backbone that `check_tokens` accepts.

        Raises:
            ValueError: The heads do not divide the backbone's width.
        """
        super().__init__(towers, parts)
        self.settings = settings
        self.scale = settings.scale
        self.head = TransAggHead(self.dim, settings)
        self.train_towers(image=settings.trained == "both", text=settings.trained != "neither")

    @property
    def text_ids(self) -> TextIds:
        """Cropped to the longest text where nobody attends to padding, else the whole context."""
        return TextIds(self.parts.tokens, whole_context=self.settings.mask != "masked")

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Vectors (B, d) of reference images (B, 3, H, W) under texts."""
        ids = texts["texts"]
        text = self.towers.text_tokens(ids)
        return self.head(text, ids == PAD_ID, self.towers.image_tokens(pixels))

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tower's vectors (B, d); no gradient reaches it here."""
        with torch.no_grad():
            return self.towers.image_vector(pixels)

    def frozen(self) -> Frozen:
        """The tokens of the image tower, unless it is trained."""
        frozen = super().frozen().images is not None
        return Frozen(images=self.towers.image_tokens if frozen else None)

    def architecture(self) -> dict[str, Any]:
        """With the head's settings."""
        return super().architecture() | {"transagg": self.settings.model_dump()}


def build(spec: EncoderSpec, settings: TransAggSettings, seed: int) -> TransAggNetwork:
    """A new network on a backbone, fp32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        towers, parts = load_towers(spec, check_tokens)
        torch.manual_seed(seed)
        return TransAggNetwork(towers, parts, settings)


def rebuild(architecture: Mapping[str, Any], folder: Path) -> TransAggNetwork | BlipTransAgg:
    """A network of a published folder, without weights."""
    if "clip" not in architecture:
        return rebuild_on_blip(architecture, folder)
    settings = TransAggSettings(**architecture["transagg"])
    return TransAggNetwork(*bare_towers(architecture, folder), settings)


def published(path: Path, settings: TransAggSettings) -> TransAggNetwork | BlipTransAgg:
    """The network of a published checkpoint: a bare state dict of a CLIP or BLIP variant.

    Args:
        path: The file; the towers lie under `pretrained_model.`, the head under its own names.
        settings: Mask mode; layers and widths are compared with the file's.

    Raises:
        UnusableCheckpoint: Names are missing or unknown, or shapes differ.
    """
    state = read_state(path)
    towers, head = split(state, "pretrained_model.")
    if any(name.startswith("visual_encoder.") for name in towers):
        return published_on_blip(towers, head, path, settings)
    network = TransAggNetwork(*published_towers(towers, path), settings)
    fill(network.head, head, path)
    log_taken(path, state, ())
    return network.eval()
