"""The candidates of a query in one picture, each below its mark (SQUARE, arXiv:2509.26330).

Cells are squares in reading order, as many columns as rows or one more. A mark stands in a strip
above its picture and hides none of it. Marks are the numbers 1 to 9, for longer lists the letters
A to Z: each is one token, so that the logits of one position order all of them (FIRST,
arXiv:2406.15657).
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL import Image

VERSION: Final = 1
"""Raised when the same pictures are drawn differently."""
NUMBERS: Final = tuple(string.digits[1:])
LETTERS: Final = tuple(string.ascii_uppercase)
MOST: Final = len(LETTERS)
"""Most pictures of a grid."""
GAP: Final = 4
"""Pixels between cells, and around all of them."""
STRIP_SHARE: Final = 8
"""A cell's side is so many times the height of the strip above it."""


def marks_of(count: int) -> tuple[str, ...]:
    """The marks of so many pictures.

    Raises:
        ValueError: Fewer than one, or more than `MOST`.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"a grid has 1 to {MOST} pictures, not {count}")
    return (NUMBERS if count <= len(NUMBERS) else LETTERS)[:count]


def all_marks() -> tuple[str, ...]:
    """Every mark that a grid may have."""
    return NUMBERS + LETTERS


@dataclass(frozen=True)
class GridPlan:
    """Where pictures stand in a grid.

    Attributes:
        count: Pictures.
        cell: Side of a picture's square in pixels.
    """

    count: int
    cell: int

    @property
    def columns(self) -> int:
        """Pictures side by side."""
        return math.ceil(math.sqrt(self.count))

    @property
    def strip(self) -> int:
        """Height of the strip of a mark."""
        return max(12, self.cell // STRIP_SHARE)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole."""
        rows = math.ceil(self.count / self.columns)
        across = GAP + self.columns * (self.cell + GAP)
        return across, GAP + rows * (self.strip + self.cell + GAP)

    def corner(self, place: int) -> tuple[int, int]:
        """Left and top of the strip of the picture at a place, from 0."""
        row, column = divmod(place, self.columns)
        return (
            GAP + column * (self.cell + GAP),
            GAP + row * (self.strip + self.cell + GAP),
        )


def draw_grid(pictures: Sequence[Image.Image], cell: int) -> Image.Image:
    """The pictures in one, RGB; each is scaled to fit its cell, centred on white.

    Raises:
        ValueError: None, or more than `MOST`.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    plan = GridPlan(len(pictures), cell)
    whole = Image.new("RGB", plan.size, "white")
    pen = ImageDraw.Draw(whole)
    font = ImageFont.load_default(size=plan.strip - 1)
    marks = marks_of(len(pictures))
    for place, (mark, picture) in enumerate(zip(marks, pictures, strict=True)):
        left, top = plan.corner(place)
        pen.text((left + cell / 2, top + plan.strip / 2), mark, "black", font, anchor="mm")
        fitted = ImageOps.contain(picture.convert("RGB"), (cell, cell))
        shift = ((cell - fitted.width) // 2, (cell - fitted.height) // 2)
        whole.paste(fitted, (left + shift[0], top + plan.strip + shift[1]))
    return whole
