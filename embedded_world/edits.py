"""Edits: single changes of a scene, applied and drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from embedded_world.captions import name_thing
from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    random_thing,
)

ONE_EDIT = ("colour", "shape", "size", "fill", "add", "remove", "background", "move", "replace")
"""Kinds of edit. `add` and `replace` may leave size and fill open."""
NOTHING_ADDED = "none"


@dataclass(frozen=True)
class Edit:
    """One change of a scene: its kind, and the cell that changes.

    Attributes:
        kind: One of ONE_EDIT.
        cell: The cell that changes (None for the background).
        thing: The thing that stands in the cell afterwards (None where nothing does).
        to_cell: Where a moved thing goes.
        background: The new background.
    """

    kind: str
    cell: int | None = None
    thing: Thing | None = None
    to_cell: int | None = None
    background: str | None = None

    @property
    def touched(self) -> set[int | None]:
        """Cells that the edit reads or writes; None stands for the background."""
        return {self.cell} if self.to_cell is None else {self.cell, self.to_cell}

    def apply(self, scene: Scene) -> Scene:
        """The scene after the edit."""
        if self.kind == "background":
            return replace(scene, background=self.background)
        assert self.cell is not None
        if self.kind == "move":
            assert self.to_cell is not None
            return scene.put(self.to_cell, scene.cells[self.cell]).put(self.cell, None)
        return scene.put(self.cell, self.thing)

    def combination(self, scene: Scene) -> tuple[object, ...]:
        """(kind, old values, new value): the unit that is held out of training."""
        if self.kind == "background":
            # All of the few background pairs are trained: there are only thirty.
            return (self.kind,)
        assert self.cell is not None
        old = scene.cells[self.cell]
        if self.kind == "add":
            return (self.kind, self.thing)
        assert old is not None
        if self.kind == "remove":
            return (self.kind, self.cell, old.colour, old.shape)
        if self.kind == "move":
            return (self.kind, self.cell, self.to_cell, old.shape)
        assert self.thing is not None
        if self.kind == "replace":
            return (self.kind, old.colour, old.shape, self.thing.colour, self.thing.shape)
        return (self.kind, old.colour, old.shape, getattr(self.thing, self.kind))

    def added(self) -> str:
        """The things that the edit brings into the picture, as a noun phrase or "none"."""
        if self.kind in ("add", "replace") and self.thing is not None:
            return name_thing(self.thing)
        return NOTHING_ADDED


def random_edit(
    scene: Scene,
    rng: Random,
    kinds: Sequence[str] = ONE_EDIT,
    *,
    shapes: Sequence[str] = SHAPES,
    open_share: float = 0.0,
    most: int = 3,
    avoid: frozenset[int | None] = frozenset(),
) -> Edit:
    """Draw an edit that is possible in `scene`.

    Args:
        scene: The scene before.
        rng: Source of randomness.
        kinds: Kinds to draw from, with repetition as weights.
        shapes: Shapes that new things may have.
        open_share: Probability that size, and that fill, of an added thing is left open.
        most: Most things that the scene may hold afterwards.
        avoid: Cells (None = background) that the edit must not touch.
    """
    while True:
        kind = rng.choice(kinds)
        occupied = [c for c in scene.occupied if c not in avoid]
        empty = [c for c in scene.empty if c not in avoid]
        edit = _draw(kind, scene, rng, occupied, empty, shapes, open_share)
        if edit is None or edit.touched & avoid:
            continue
        if 1 <= len(edit.apply(scene).occupied) <= most:
            return edit


def _draw(
    kind: str,
    scene: Scene,
    rng: Random,
    occupied: Sequence[int],
    empty: Sequence[int],
    shapes: Sequence[str],
    open_share: float,
) -> Edit | None:
    """One candidate edit of a kind, or None where the kind does not apply."""

    def new_thing() -> Thing:
        thing = random_thing(rng, shapes)
        size = None if rng.random() < open_share else thing.size
        fill = None if rng.random() < open_share else thing.fill
        return replace(thing, size=size, fill=fill)

    def other(values: Sequence[str], old: str | None) -> str:
        return rng.choice([v for v in values if v != old])

    if kind == "background":
        if scene.background is None:
            return None
        return Edit(kind, background=other(BACKGROUNDS, scene.background))
    if kind == "add":
        return Edit(kind, rng.choice(empty), new_thing()) if empty else None
    if not occupied:
        return None
    cell = rng.choice(occupied)
    thing = scene.thing(cell)
    if kind == "remove":
        return Edit(kind, cell)
    if kind == "move":
        return Edit(kind, cell, to_cell=rng.choice(empty)) if empty else None
    if kind == "replace":
        fresh = new_thing()
        same_looks = (fresh.colour, fresh.shape) == (thing.colour, thing.shape)
        return None if same_looks else Edit(kind, cell, fresh)
    if kind == "colour":
        return Edit(kind, cell, replace(thing, colour=other(COLOURS, thing.colour)))
    if kind == "shape":
        choices = [s for s in shapes if s != thing.shape]
        return Edit(kind, cell, replace(thing, shape=rng.choice(choices)))
    if kind == "size" and thing.size is not None:
        return Edit(kind, cell, replace(thing, size=other(SIZES, thing.size)))
    if kind == "fill" and thing.fill is not None:
        return Edit(kind, cell, replace(thing, fill=other(FILLS, thing.fill)))
    return None
