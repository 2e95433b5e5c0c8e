"""Grids of drawn pictures as the product draws them, and which token of one sees which cell.

With candidates of CELL pixels a picture of a grid is three tokens wide and three high, wherever it
stands: the row of tokens between two rows of pictures holds the marks. A token is nowhere exactly
on its cell, by up to half a token, since the strips of marks are not a multiple of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen3VLProcessor

from embedded_world.drawing import draw_batch
from embedded_world.recipes.list_queries import ListQuery
from embedded_world.recipes.scene_tensors import PATCH
from embedded_world.recipes.verifier_model import MERGE
from embedded_world.scenes import GRID, NUM_CELLS, Scene
from models.verifiers.grid import GridPlan, draw_grid

CELL: Final = 94
"""Side of a candidate's square in pixels."""
TOKEN: Final = PATCH * MERGE
"""Side of a token in pixels."""


@dataclass(frozen=True)
class Pictures:
    """Pictures as the processor gives them to the model.

    Attributes:
        patches: Of all pictures (P, 1536).
        grids: Frames, rows and columns of patches of each picture (N, 3).
    """

    patches: Tensor
    grids: Tensor


def drawings(scenes: Sequence[Scene], drawing: np.random.Generator) -> list[Image.Image]:
    """One picture of each scene."""
    return [Image.fromarray(pixels) for pixels in draw_batch(scenes, drawing)]


def read_pictures(processor: Qwen3VLProcessor, images: Sequence[Image.Image]) -> Pictures:
    """Pictures through the processor of the checkpoint."""
    found = processor.image_processor(images=list(images), return_tensors="pt")
    return Pictures(found["pixel_values"], found["image_grid_thw"])


def grids_of(
    lists: Sequence[ListQuery], drawing: np.random.Generator
) -> tuple[list[Image.Image], list[list[Image.Image]], list[Image.Image]]:
    """References, candidates, and grids of lists of one length."""
    count = len(lists[0].candidates)
    scenes = [scene for own in lists for scene in (own.query.reference, *own.candidates)]
    drawn = drawings(scenes, drawing)
    rows = [drawn[i : i + 1 + count] for i in range(0, len(drawn), 1 + count)]
    cells = [row[1:] for row in rows]
    return [row[0] for row in rows], cells, [draw_grid(own, CELL) for own in cells]


@cache
def token_places(
    count: int, height: int, width: int, cell: int = CELL
) -> tuple[tuple[int, ...], ...]:
    """The token of each cell of each candidate, counted in the order of tokens.

    Args:
        count: Candidates of the grid.
        height: Rows of tokens of the whole picture.
        width: Tokens of a row.
        cell: Side of a candidate's square in pixels.

    Raises:
        ValueError: Two cells share a token, so that nothing could be read from it alone.
    """
    plan = GridPlan(count, cell)
    across, down = plan.size
    found = []
    for place in range(count):
        left, top = plan.corner(place)
        own = []
        for number in range(NUM_CELLS):
            row, column = divmod(number, GRID)
            x = (left + (column + 0.5) * cell / GRID) * width / across
            y = (top + plan.strip + (row + 0.5) * cell / GRID) * height / down
            own.append(int(y) * width + int(x))
        found.append(tuple(own))
    used = [token for own in found for token in own]
    if len(set(used)) < len(used):
        raise ValueError(f"cells of {count} candidates of {cell} pixels share tokens")
    return tuple(found)


def places_in(count: int, grid: Tensor) -> Tensor:
    """The token of each cell of each candidate (count, 9), from its grid of patches (3,)."""
    _, height, width = grid.tolist()
    return torch.tensor(token_places(count, height // MERGE, width // MERGE))
