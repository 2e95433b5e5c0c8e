"""Unlabelled collections: pictures in meta classes, without any text.

InstructCIR learns from random pairs of one meta class. Two collections are drawn, to be mixed as
the paper mixes product photographs and NLVR:

- `ranges`: a class is a product range, one scene of which one or two slots vary, so that two
  pictures of a class differ in one or two things. All kinds of edit lie between them.
- `sets`: a class is a set of relatives, one scene and others that are one edit away from it or from
  one another. Any of their details may differ, so that nothing of a picture can be ignored.

A *slot* is a choice of which every picture shows one: the colours of one thing, the places it may
stand at, the backgrounds, a thing that is there or not. No scene is held out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from embedded_world.drawing import draw_batch
from embedded_world.edits import ONE_EDIT, Edit, random_edit
from embedded_world.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    MAX_THINGS,
    Scene,
    is_held_out,
    random_thing,
    sample_scenes,
)

Slot = tuple[Edit | None, ...]
"""The edits that a slot offers for the base scene of a class; None leaves the scene as it is."""

ENOUGH = 6
"""A class gets more slots until they have this many combinations."""
LEAST = 4
"""Fewest pictures of a class."""
MOST_SLOTS = 3
KINDS = (*ONE_EDIT, "size", "add", "remove", "move", *2 * ("size", "fill", "add", "remove"))
"""Kinds of slot, weighted: those of few choices would else be rare between two pictures."""
TRIES = 12
"""Slots drawn for one base scene before another is tried."""
PLACES = 4
"""Places that a moving thing may go to."""
REPLACEMENTS = 5
"""Things that may stand in place of one thing."""


RANGE = 8
"""Most pictures of a product range."""
RANGE_SLOTS = (1, 1, 2)
"""Numbers of slots of a range, drawn from for each; raised for slots of few choices."""
SET = 12
"""Pictures of a set."""
NEAR = 0.6
"""Share of a set's pictures that are an edit of its first one; the others, of any."""


@dataclass(frozen=True)
class UnlabelledSize:
    """How many pictures are drawn for each collection; the last class may go beyond."""

    ranges: int = 400
    sets: int = 400


def draw_slot(scene: Scene, kind: str, rng: Random, avoid: frozenset[int | None]) -> Slot | None:
    """A slot of one kind of edit, of one thing or the background.

    Args:
        scene: The base scene of the class.
        kind: One of ONE_EDIT.
        rng: Draws the thing, its places and its replacements.
        avoid: Cells (None = background) that other slots touch.

    Returns:
        The slot, or None where the scene has no room for one.
    """
    if kind == "background":
        others = [b for b in BACKGROUNDS if b != scene.background]
        return None if None in avoid else (None, *(Edit(kind, background=b) for b in others))
    empty = [cell for cell in scene.empty if cell not in avoid]
    cells = empty if kind == "add" else [cell for cell in scene.occupied if cell not in avoid]
    if not cells or (kind == "move" and not empty):
        return None
    cell = rng.choice(cells)
    if kind == "add":
        return None, Edit(kind, cell, random_thing(rng))
    if kind == "remove":
        return None, Edit(kind, cell)
    if kind == "move":
        places = rng.sample(empty, min(PLACES, len(empty)))
        return None, *(Edit(kind, cell, to_cell=place) for place in places)
    thing = scene.thing(cell)
    if kind == "replace":
        fresh = {random_thing(rng): None for _ in range(REPLACEMENTS)}
        return None, *(Edit(kind, cell, other) for other in fresh if other != thing)
    values = [value for value in ATTRIBUTES[kind] if value != getattr(thing, kind)]
    return None, *(Edit(kind, cell, replace(thing, **{kind: value})) for value in values)


def draw_range(rng: Random) -> list[Scene]:
    """Different scenes of one product range, none of them held out, in random order."""
    while True:
        base = sample_scenes(rng, 1, held_out=False)[0]
        wanted = rng.choice(RANGE_SLOTS)
        slots: list[Slot] = []
        avoid: frozenset[int | None] = frozenset()
        for kind in rng.choices(KINDS, k=TRIES):
            enough = len(slots) >= wanted and prod(map(len, slots)) >= ENOUGH
            if enough or len(slots) == MOST_SLOTS:
                break
            slot = draw_slot(base, kind, rng, avoid)
            if slot is not None:
                slots.append(slot)
                avoid = avoid.union(*(edit.touched for edit in slot if edit is not None))
        scenes = [scene for scene in combinations(base, slots) if _fits(scene)]
        if len(scenes) >= LEAST:
            return rng.sample(scenes, min(RANGE, len(scenes)))


def draw_set(rng: Random) -> list[Scene]:
    """A scene and its relatives, one edit apart from it or from another, none held out."""
    relatives = sample_scenes(rng, 1, held_out=False)
    while len(relatives) < SET:
        origin = relatives[0] if rng.random() < NEAR else rng.choice(relatives)
        scene = random_edit(origin, rng, KINDS, most=MAX_THINGS).apply(origin)
        if _fits(scene) and scene not in relatives:
            relatives.append(scene)
    return relatives


COLLECTIONS: Mapping[str, Callable[[Random], list[Scene]]] = {
    "ranges": draw_range,
    "sets": draw_set,
}
"""Collection -> the function that draws one of its classes."""


def combinations(base: Scene, slots: Sequence[Slot]) -> list[Scene]:
    """The scene for every combination of the slots' edits, without repeats."""
    scenes: dict[Scene, None] = {}
    for edits in product(*slots):
        scene = base
        for edit in edits:
            scene = scene if edit is None else edit.apply(scene)
        scenes[scene] = None
    return list(scenes)


def _fits(scene: Scene) -> bool:
    return 1 <= len(scene.occupied) <= MAX_THINGS and not is_held_out(scene)


def draw_classes(name: str, images: int, seed: int) -> list[list[Scene]]:
    """Classes of a collection until they hold `images` scenes in all.

    Args:
        name: One of COLLECTIONS.
        images: Fewest scenes; a scene may occur in two classes.
        seed: Of all that is drawn.
    """
    rng = Random(f"{name} {seed}")
    classes: list[list[Scene]] = []
    count = 0
    while count < images:
        classes.append(COLLECTIONS[name](rng))
        count += len(classes[-1])
    return classes


def write_unlabelled(root: Path, size: UnlabelledSize, seed: int) -> dict[str, Path]:
    """Write both collections below `root`, a folder of PNG files for each class.

    A root whose `unlabelled.json` names the same size and seed is left as it is.

    Returns:
        Folder by collection, to be ingested with the class folders as meta classes.
    """
    folders = {name: root / name for name in COLLECTIONS}
    marker = root / "unlabelled.json"
    note = {"seed": seed, **asdict(size)}
    if marker.is_file() and json.loads(marker.read_text()) == note:
        return folders
    marker.unlink(missing_ok=True)  # until all is drawn, no collection is here
    for number, (name, folder) in enumerate(folders.items()):
        for old in folder.glob("*/*.png"):  # of collections drawn here before
            old.unlink()
        for i, scenes in enumerate(draw_classes(name, getattr(size, name), seed)):
            place = folder / f"{name}-{i:05d}"
            place.mkdir(parents=True, exist_ok=True)
            pictures = draw_batch(scenes, np.random.default_rng([seed, number, i]))
            for k, picture in enumerate(pictures):
                Image.fromarray(picture).save(place / f"{k:02d}.png")
    marker.write_text(json.dumps(note, indent=1))
    return folders
