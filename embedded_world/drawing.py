"""Scenes -> pixels: 96x96 RGB, one 32-pixel cell per grid place.

Things are drawn once per (shape, size, fill, pose) at four times the resolution, kept as masks and
composited with numpy, so that training can draw its pictures as it goes. Pose, tint and noise vary
between two drawings of the same scene; content does not.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from embedded_world.scenes import BACKGROUNDS, GRID, NUM_CELLS, SIZES, Scene

CELL = 32
SIDE = GRID * CELL
"""Width and height of a picture in pixels."""
POSES = 48
"""Number of jittered poses kept per (shape, size, fill)."""

_OVERSAMPLE = 4
_RADIUS = {"small": 6.3, "large": 11.3}
_OUTLINE = {"small": 2.0, "large": 2.6}
_STRIPE = {"small": 2.4, "large": 3.0}
_RGB = {
    "red": (215, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (245, 222, 45),
    "green": (40, 160, 70),
    "blue": (40, 80, 215),
    "purple": (125, 50, 165),
    "pink": (245, 140, 190),
    "cyan": (60, 205, 220),
}
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def _ring(count: int, start: float, radii: Sequence[float]) -> list[tuple[float, float]]:
    """Points around the origin at unit radius times `radii`, taken in turn."""
    angles = [start + 2 * math.pi * i / count for i in range(count)]
    return [
        (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a))
        for i, a in enumerate(angles)
    ]


def _outline_of(shape: str) -> list[tuple[float, float]]:
    """Polygon of a shape around the origin, y downwards, radius about one."""
    if shape == "circle":
        return _ring(48, 0.0, (1.0,))
    if shape == "square":
        return _ring(4, math.pi / 4, (1.2,))
    if shape == "triangle":
        return [(x, y + 0.15) for x, y in _ring(3, -math.pi / 2, (1.25,))]
    if shape == "star":
        return _ring(10, -math.pi / 2, (1.2, 0.5))
    if shape == "cross":
        arm, tip = 0.37, 1.08
        quarter = [(-arm, -tip), (arm, -tip), (arm, -arm)]
        points = []
        for _ in range(4):
            points += quarter
            quarter = [(-y, x) for x, y in quarter]
        return points
    if shape == "heart":
        steps = [2 * math.pi * i / 40 for i in range(40)]
        return [
            (
                1.056 * math.sin(t) ** 3,
                -0.066
                * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
            )
            for t in steps
        ]
    raise ValueError(f"unknown shape {shape!r}")


def _shrink(mask: NDArray[np.float64]) -> Floats:
    """Average the oversampled mask down to cell size."""
    blocks = mask.reshape(CELL, _OVERSAMPLE, CELL, _OVERSAMPLE)
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def _eroded(mask: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    """Smallest value within `border` pixels in x and y: the area inside an outline."""
    for axis in (0, 1):
        padded = np.pad(mask, border, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * border + 1, axis=axis)
        mask = windows.min(axis=-1)
        mask = mask[:, border:-border] if axis == 0 else mask[border:-border, :]
    return mask


@cache
def _masks(shape: str, size: str, fill: str, pose: int) -> tuple[Floats, Floats]:
    """Coverage of a thing and of its dark stripes, each (CELL, CELL) in 0..1."""
    # One stream per appearance: the masks do not depend on the order in which they are drawn.
    rng = np.random.default_rng([ord(c) for c in f"{shape}/{size}/{fill}/{pose}"])
    wide = CELL * _OVERSAMPLE
    jitter = 1.5 * _OVERSAMPLE
    centre_x, centre_y = wide / 2 + rng.uniform(-jitter, jitter, size=2)
    radius = _RADIUS[size] * _OVERSAMPLE * rng.uniform(0.95, 1.05)
    turn = rng.uniform(-0.08, 0.08)
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    points = [
        (centre_x + x * cos - y * sin, centre_y + x * sin + y * cos) for x, y in _outline_of(shape)
    ]
    canvas = Image.new("L", (wide, wide), 0)
    ImageDraw.Draw(canvas).polygon(points, fill=255)
    cover = np.asarray(canvas) / 255.0
    dark = np.zeros_like(cover)
    if fill == "outlined":
        border = int(_OUTLINE[size] * _OVERSAMPLE)
        cover = cover - _eroded(cover, border)
    elif fill == "striped":
        height = _STRIPE[size] * _OVERSAMPLE
        rows = np.arange(wide)[:, None]
        dark = ((rows - centre_y + height / 2) // height % 2 == 1) * cover
    return _shrink(cover), _shrink(dark)


@lru_cache(maxsize=1)
def _backdrops() -> Floats:
    """All backgrounds, (len(BACKGROUNDS), SIDE, SIDE, 3) in 0..255."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    plain = {
        "white": (250, 250, 250),
        "black": (22, 22, 25),
        "gray": (130, 130, 132),
        "beige": (226, 205, 165),
    }
    tile = 8
    checks = np.where((x // tile + y // tile) % 2 == 0, 235.0, 185.0)
    from_dot = (x % tile - tile / 2 + 0.5) ** 2 + (y % tile - tile / 2 + 0.5) ** 2
    dots = np.where(from_dot < (tile * 0.27) ** 2, 95.0, 240.0)
    drawn = np.zeros((len(BACKGROUNDS), SIDE, SIDE, 3), np.float32)
    for i, name in enumerate(BACKGROUNDS):
        if name in plain:
            drawn[i] = plain[name]
        else:
            drawn[i] = {"checkered": checks, "dotted": dots}[name][..., None]
    return drawn


def draw_batch(scenes: Sequence[Scene], rng: np.random.Generator) -> Pixels:
    """Draw scenes.

    Args:
        scenes: Scenes with every attribute and the background said.
        rng: Pose, tint and noise; the same generator state gives the same pictures.

    Returns:
        uint8 array (len(scenes), SIDE, SIDE, 3).
    """
    count = len(scenes)
    backdrops = _backdrops()
    drawn = backdrops[[BACKGROUNDS.index(str(s.background)) for s in scenes]]
    # (B, row, y, column, x, 3) -> (B * cells, y, x, 3), so that one index names one cell
    tiles = drawn.reshape(count, GRID, CELL, GRID, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    tiles = np.ascontiguousarray(tiles).reshape(count * NUM_CELLS, CELL, CELL, 3)
    places, covers, darks, paints = [], [], [], []
    for i, scene in enumerate(scenes):
        for cell in scene.occupied:
            thing = scene.thing(cell)
            if thing.size not in SIZES or thing.fill is None:
                raise ValueError(f"cannot draw {thing}: its size or fill is not said")
            cover, dark = _masks(thing.shape, thing.size, thing.fill, int(rng.integers(POSES)))
            places.append(i * NUM_CELLS + cell)
            covers.append(cover)
            darks.append(dark)
            paints.append(_RGB[thing.colour])
    tint = rng.integers(-10, 11, (len(paints), 3)).astype(np.float32)
    paint = np.array(paints, np.float32) + tint
    bright = paint.mean(axis=1, keepdims=True) > 120
    stripe = np.where(bright, paint * 0.3, paint * 0.3 + 255 * 0.7).astype(np.float32)
    cover_, dark_ = np.stack(covers)[..., None], np.stack(darks)[..., None]
    paint_, stripe_ = paint[:, None, None, :], stripe[:, None, None, :]
    tiles[places] = tiles[places] * (1 - cover_) + paint_ * (cover_ - dark_) + stripe_ * dark_
    out = tiles.reshape(count, GRID, GRID, CELL, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    out = out.reshape(count, SIDE, SIDE, 3)
    grain = rng.integers(-6, 7, (count, SIDE, SIDE, 1), dtype=np.int8)
    light = rng.integers(-6, 7, (count, 1, 1, 1), dtype=np.int8)
    out = out + (grain + light)
    return np.clip(out, 0, 255).astype(np.uint8)


def draw(scene: Scene, seed: int) -> Image.Image:
    """One picture of a scene; the same seed gives the same picture."""
    return Image.fromarray(draw_batch([scene], np.random.default_rng(seed))[0])
