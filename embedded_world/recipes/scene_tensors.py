"""Scenes as tensors: normalised pixels, attribute labels, and heads that read attributes out."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedded_world.drawing import SIDE, draw_batch
from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    GRID,
    NUM_CELLS,
    SHAPES,
    SIZES,
    Scene,
)

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Normalisation of every vision tower of the embedded world."""
PATCH = 16
PATCHES = SIDE // PATCH
"""Patches per row; a cell of the grid is exactly 2x2 of them."""

IGNORED = -100
SLOTS = {"shape": len(SHAPES) + 1, "colour": len(COLOURS), "size": len(SIZES), "fill": len(FILLS)}
"""Classes of each attribute of a cell; shape 0 means that the cell is empty."""


def to_tensor(drawn: np.ndarray) -> Tensor:
    """Normalise drawn pictures: uint8 (B, 96, 96, 3) -> float32 (B, 3, 96, 96)."""
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
    return (pixels - MEAN[0]) / STD[0]


def pixels(scenes: Sequence[Scene], rng: np.random.Generator) -> Tensor:
    """Draw scenes as a normalised batch (B, 3, 96, 96)."""
    return to_tensor(draw_batch(scenes, rng))


def labels(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Class numbers of the contents of scenes.

    Returns:
        Cells (B, 9, 4) in the order of SLOTS, IGNORED where a cell is empty (but for its shape) or
        a value is left open, and backgrounds (B,), IGNORED where one is not said.
    """
    cells = np.full((len(scenes), NUM_CELLS, len(SLOTS)), IGNORED, np.int64)
    cells[:, :, 0] = 0
    for i, scene in enumerate(scenes):
        for cell in scene.occupied:
            thing = scene.thing(cell)
            cells[i, cell] = (
                SHAPES.index(thing.shape) + 1,
                COLOURS.index(thing.colour),
                _class(SIZES, thing.size),
                _class(FILLS, thing.fill),
            )
    grounds = [_class(BACKGROUNDS, scene.background) for scene in scenes]
    return torch.from_numpy(cells), torch.tensor(grounds)


def _class(names: Sequence[str], value: str | None) -> int:
    return IGNORED if value is None else names.index(value)


def slot_losses(logits: Tensor, cells: Tensor) -> dict[str, Tensor]:
    """Cross entropy of each attribute, (B, 9, sum(SLOTS)) against (B, 9, 4)."""
    parts = logits.split(list(SLOTS.values()), dim=-1)
    return {
        name: F.cross_entropy(part.flatten(0, 1), cells[..., k].flatten(), ignore_index=IGNORED)
        for k, (name, part) in enumerate(zip(SLOTS, parts, strict=True))
    }


def slot_accuracy(logits: Tensor, cells: Tensor) -> dict[str, float]:
    """Share of right attributes over the things that are there."""
    there = cells[..., 0] > 0
    parts = logits.split(list(SLOTS.values()), dim=-1)
    return {
        name: float((part.argmax(-1) == cells[..., k])[there].float().mean())
        for k, (name, part) in enumerate(zip(SLOTS, parts, strict=True))
    }


def cell_means(tokens: Tensor) -> Tensor:
    """Mean of the patch tokens of each cell: (B, 36, d) -> (B, 9, d)."""
    batch, _, width = tokens.shape
    per_cell = PATCHES // GRID
    grid = tokens.reshape(batch, GRID, per_cell, GRID, per_cell, width)
    return grid.mean(dim=(2, 4)).reshape(batch, NUM_CELLS, width)


class PooledHead(nn.Module):
    """Reads every cell and the background out of one vector."""

    def __init__(self, width: int):
        super().__init__()
        self.cells = nn.Linear(width, NUM_CELLS * sum(SLOTS.values()))
        self.ground = nn.Linear(width, len(BACKGROUNDS))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d) -> cell logits (B, 9, sum(SLOTS)) and background logits (B, 6)."""
        return self.cells(pooled).unflatten(-1, (NUM_CELLS, -1)), self.ground(pooled)
