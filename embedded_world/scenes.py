"""Scenes: the contents of drawn pictures, how they are sampled, and which are held out.

A scene is a 3x3 grid with one to three things on a background. Its *content* is the background
and the thing in each cell; two renderings of one scene differ only in jitter and noise.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

SIZES = ("small", "large")
FILLS = ("solid", "striped", "outlined")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "cyan")
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
BACKGROUNDS = ("white", "black", "gray", "beige", "checkered", "dotted")
GRID = 3
NUM_CELLS = GRID * GRID
MAX_THINGS = 3

THEMES: Mapping[str, tuple[str, ...]] = {
    "blocks": ("square", "triangle", "cross"),
    "charms": ("circle", "star", "heart"),
    "mixed": SHAPES,
}
"""Categories of the FashionIQ-like benchmark: the shapes that a category's scenes draw from."""

HELD_OUT_SCENES = 20
"""One scene in this many is held out of every training stage."""
HELD_OUT_EDITS = 10
"""One (kind, old values, new value) combination in this many is held out of training."""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "size": SIZES,
    "fill": FILLS,
    "colour": COLOURS,
    "shape": SHAPES,
}


@dataclass(frozen=True)
class Thing:
    """One drawn thing. `size` and `fill` are None where a text leaves them open."""

    size: str | None
    fill: str | None
    colour: str
    shape: str

    def matches(self, other: "Thing") -> bool:
        """Whether `other` fits this description; None here fits anything."""
        return (
            self.size in (None, other.size)
            and self.fill in (None, other.fill)
            and self.colour == other.colour
            and self.shape == other.shape
        )


@dataclass(frozen=True)
class Scene:
    """Content of a picture: a background (None = not said) and a thing or None per cell."""

    background: str | None
    cells: tuple[Thing | None, ...]

    @property
    def occupied(self) -> list[int]:
        """Cells that hold a thing, in reading order."""
        return [cell for cell, thing in enumerate(self.cells) if thing is not None]

    @property
    def empty(self) -> list[int]:
        """Cells that hold nothing, in reading order."""
        return [cell for cell, thing in enumerate(self.cells) if thing is None]

    def thing(self, cell: int) -> Thing:
        """The thing in a cell that is known to be occupied."""
        thing = self.cells[cell]
        if thing is None:
            raise ValueError(f"cell {cell} is empty; occupied cells: {self.occupied}")
        return thing

    def put(self, cell: int, thing: Thing | None) -> "Scene":
        """The same scene with another thing (or nothing) in one cell."""
        cells = list(self.cells)
        cells[cell] = thing
        return replace(self, cells=tuple(cells))

    def matches(self, other: "Scene") -> bool:
        """Whether `other` fits this description, cell by cell; None values fit anything."""
        if self.background not in (None, other.background):
            return False
        return all(
            (mine is None and theirs is None)
            or (mine is not None and theirs is not None and mine.matches(theirs))
            for mine, theirs in zip(self.cells, other.cells, strict=True)
        )


def make_scene(background: str | None, things: Mapping[int, Thing]) -> Scene:
    """Build a scene from the things of its occupied cells."""
    return Scene(background, tuple(things.get(cell) for cell in range(NUM_CELLS)))


def random_thing(rng: Random, shapes: Sequence[str] = SHAPES) -> Thing:
    """A thing with uniformly drawn attributes."""
    return Thing(rng.choice(SIZES), rng.choice(FILLS), rng.choice(COLOURS), rng.choice(shapes))


def random_scene(
    rng: Random, least: int = 1, most: int = MAX_THINGS, shapes: Sequence[str] = SHAPES
) -> Scene:
    """A scene with `least`..`most` things in distinct cells."""
    cells = rng.sample(range(NUM_CELLS), rng.randint(least, most))
    things = {cell: random_thing(rng, shapes) for cell in cells}
    return make_scene(rng.choice(BACKGROUNDS), things)


def _bucket(text: str, buckets: int) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") % buckets


def content(scene: Scene) -> str:
    """A one-line, order-free spelling of a scene's content, used for identity and splits."""
    parts = [
        f"{cell}:{thing.size}/{thing.fill}/{thing.colour}/{thing.shape}"
        for cell, thing in enumerate(scene.cells)
        if thing is not None
    ]
    return f"{scene.background}|" + ",".join(parts)


def is_held_out(scene: Scene) -> bool:
    """Whether this exact content is reserved for evaluation."""
    return _bucket("scene " + content(scene), HELD_OUT_SCENES) == 0


def is_held_out_edit(combination: Sequence[object]) -> bool:
    """Whether this (kind, old values, new value) combination is reserved for evaluation."""
    return _bucket("edit " + repr(tuple(combination)), HELD_OUT_EDITS) == 0


def sample_scenes(
    rng: Random,
    count: int,
    *,
    held_out: bool,
    least: int = 1,
    most: int = MAX_THINGS,
    shapes: Sequence[str] = SHAPES,
    distinct: bool = False,
) -> list[Scene]:
    """Draw scenes from one side of the split.

    Args:
        rng: Source of randomness.
        count: Number of scenes.
        held_out: True for evaluation scenes, False for training scenes.
        least: Fewest things in a scene.
        most: Most things in a scene.
        shapes: Shapes to draw from.
        distinct: Refuse repeated contents.
    """
    scenes: list[Scene] = []
    seen: set[Scene] = set()
    while len(scenes) < count:
        scene = random_scene(rng, least, most, shapes)
        if is_held_out(scene) != held_out or (distinct and scene in seen):
            continue
        seen.add(scene)
        scenes.append(scene)
    return scenes
