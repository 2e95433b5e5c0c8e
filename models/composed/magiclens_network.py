"""MagicLens on a CLIP (Zhang et al., ICML 2024): gallery pictures are queries without a text.

    q = f(v(reference), e(text)),     g = f(v(image), e(""))

Training: each query chooses its target among the targets of the batch and, as hard negatives, the
batch's reference images without a text. Shape legend: B batch, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.composed.clip_network import ClipNetwork, bare_towers, load_towers
from models.composed.clip_towers import ClipTowers, check_towers
from models.composed.magiclens_head import MagicLensHead
from models.composed.magiclens_settings import MagicLensSettings
from models.composed.network import Texts
from models.encoders.spec import EncoderSpec
from models.instructcir.parts import NetworkParts
from models.training.batches import Batch
from models.training.contrastive import nce


class MagicLensNetwork(ClipNetwork):
    """Both towers and the head."""

    def __init__(
        self, towers: ClipTowers, parts: NetworkParts, settings: MagicLensSettings
    ) -> None:
        """Build on the towers of a backbone that `check_towers` accepts.

        Raises:
            ValueError: The heads do not divide the backbone's width.
        """
        super().__init__(towers, parts)
        self.settings = settings
        self.scale = settings.scale
        self.head = MagicLensHead(self.dim, settings)
        trained = settings.trained == "both"
        self.train_towers(image=trained, text=trained)

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Vectors (B, d) of reference images under texts."""
        text = self.towers.text_vector(texts["texts"])
        return self.head(self.towers.image_vector(pixels), text)

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """Vectors (B, d) of pictures under the empty text."""
        image = self.towers.image_vector(pixels)
        text = self.towers.text_vector(self.text_ids([""]).to(image.device))
        return self.head(image, text.expand(len(image), -1))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Each query chooses among the targets and, if the settings say so, the references."""
        references = self.towers.image_vector(batch["references"])  # read twice, made once
        queries = self.query(references, batch)
        targets, ids = self.target(batch["targets"]), batch["target_ids"]
        if not self.settings.query_negatives:
            return nce(queries, targets, self.scale, ids)
        others = (self.target(references), batch["reference_ids"])
        return nce(queries, targets, self.scale, ids, others=others)

    def architecture(self) -> dict[str, Any]:
        """With the head's settings."""
        return super().architecture() | {"magiclens": self.settings.model_dump()}


def build(spec: EncoderSpec, settings: MagicLensSettings, seed: int) -> MagicLensNetwork:
    """A new network on a backbone, fp32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        towers, parts = load_towers(spec, check_towers)
        torch.manual_seed(seed)
        return MagicLensNetwork(towers, parts, settings)


def rebuild(architecture: Mapping[str, Any], folder: Path) -> MagicLensNetwork:
    """A network of a published folder, without weights."""
    settings = MagicLensSettings(**architecture["magiclens"])
    return MagicLensNetwork(*bare_towers(architecture, folder), settings)
