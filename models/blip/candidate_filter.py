"""The filter of candidate re-ranking: early fusion under plain InfoNCE with a learned temperature.

Liu et al., TMLR 2024, stage one. The image tower is frozen; the text tower and both projections
are trained. Texts are read as they are, up to the text tower's last position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from models.blip.early_fusion import EarlyFusionNetwork, FusionParts
from models.blip.learned_scale import LearnedScaleNetwork
from models.blip.shape import HEAD_WIDTH
from models.blip.towers import BlipTowers
from models.blip.word_pieces import WordPieces
from models.checkpoints import UnusableCheckpoint
from models.encoders.preprocess import ImagePreprocess
from models.published_state import State, read_state
from models.training.contrastive import nce
from models.training.trainable import ParameterGroup, parameter_groups
from models.weight_formats import formats_of, require_plain

if TYPE_CHECKING:
    from models.blip.settings import EarlyFusionSettings
    from models.training.batches import Batch

STATE_NAME: Final = "BLIP_Retrieval"
"""Name of the weights in a published file."""


class FilterNetwork(LearnedScaleNetwork):
    """Early fusion whose temperature is learned, and whose image projection too."""

    settings: EarlyFusionSettings

    def __init__(self, towers: BlipTowers, parts: FusionParts, settings: Any) -> None:
        """Train the image projection too."""
        super().__init__(towers, parts, settings)
        towers.vision_proj.requires_grad_(True)

    @classmethod
    def continuing(cls, start: EarlyFusionNetwork, settings: EarlyFusionSettings) -> Self:
        """As of any early fusion, on padded pictures."""
        network = super().continuing(start, settings)
        network.preprocess = _padded(network.preprocess)
        return network

    @property
    def pad(self) -> int:
        """Id of padding in `tokenised`."""
        return self.parts.words.pad

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: ids (B, L)."""
        longest = self.towers.shape.positions
        return {"texts": self.parts.words(texts, over_image=True, longest=longest)}

    def states(self, tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Every state (B, L, T) of texts over image tokens (B, N, W): z_t of the re-ranker."""
        return self.towers.text_states(ids, ids != self.pad, tokens)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Each query chooses its target among those of the batch."""
        return nce(
            self.query(batch["references"], batch),
            self.target(batch["targets"]),
            self.log_scale.exp(),
            batch["target_ids"] if self.settings.mask_repeats else None,
        )

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The image projection is the backbone's, and so is all of a BLIP."""
        kept = ("towers.vision_proj.",)
        return parameter_groups(
            self, lambda name: self.parts.new_text and not name.startswith(kept)
        )


def published_filter(
    path: Path, settings: EarlyFusionSettings, head_width: int = HEAD_WIDTH
) -> FilterNetwork:
    """The network of a published stage-one file.

    Args:
        path: A dict whose `BLIP_Retrieval` is a state under BLIP's names, with `temp`.
        settings: Their temperature is replaced by the file's.
        head_width: Width of a head, which no shape tells; 64 in every published file.

    Raises:
        UnusableCheckpoint: A tensor or the vocabulary is missing, unknown or of another shape.
    """
    state = read_state(path, STATE_NAME)
    network = FilterNetwork.of_state(
        state, WordPieces.beside(path), path, settings, head_width=head_width
    )
    network.log_scale.data.fill_(-math.log(_temperature(state, path)))
    network.preprocess = _padded(network.preprocess)
    return network


def _temperature(state: State, path: Path) -> float:
    found = state.get("temp")
    if found is None:
        raise UnusableCheckpoint(f"{path} has no learned temperature `temp`; is it of stage one?")
    require_plain(str(path), formats_of({"temp": found}))
    value = float(found.detach()) if found.numel() == 1 else math.nan
    if not 0 < value < math.inf:
        raise UnusableCheckpoint(
            f"{path}: the temperature `temp` is {value} of shape {tuple(found.shape)}, and has to "
            "be one number above 0; take the published file again"
        )
    return value


def _padded(preprocess: ImagePreprocess) -> ImagePreprocess:
    """Pictures padded to a ratio of 1.25 (`TargetPad`), resized and cropped."""
    return ImagePreprocess("targetpad", 1.25, replace(preprocess.config, resize_mode="shortest"))
