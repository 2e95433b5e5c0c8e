"""Warm-up of a vision tower: the one that CLIP and BLIP-2 share, LLaVA's, or the small CLIP's.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.vision_tower --out DIR

writes DIR/tower.safetensors: the `visual` part of an open_clip CLIP. No text is involved. The
tower learns to name the content of a cell from the mean of its patch tokens, its own place from
each patch token (a captioner's queries find a place by the tokens alone), and the whole
picture from the pooled token. `--kind llava` trains another tower, because LLaVA's cannot be equal
to BLIP-2's; `--kind small` one of another width, for a second backbone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedded_world.drawing import SIDE
from embedded_world.recipes.commands import recipe_options, start, without_paths
from embedded_world.recipes.scene_tensors import (
    PATCH,
    PATCHES,
    SLOTS,
    PooledHead,
    cell_means,
    labels,
    pixels,
    slot_accuracy,
    slot_losses,
)
from embedded_world.recipes.training import AdamWLearner, Schedule, TrainingRun, streams
from embedded_world.scenes import NUM_CELLS, Scene, sample_scenes

WIDTH, EMBED = 128, 128
VISION = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "width": WIDTH,
    "layers": 4,
    "head_width": 32,
    "mlp_ratio": 2.0,
    # BLIP-2's tower has no layer norm before its blocks; without one here, both can be equal.
    "no_ln_pre": True,
}
TOWER_FILE = "tower.safetensors"


@dataclass(frozen=True)
class TowerKind:
    """A tower and where its patch tokens are taken from.

    Attributes:
        vision: open_clip's `vision_cfg`.
        embed: Dimension of the pooled token.
        tokens_of: Block whose output is read, counted from the end as LLaVA's
            `vision_feature_layer` is; None for the tower's own, normalised output tokens.
    """

    vision: Mapping[str, float]
    embed: int = EMBED
    tokens_of: int | None = None


KINDS = {
    "shared": TowerKind(VISION),
    # CLIPVisionModel has a layer norm before its blocks, and LLaVA-1.5 reads the last but one.
    "llava": TowerKind({**VISION, "layers": 5, "no_ln_pre": False}, tokens_of=-2),
    # Another backbone must have other features, so it differs in width and joint space too.
    "small": TowerKind({**VISION, "width": 96, "layers": 3}, embed=96),
}


def new_tower(kind: TowerKind = KINDS["shared"]) -> VisionTransformer:
    """An untrained tower that returns (pooled, patch tokens)."""
    text = CLIPTextCfg(context_length=8, vocab_size=8, width=32, heads=1, layers=1)
    tower = CLIP(kind.embed, CLIPVisionCfg(**kind.vision), text).visual
    tower.output_tokens = True
    return tower


def read_tower(
    tower: VisionTransformer, tokens_of: int | None, images: Tensor
) -> tuple[Tensor, Tensor]:
    """The pooled token (B, d) and the patch tokens (B, 36, width) of a kind of tower."""
    if tokens_of is None:
        return tower(images)
    block = len(tower.transformer.resblocks) + tokens_of
    out = tower.forward_intermediates(images, indices=[block], output_fmt="NLC")
    return out["image_features"], out["image_intermediates"][0]


def load_tower(path: Path) -> dict[str, Tensor]:
    """Weights of a warmed-up tower."""
    return load_file(path)


class WarmUp(nn.Module):
    """The tower and the heads that are thrown away afterwards."""

    def __init__(self, kind: TowerKind = KINDS["shared"]) -> None:
        super().__init__()
        width = int(kind.vision["width"])
        self.tower = new_tower(kind)
        self.tokens_of = kind.tokens_of
        self.cell_head = nn.Linear(width, sum(SLOTS.values()))
        self.place_head = nn.Linear(width, PATCHES**2)
        self.pooled_head = PooledHead(kind.embed)

    def losses(self, images: Tensor, scenes: list[Scene]) -> dict[str, Tensor]:
        """Losses by name, already weighted; shape counts double, being the hardest to see."""
        cells, grounds = labels(scenes)
        pooled, tokens = read_tower(self.tower, self.tokens_of, images)
        by_cell = slot_losses(self.cell_head(cell_means(tokens)), cells)
        by_cell["shape"] = 2 * by_cell["shape"]
        cell_logits, ground_logits = self.pooled_head(pooled)
        whole = sum(slot_losses(cell_logits, cells).values())
        whole = whole + F.cross_entropy(ground_logits, grounds)
        places = torch.arange(PATCHES**2).repeat(len(tokens))
        place = F.cross_entropy(self.place_head(tokens).flatten(0, 1), places)
        return {**by_cell, "place": place, "pooled": 0.5 * whole}

    def accuracy(self, images: Tensor, scenes: list[Scene]) -> str:
        """Attribute accuracy read from cells and from the pooled token."""
        cells, _ = labels(scenes)
        pooled, tokens = read_tower(self.tower, self.tokens_of, images)
        by_cell = slot_accuracy(self.cell_head(cell_means(tokens)), cells)
        by_pooled = slot_accuracy(self.pooled_head(pooled)[0], cells)
        return " ".join(f"{k} {v:.3f} (pooled {by_pooled[k]:.3f})" for k, v in by_cell.items())


def training_scenes(rng: Random, batch: int) -> list[Scene]:
    """Half sparse, half dense scenes: dense ones show more things at the same cost."""
    sparse = sample_scenes(rng, batch // 2, held_out=False, most=4)
    return sparse + sample_scenes(rng, batch - batch // 2, held_out=False, least=5, most=NUM_CELLS)


def main() -> None:
    """Train the tower and write it."""
    parser = recipe_options(__doc__, "out", seed=3, steps=1700, batch=64)
    parser.add_argument("--kind", choices=tuple(KINDS), default="shared")
    args = start(parser)
    model = WarmUp(KINDS[args.kind])
    seen = sample_scenes(Random(0), 500, held_out=True)
    seen_pixels = pixels(seen, np.random.default_rng(0))

    def losses(step: int) -> dict[str, Tensor]:
        rng, drawing = streams(args.seed, step)
        scenes = training_scenes(rng, args.batch)
        return model.losses(pixels(scenes, drawing), scenes)

    learner = AdamWLearner(
        model,
        Schedule(args.steps, 1e-3, hold=0.5),
        weight_decay=0.05,
        losses=losses,
        look=lambda: model.accuracy(seen_pixels, seen),
    )
    run = TrainingRun(learner, args.out, without_paths(vars(args)))
    run.finish(look_every=200)
    save_file(model.tower.state_dict(), args.out / TOWER_FILE)
    print(f"final: {learner.look()}; {run.cpu_seconds:.0f} CPU-s")


if __name__ == "__main__":
    main()
