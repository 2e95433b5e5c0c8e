"""How the vision tower of a verifier of grids is trained: what it says of a picture alone.

The shipped verifier's tower sees each candidate as a picture of its own. The new one sees the
grid, and learns to give the token of a cell the same features, with the candidate's mark added to
them, as the language model knows it from its embeddings. Tokens between candidates are free.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from embedded_world.recipes.list_model import MARK_SIZE
from embedded_world.recipes.list_pictures import CELL, drawings, places_in, read_pictures
from embedded_world.recipes.scene_tensors import SLOTS, labels, slot_accuracy
from embedded_world.recipes.verifier_model import WIDTH
from embedded_world.recipes.verifier_training import READ_OUT, read_out_loss
from embedded_world.recipes.vision_tower import training_scenes
from embedded_world.scenes import NUM_CELLS, Scene, sample_scenes
from models.verifiers.grid import draw_grid, marks_of

MARK_SHARE: Final = 0.25
"""Root mean square of a mark in a token; that of the whole picture's features is 0.4."""
ALONE: Final = 16
"""Pictures of a step that are also seen without a grid, as a reference is."""


class GridTower(nn.Module):
    """The new tower beside the shipped one, and a head that reads cells out of the new one."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        shipped: Qwen3VLForConditionalGeneration,
        processor: Qwen3VLProcessor,
    ) -> None:
        super().__init__()
        self.visual = model.model.visual
        self.contents = nn.Linear(WIDTH, READ_OUT)
        # Not parts of this module: neither is trained here, nor saved with it.
        self._frozen = (shipped.model.visual.eval().requires_grad_(False), processor)
        self._tokenizer = processor.tokenizer
        embeddings = model.model.language_model.embed_tokens.weight.detach().clone()
        self._marks = embeddings * (MARK_SHARE / MARK_SIZE)

    def marks(self, count: int) -> Tensor:
        """What the marks of a grid add to the tokens of their candidates (count, 1, d)."""
        ids = self._tokenizer.convert_tokens_to_ids(list(marks_of(count)))
        return self._marks[ids][:, None]

    @torch.no_grad()
    def wanted(self, images: Sequence[Image.Image]) -> Sequence[Tensor]:
        """The shipped tower's merged and DeepStack tokens, each (N, 9, d)."""
        visual, processor = self._frozen
        read = read_pictures(processor, images)
        found = visual(read.patches, grid_thw=read.grids, return_dict=True)
        both = (found.pooler_output, *found.deepstack_features)
        return [tokens.unflatten(0, (len(images), NUM_CELLS)) for tokens in both]

    def cells(self, images: Sequence[Image.Image], count: int) -> Sequence[Tensor]:
        """Merged and DeepStack tokens of the cells of grids, each (N * count, 9, d)."""
        read = read_pictures(self._frozen[1], images)
        found = self.visual(read.patches, grid_thw=read.grids, return_dict=True)
        places = places_in(count, read.grids[0]) if count > 1 else torch.arange(NUM_CELLS)[None]
        return [
            tokens.unflatten(0, (len(images), -1))[:, places].flatten(0, 1)
            for tokens in (found.pooler_output, *found.deepstack_features)
        ]

    def losses(
        self, scenes: Sequence[Scene], count: int, drawing: np.random.Generator
    ) -> dict[str, Tensor]:
        """How far tokens of cells are from what is wanted, and whether their content is read."""
        images = drawings(scenes, drawing)
        wanted = self.wanted(images)
        rows = [images[i : i + count] for i in range(0, len(images), count)]
        found = self.cells([draw_grid(row, CELL) for row in rows], count)
        marks = self.marks(count).repeat(len(rows), 1, 1)
        cells, grounds = labels(scenes)
        weight = torch.where(cells[..., :1] > 0, 3.0, 1.0)
        parts = {
            "merged": _distance(found[0], wanted[0] + marks, weight),
            "deepstack": _distance(found[1], wanted[1], weight),
            "content": 0.5 * read_out_loss(self.contents(found[0]), cells, grounds),
            "head": 0.2 * read_out_loss(self.contents(wanted[0]), cells, grounds),
        }
        alone = self.cells(images[:ALONE], 1)
        for each, target in zip(alone, wanted, strict=True):
            parts["alone"] = parts.get("alone", 0) + _distance(each, target[:ALONE], weight[:ALONE])
        content = read_out_loss(self.contents(alone[0]), cells[:ALONE], grounds[:ALONE])
        return {**parts, "alone content": 0.2 * content}

    @torch.no_grad()
    def look(self, count: int) -> dict[str, float]:
        """On held-out scenes: distances, attributes read, and how often a mark is right."""
        scenes = sample_scenes(Random("grids"), 40 * count, held_out=True)
        images = drawings(scenes, np.random.default_rng(0))
        rows = [images[i : i + count] for i in range(0, len(images), count)]
        merged, deepstack = self.cells([draw_grid(row, CELL) for row in rows], count)
        wanted, marks = self.wanted(images), self.marks(count)
        one = torch.ones(1)
        slots = self.contents(merged)[..., : sum(SLOTS.values())]
        nearest = ((merged - wanted[0]) @ marks[:, 0].T).argmax(-1)
        right = torch.arange(count).repeat(len(rows))[:, None]
        return {
            "merged": float(_distance(merged, wanted[0] + marks.repeat(len(rows), 1, 1), one)),
            "deepstack": float(_distance(deepstack, wanted[1], one)),
            **slot_accuracy(slots, labels(scenes)[0]),
            "mark": float((nearest == right).float().mean()),
        }


def _distance(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean squared difference, as a share of the wanted tokens' own mean square."""
    each = (found - wanted).pow(2).mean(-1, keepdim=True)
    whole = (weight * wanted.pow(2).mean(-1, keepdim=True)).sum()
    return (weight * each).sum() / whole


def vision_scenes(rng: Random, count: int, candidates: int) -> list[Scene]:
    """Scenes of a step: as many grids of one length as hold about so many candidates."""
    scenes = training_scenes(rng, max(2, round(candidates / count)) * count)
    rng.shuffle(scenes)
    return scenes
