"""CoVR's network: early fusion under HN-NCE, new on a backbone or from a released file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from models.blip.early_fusion import EarlyFusionNetwork
from models.blip.hard_negatives import hn_nce
from models.blip.word_pieces import WordPieces
from models.published_state import read_state

if TYPE_CHECKING:
    from models.composed.covr import CovrSettings
    from models.training.batches import Batch


class CovrNetwork(EarlyFusionNetwork):
    """Early fusion; hard negatives weigh more in its loss."""

    settings: CovrSettings

    def loss(self, batch: Batch) -> torch.Tensor:
        """HN-NCE of queries and targets, in both directions."""
        settings = self.settings
        return hn_nce(
            self.query(batch["references"], batch),
            self.target(batch["targets"]),
            self.scale,
            batch["target_ids"] if settings.mask_repeats else None,
            alpha=settings.alpha,
            beta=settings.beta,
            form=settings.hn_nce,
        )


def published_covr(path: Path, settings: CovrSettings) -> CovrNetwork:
    """The network of a released file, `webvid-covr.ckpt` and the like.

    Args:
        path: A dict whose `model` is a state under BLIP's names, with `module.` in front or not.
            BLIP's own `model_large_retrieval_coco.pth`, which CoVR starts from, has that form too.
        settings: Of the loss.

    Raises:
        UnusableCheckpoint: A tensor or the vocabulary is missing, unknown or of another shape.
    """
    state = read_state(path, "model", "module.")
    return CovrNetwork.of_state(state, WordPieces.beside(path), path, settings)
