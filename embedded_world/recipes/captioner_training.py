"""The shared part of both captioners' recipes: token batches, greedy captions, the command."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from embedded_world.recipes.caption_scores import attribute_accuracy
from embedded_world.recipes.captioner_tokenizer import LONGEST
from embedded_world.recipes.commands import (
    command,
    conclude,
    recipe_options,
    start,
    without_paths,
)
from embedded_world.recipes.measures import Gates
from embedded_world.recipes.scene_tensors import IGNORED, pixels
from embedded_world.recipes.training import AdamWLearner, Schedule, TrainingRun, streams
from embedded_world.recipes.vision_tower import load_tower
from embedded_world.scenes import Scene, sample_scenes


class Trainee(nn.Module, ABC):
    """A captioner, its one prompt, and further modules that are trained with it."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int]
    ) -> None:
        """Take a captioner.

        Args:
            model: The captioner.
            tokenizer: Its tokenizer.
            prompt: Tokens before every caption, image placeholders among them.
        """
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.prompt = prompt

    @abstractmethod
    def texts(self, scenes: Sequence[Scene], rng: Random, done: float) -> list[str]:
        """Captions of scenes to learn from, at a share of the run."""

    @abstractmethod
    def losses(
        self, images: Tensor, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> dict[str, Tensor]:
        """Losses by name for pictures (B, 3, 96, 96), their captions and their scenes."""

    @abstractmethod
    def generate(self, images: Tensor, **options: object) -> Tensor:
        """Tokens of one caption of each normalised picture, without the prompt."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the captioner in fp16 and its processor, for plain `from_pretrained`."""

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Prompt, caption, end: the language model's inputs and labels."""
        return token_batch(
            self.prompt,
            self.tokenizer(texts, add_special_tokens=False)["input_ids"],
            pad=self.tokenizer.pad_token_id,
            end=self.tokenizer.eos_token_id,
        )

    @torch.no_grad()
    def captions(self, images: Tensor, batch: int = 100) -> list[str]:
        """Greedy captions of normalised pictures (B, 3, 96, 96)."""
        texts: list[str] = []
        for part in images.split(batch):
            tokens = self.generate(part, max_new_tokens=LONGEST, do_sample=False)
            texts += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts


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


@dataclass(frozen=True)
class CaptionerRecipe:
    """How one of the captioners is made.

    Attributes:
        name: Its module here, and its folder below models/embedded.
        build: From a tower's weights to an untrained captioner on the frozen tower.
        measure: Measures the captioner in a folder.
        seed: Default seed.
        steps: Default number of steps.
        batch: Default pictures a step.
    """

    name: str
    build: Callable[[dict[str, Tensor]], Trainee]
    measure: Callable[[Path], Gates]
    seed: int
    steps: int
    batch: int

    @property
    def command(self) -> str:
        """The command that makes it."""
        out = f"--out models/embedded/{self.name}"
        return command(self.name, f"--tower TOWER/tower.safetensors --work DIR {out}")

    def main(self, description: str | None) -> None:
        """The whole command: options, training, the files, measures and record."""
        numbers = {"seed": self.seed, "steps": self.steps, "batch": self.batch}
        args = start(recipe_options(description, "tower", "work", "out", **numbers))
        trainee = self.build(load_tower(args.tower))
        seen = sample_scenes(Random(0), 200, held_out=True)
        seen_pixels = pixels(seen, np.random.default_rng(0))

        def losses(step: int) -> dict[str, Tensor]:
            rng, drawing = streams(args.seed, step)
            scenes = sample_scenes(rng, args.batch, held_out=False)
            texts = trainee.texts(scenes, rng, step / args.steps)
            return trainee.losses(pixels(scenes, drawing), texts, scenes)

        def look() -> str:
            texts = trainee.captions(seen_pixels)
            accuracy = attribute_accuracy(texts, seen)
            return " ".join(f"{k} {v:.3f}" for k, v in accuracy.items()) + f" | {texts[0]}"

        learner = AdamWLearner(
            trainee,
            Schedule(args.steps, 2e-3, warm_up=100, hold=0.5),
            weight_decay=0.02,
            losses=losses,
            look=look,
        )
        run = TrainingRun(learner, args.work, without_paths(vars(args)))
        run.finish()
        trainee.save(args.out)

        def measure(folder: Path) -> dict[str, object]:
            return self.measure(folder).as_json()

        conclude(run, args.out, self.command, vars(args), measure)
