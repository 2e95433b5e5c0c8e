"""From decoded pictures to the pixels that training reads: fixed geometry, or random crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
from PIL import Image

from models.encoders.preprocess import ImagePreprocess
from models.training.settings import Augmentation

Pixels: TypeAlias = np.ndarray
"""(H, W, 3) uint8."""

_SMALLEST_CROP: Final = 0.8
_CROP_RATIOS: Final = (3 / 4, 4 / 3)


def random_crop(pixels: Pixels, size: tuple[int, int], key: Sequence[int]) -> Pixels:
    """A random resized crop: 0.8 to 1.0 of the area, bicubic.

    Its sides are 3:4 to 4:3, or as near to that as a part of that area can be.

    Args:
        pixels: (H, W, 3) of a whole picture.
        size: Height and width of the result.
        key: Seeds of this crop.
    """
    chance = np.random.default_rng(tuple(key))
    height, width = pixels.shape[:2]
    area = height * width * chance.uniform(_SMALLEST_CROP, 1.0)
    ratio = np.exp(chance.uniform(*np.log(_CROP_RATIOS)))
    ratio = np.clip(ratio, area / height**2, width**2 / area)  # what fits into the picture
    across = min(width, max(1, round((area * ratio) ** 0.5)))
    down = min(height, max(1, round((area / ratio) ** 0.5)))
    left, top = chance.integers(0, width - across + 1), chance.integers(0, height - down + 1)
    box = (int(left), int(top), int(left) + across, int(top) + down)
    picture = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture)


def whole_pixels(picture: Image.Image) -> Pixels:
    """A picture as it is, for random crops."""
    return np.asarray(picture)


def still_preprocess(preprocess: ImagePreprocess, augmentation: Augmentation) -> ImagePreprocess:
    """Geometry without chance: padded where the augmentation is `targetpad`.

    It prepares pictures for validation, and for retrieval by what was trained.
    """
    return replace(preprocess, mode="targetpad" if augmentation == "targetpad" else "clip")


def still_pixels(
    preprocess: ImagePreprocess, augmentation: Augmentation
) -> Callable[[Image.Image], Pixels]:
    """Resizing and cropping without chance, see `still_preprocess`."""
    geometry = still_preprocess(preprocess, augmentation).geometry()
    return lambda picture: np.asarray(geometry(picture))
