"""What the recipes of both captioners share: batches of tokens, the run and its options."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn

from embedded_world.recipes.caption_scores import attribute_accuracy
from embedded_world.recipes.pictures import IGNORED, pixels
from embedded_world.recipes.training import Schedule, Training, streams
from embedded_world.scenes import Scene, sample_scenes


class Trainee(nn.Module, ABC):
    """A captioner and what else is trained with it."""

    @abstractmethod
    def losses(
        self, images: Tensor, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> dict[str, Tensor]:
        """Losses by name for pictures (B, 3, 96, 96), their captions and what they show."""


def token_batch(
    prompt: Sequence[int], texts: Sequence[Sequence[int]], *, pad: int, end: int
) -> dict[str, Tensor]:
    """Prompt, caption, end, padded right; only caption and end are predicted.

    Args:
        prompt: Tokens before every caption, image placeholders among them.
        texts: Tokens of the captions.
        pad: Token of padding; occurs nowhere else.
        end: Token after a caption.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (B, longest).
    """
    rows = [[*prompt, *text, end] for text in texts]
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    mask = (ids != pad).long()
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, : len(prompt)] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def captioner_options(
    description: str | None, *, seed: int, steps: int, batch: int
) -> argparse.Namespace:
    """Options of a captioner's recipe, read from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tower", type=Path, required=True, help="tower.safetensors")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    return parser.parse_args()


def train_captioner(
    trainee: Trainee,
    options: argparse.Namespace,
    texts_of: Callable[[Sequence[Scene], Random, float], list[str]],
    captions_of: Callable[[Tensor], list[str]],
) -> Training:
    """Train on drawn scenes outside the held-out split, and show accuracies on held-out ones.

    Args:
        trainee: What is trained.
        options: As `captioner_options` gives them.
        texts_of: Captions of scenes, drawn with a source of randomness at a share of the run.
        captions_of: The captioner's own captions of pictures (B, 3, 96, 96).
    """
    schedule = Schedule(options.steps, 2e-3, warm_up=100, hold=0.5)
    training = Training(trainee, schedule, options.work, weight_decay=0.02)
    seen = sample_scenes(Random(0), 200, held_out=True)
    seen_pixels = pixels(seen, np.random.default_rng(0))

    def losses(step: int) -> dict[str, Tensor]:
        rng, drawing = streams(options.seed, step)
        scenes = sample_scenes(rng, options.batch, held_out=False)
        texts = texts_of(scenes, rng, step / options.steps)
        return trainee.losses(pixels(scenes, drawing), texts, scenes)

    def evaluate() -> str:
        texts = captions_of(seen_pixels)
        accuracy = attribute_accuracy(texts, seen)
        return " ".join(f"{k} {v:.3f}" for k, v in accuracy.items()) + f" | {texts[0]}"

    training.run(losses, evaluate)
    return training
