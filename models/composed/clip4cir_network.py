"""CLIP4CIR: fine-tuned CLIP vectors, added (stage one) or combined by an MLP (stage two).

    stage 1    q = n(v + e)                                            target n(v)
    stage 2    q = n(MLP(v, e) + lam e + (1 - lam) v),  towers frozen   target n(v)

v, e: vectors of reference image and text as the towers give them. Shape legend: B batch, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from models.composed.clip4cir_settings import CombinerSettings, SumSettings, published_files
from models.composed.clip_network import ClipNetwork, bare_towers, load_towers
from models.composed.clip_towers import ClipTowers, check_towers
from models.composed.clip_weights import published_towers
from models.composed.network import Texts
from models.encoders.spec import EncoderSpec
from models.instructcir import settings as instructcir
from models.instructcir.combiner import MlpCombiner
from models.instructcir.parts import NetworkParts
from models.published_state import State, fill, log_taken, read_state

PUBLISHED_NAMES: Final[Mapping[str, str]] = {
    "image_projection_layer": "from_image.0",
    "text_projection_layer": "from_text.0",
    "combiner_layer": "joint.0.0",
    "output_layer": "joint.1",
    "dynamic_scalar.0": "gate.0.0",
    "dynamic_scalar.3": "gate.1",
}
"""Layers of the published combiner -> those of `MlpCombiner`."""


class SumNetwork(ClipNetwork):
    """Stage one: both towers, trained on the sum of their vectors."""

    def __init__(self, towers: ClipTowers, parts: NetworkParts, settings: SumSettings) -> None:
        """Build on the towers of a backbone that `check_towers` accepts."""
        super().__init__(towers, parts)
        self.settings = settings
        self.scale = settings.scale
        self.train_towers(image=settings.trained == "both", text=True)

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """v + e, (B, d)."""
        return self.towers.image_vector(pixels) + self.towers.text_vector(texts["texts"])

    def architecture(self) -> dict[str, Any]:
        """With the settings."""
        return super().architecture() | {"sum": self.settings.model_dump()}


class CombinerNetwork(ClipNetwork):
    """Stage two: frozen towers and the combiner."""

    def __init__(self, towers: ClipTowers, parts: NetworkParts, settings: CombinerSettings) -> None:
        """Build on the towers of stage one."""
        super().__init__(towers, parts)
        self.settings = settings
        self.scale = settings.scale
        self.train_towers(image=False, text=False)
        self.combiner = new_combiner(self.dim, settings)

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Combined vectors (B, d), of length one."""
        text = self.towers.text_vector(texts["texts"])
        return self.combiner.combine(self.target(pixels), text)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Nothing to do: the frozen towers keep no activations."""

    def architecture(self) -> dict[str, Any]:
        """With the settings."""
        return super().architecture() | {"combiner": self.settings.model_dump()}


def build_sum(spec: EncoderSpec, settings: SumSettings, seed: int) -> SumNetwork:
    """Stage one on a backbone, fp32, on the CPU; nothing in it is random."""
    return SumNetwork(*load_towers(spec, check_towers), settings)


def build_combiner(start: SumNetwork, settings: CombinerSettings, seed: int) -> CombinerNetwork:
    """Stage two on a trained network of stage one, whose towers it takes over."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CombinerNetwork(start.towers, start.parts, settings)


def rebuild_sum(architecture: Mapping[str, Any], folder: Path) -> SumNetwork:
    """Stage one of a published folder, without weights."""
    return SumNetwork(*bare_towers(architecture, folder), SumSettings(**architecture["sum"]))


def rebuild_combiner(architecture: Mapping[str, Any], folder: Path) -> CombinerNetwork:
    """Stage two of a published folder, without weights."""
    settings = CombinerSettings(**architecture["combiner"])
    return CombinerNetwork(*bare_towers(architecture, folder), settings)


def published_sum(path: Path, settings: SumSettings) -> SumNetwork:
    """Stage one of a published file `tuned_clip*.pt`: a dict with the CLIP under `CLIP`.

    Raises:
        UnusableCheckpoint: Names are missing or unknown, or shapes differ.
    """
    state = read_state(path, "CLIP")
    network = SumNetwork(*published_towers(state, path), settings)
    log_taken(path, state, ())
    return network.eval()


def published_combiner(path: Path, settings: CombinerSettings) -> CombinerNetwork:
    """Stage two of two published files in one folder, `tuned_clip*.pt` and `combiner*.pt`.

    Args:
        path: The folder.
        settings: Widths are compared with the file's.

    Raises:
        UnusableCheckpoint: A file is missing, names are missing or unknown, or shapes differ.
    """
    clip, combiner = published_files(path)
    towers = read_state(clip, "CLIP")
    network = CombinerNetwork(*published_towers(towers, clip), settings)
    state = read_state(combiner, "Combiner")
    fill(network.combiner, from_published(state), combiner, published_name)
    log_taken(clip, towers, ())
    log_taken(combiner, state, ())
    return network.eval()


def from_published(state: State) -> State:
    """A combiner's tensors under the names of `MlpCombiner`; names unknown here stay."""
    return {_in_other_words(name, PUBLISHED_NAMES): each for name, each in state.items()}


def published_name(name: str) -> str:
    """The published name of a tensor of `MlpCombiner`."""
    return _in_other_words(name, {here: there for there, here in PUBLISHED_NAMES.items()})


def _in_other_words(name: str, layers: Mapping[str, str]) -> str:
    layer, dot, kind = name.rpartition(".")
    return f"{layers.get(layer, layer)}{dot}{kind}"


def new_combiner(dim: int, settings: CombinerSettings) -> MlpCombiner:
    """A combiner with random weights for vectors of width `dim`."""
    return MlpCombiner(
        dim,
        instructcir.CombinerSettings(
            kind="clip4cir_mlp",
            projection=settings.projection,
            hidden=settings.hidden,
            dropout=settings.dropout,
        ),
    )
