"""Whether a picture has as few colours as the pictures that the shipped small models know.

Pictures of the embedded world are flat shapes on a plain or patterned ground. Their six commonest
colours, in steps of 32 levels, cover at least 93 % of each of 200 of them; of 1,565 photographs of
clothes they cover a median of 67 %, and 1.8 % of the photographs reach `FEW`
(tests/tasks/test_foreign_pictures.py). One picture may deceive, a sample of a collection hardly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE: Final = 96
"""Pixels to which a picture is reduced."""
COLOURS: Final = 6
FEW: Final = 0.92
"""Least share of the pixels that have one of the commonest colours."""


def share_of_colours(picture: Image) -> float:
    """The share of pixels in the six commonest of 512 colours, 0 to 1."""
    levels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE))).astype(np.int64) >> 5
    counts = np.bincount((levels @ np.array([64, 8, 1])).ravel(), minlength=512)
    return float(np.sort(counts)[-COLOURS:].sum() / counts.sum())


def look_drawn(pictures: Iterable[Image]) -> bool:
    """Whether at least half of some pictures have few colours; true of none."""
    few = [share_of_colours(picture) >= FEW for picture in pictures]
    return 2 * sum(few) >= len(few)
