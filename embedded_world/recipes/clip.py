"""The embedded CLIPs: open_clip's own model, from the warmed-up vision tower.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.clip \\
        --tower TOWER/tower.safetensors --work DIR --out models/embedded/clip

`--preset small` makes a second, smaller backbone from a tower of `vision_tower --kind small`.

A batch is made of families: a scene and pictures that differ from it by one edit each, so that
the hard negatives of composed retrieval are there from the first step.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

from embedded_world.captions import caption, varied_caption
from embedded_world.edits import random_edit
from embedded_world.recipes.clip_texts import partial_caption, training_text
from embedded_world.recipes.clip_tokenizer import BPE_FILE, write_merges
from embedded_world.recipes.commands import (
    command,
    conclude,
    recipe_options,
    start,
    without_paths,
)
from embedded_world.recipes.scene_tensors import MEAN, STD, pixels
from embedded_world.recipes.training import (
    AdamWLearner,
    Schedule,
    TrainingRun,
    half_precision,
    streams,
)
from embedded_world.recipes.vision_measures import clip_gates, recalls
from embedded_world.recipes.vision_tower import KINDS, TowerKind, load_tower
from embedded_world.scenes import Scene, is_held_out, is_held_out_edit, sample_scenes

CONTEXT = 77
HIGHEST_SCALE = math.log(100)
LENGTH_GROUPS = 3
"""Texts of a batch are encoded in this many groups of like length."""


@dataclass(frozen=True)
class Preset:
    """One of the shipped CLIPs.

    Attributes:
        folder: Its folder below models/embedded.
        tower: Kind of the vision tower.
        width: Width of the text tower; heads are 32 wide.
        layers: Blocks of the text tower.
        steps: Optimiser steps.
    """

    folder: str
    tower: TowerKind
    width: int
    layers: int
    steps: int

    def command(self, name: str) -> str:
        """The command that makes it."""
        chosen = "" if name == FIRST else f"--preset {name} "
        folders = f"--tower TOWER/tower.safetensors --work DIR --out models/embedded/{self.folder}"
        return command("clip", chosen + folders)


FIRST = "first"
PRESETS: Mapping[str, Preset] = {
    FIRST: Preset("clip", KINDS["shared"], width=128, layers=3, steps=1800),
    "small": Preset("clip_small", KINDS["small"], width=96, layers=2, steps=1300),
}


def text_config(vocabulary: int, preset: Preset) -> dict[str, object]:
    """open_clip's `text_cfg`."""
    return {
        "context_length": CONTEXT,
        "vocab_size": vocabulary,
        "width": preset.width,
        "heads": preset.width // 32,
        "layers": preset.layers,
        "mlp_ratio": 2.0,
        # open_clip does not resolve this name against the model's folder; loaders must.
        "tokenizer_kwargs": {"bpe_path": BPE_FILE},
    }


def new_clip(vocabulary: int, tower: dict[str, Tensor], preset: Preset = PRESETS[FIRST]) -> CLIP:
    """A CLIP with a trained vision tower and an untrained text tower."""
    text = CLIPTextCfg(**text_config(vocabulary, preset))
    model = CLIP(preset.tower.embed, CLIPVisionCfg(**preset.tower.vision), text)
    model.visual.load_state_dict(tower)
    return model


def encode_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """`model.encode_text` of texts cropped to the longest: attention sees nothing after the end."""
    length = int(tokens.argmax(dim=-1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection


def encode_texts(model: CLIP, tokenizer: SimpleTokenizer, texts: Sequence[str]) -> Tensor:
    """Text features (B, d), not normalised, encoded in groups of like length."""
    tokens = tokenizer(list(texts))
    order = tokens.argmax(dim=-1).argsort()
    parts = [encode_tokens(model, tokens[rows]) for rows in order.chunk(LENGTH_GROUPS)]
    return torch.cat(parts)[order.argsort()]


def sibling(scene: Scene, rng: Random) -> Scene:
    """A training scene one edit away; held-out contents and kinds of edit are never made."""
    while True:
        edit = random_edit(scene, rng)
        changed = edit.apply(scene)
        if not is_held_out(changed) and not is_held_out_edit(edit.combination(scene)):
            return changed


def families(rng: Random, count: int, siblings: int) -> list[Scene]:
    """`count` scenes, each followed by its siblings."""
    scenes = []
    for scene in sample_scenes(rng, count, held_out=False):
        scenes += [scene, *(sibling(scene, rng) for _ in range(siblings))]
    return scenes


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over a batch of pairs (B, d), (B, d)."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class ClipTraining(nn.Module):
    """CLIP and how a batch becomes a loss."""

    def __init__(self, model: CLIP, tokenizer: SimpleTokenizer):
        super().__init__()
        self.clip = model
        self.tokenizer = tokenizer

    def losses(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """The contrastive loss."""
        scale = self.clip.logit_scale.clamp(max=HIGHEST_SCALE).exp()
        text_features = encode_texts(self.clip, self.tokenizer, texts)
        return {"contrastive": contrastive_loss(self.clip.visual(images), text_features, scale)}

    def accuracy(self, images: Tensor, scenes: Sequence[Scene]) -> str:
        """Text-to-image recall for three kinds of caption."""
        rng = Random(1)
        gallery = torch.cat([self.clip.visual(part) for part in images.split(200)])
        kinds = {
            "canonical": [caption(s) for s in scenes],
            "varied": [varied_caption(s, rng, shuffle=True) for s in scenes],
            "partial": [partial_caption(s, rng) for s in scenes],
        }
        parts = []
        for kind, texts in kinds.items():
            found = recalls(encode_texts(self.clip, self.tokenizer, texts), gallery)
            parts.append(f"{kind} " + " ".join(f"{k} {v:.3f}" for k, v in found.items()))
        return "; ".join(parts) + f"; scale {self.clip.logit_scale.exp():.0f}"


@torch.no_grad()
def balance_norms(
    model: CLIP, tokenizer: SimpleTokenizer, rng: Random, drawing: np.random.Generator
) -> None:
    """Scale image features to the mean length of text features.

    Cosines do not change. Mapping networks, though, learn from text features and read image
    features, neither normalised, so the two must be of one magnitude (as OpenAI's are).
    """
    scenes = sample_scenes(rng, 500, held_out=False)
    images = model.visual(pixels(scenes, drawing)).norm(dim=-1).mean()
    texts = encode_texts(model, tokenizer, [caption(s) for s in scenes]).norm(dim=-1).mean()
    model.visual.proj.mul_(texts / images)


def save_clip(model: CLIP, vocabulary: int, preset: Preset, folder: Path) -> None:
    """Write open_clip's configuration, fp16 weights and the tokenizer's merges."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": {
            "embed_dim": preset.tower.embed,
            "vision_cfg": dict(preset.tower.vision),
            "text_cfg": text_config(vocabulary, preset),
        },
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(half_precision(model.state_dict()), folder / "open_clip_model.safetensors")
    write_merges(folder)


def main() -> None:
    """Train CLIP and write it."""
    parser = recipe_options(__doc__, "tower", "work", "out", seed=13, families=32, siblings=2)
    parser.add_argument("--preset", choices=tuple(PRESETS), default=FIRST)
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    args = start(parser)
    preset = PRESETS[args.preset]
    settings = {**vars(args), "steps": args.steps or preset.steps}
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = SimpleTokenizer(str(write_merges(args.work)), context_length=CONTEXT)
    model = new_clip(tokenizer.vocab_size, load_tower(args.tower), preset)
    trainee = ClipTraining(model, tokenizer)
    seen = sample_scenes(Random(0), 1000, held_out=True, distinct=True)
    seen_pixels = pixels(seen, np.random.default_rng(0))

    def losses(step: int) -> dict[str, Tensor]:
        rng, drawing = streams(args.seed, step)
        scenes = families(rng, args.families, args.siblings)
        return trainee.losses(pixels(scenes, drawing), [training_text(s, rng) for s in scenes])

    learner = AdamWLearner(
        trainee,
        Schedule(settings["steps"], 1e-3, warm_up=100, hold=0.4),
        weight_decay=0.05,
        losses=losses,
        look=lambda: trainee.accuracy(seen_pixels, seen),
    )
    run = TrainingRun(learner, args.work, without_paths(settings))
    run.finish()
    balance_norms(model, tokenizer, *streams(args.seed, learner.steps))
    save_clip(model, tokenizer.vocab_size, preset, args.out)

    def measure(folder: Path) -> dict[str, object]:
        return clip_gates(folder).as_json()

    conclude(run, args.out, preset.command(args.preset), settings, measure)


if __name__ == "__main__":
    main()
