"""Texts that point at a thing by another one, and at two things by their number.

"make the object to the left of the red circle blue", "paint both stars green". A thing lies to the
left of another if its column does, and above it if its row does. A text points at one thing, or
at all things of its description and at no other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from embedded_world.edits import Edit
from embedded_world.modification_texts import forms, modification_text
from embedded_world.scenes import ATTRIBUTES, GRID, MAX_THINGS, SHAPES, Scene
from embedded_world.words import BOTH, PLURALS, RELATIONS

GROUPED: Final = (*ATTRIBUTES, "remove")
"""Kinds of edit that a text may ask of two things at once."""
_NOUN_SHARE: Final = 0.3
"""Share of pointing phrases that name the shape where it may be named."""


def lies(cell: int, relation: str, anchor: int) -> bool:
    """Whether a cell lies in this relation to another one."""
    (row, column), (own_row, own_column) = divmod(cell, GRID), divmod(anchor, GRID)
    return {
        "to the left of": column < own_column,
        "to the right of": column > own_column,
        "above": row < own_row,
        "below": row > own_row,
    }[relation]


def relations(scene: Scene, cell: int) -> list[str]:
    """All phrases that point at a thing by another: "the object above the red circle".

    The other one is the only thing of its colour and shape, and what is pointed at is the only
    object, or the only thing of its shape, that lies so.
    """
    found = []
    thing = scene.thing(cell)
    for anchor in scene.occupied:
        other = scene.thing(anchor)
        looks = [(each.colour, each.shape) for each in map(scene.thing, scene.occupied)]
        if anchor == cell or looks.count((other.colour, other.shape)) > 1:
            continue
        for relation in RELATIONS:
            so = [c for c in scene.occupied if c != anchor and lies(c, relation, anchor)]
            if cell not in so:
                continue
            there = f"{relation} the {other.colour} {other.shape}"
            if len(so) == 1:
                found.append(f"the object {there}")
            if [scene.thing(c).shape for c in so].count(thing.shape) == 1:
                found.append(f"the {thing.shape} {there}")
    return found


def by_relation(edit: Edit, scene: Scene, rng: Random) -> str | None:
    """Say an edit of a thing that is pointed at by another one; None where it cannot be.

    No thing that moves is said so: "move it to the left of the star to the top" reads badly.
    """
    if edit.kind in ("background", "add", "move") or edit.cell is None:
        return None
    pointing = relations(scene, edit.cell)
    nouns = [each for each in pointing if not each.startswith("the object")]
    chosen = nouns if nouns and rng.random() < _NOUN_SHARE else pointing
    return rng.choice(forms(edit, scene, rng.choice(chosen))) if chosen else None


def groups(scene: Scene) -> dict[str, tuple[int, int]]:
    """Pairs of things by what is said of exactly these two: "objects", "red objects", "stars"."""
    found: dict[str, list[int]] = {}
    for cell in scene.occupied:
        thing = scene.thing(cell)
        objects = PLURALS["object"]
        for name in (objects, f"{thing.colour} {objects}", PLURALS[thing.shape]):
            found.setdefault(name, []).append(cell)
    return {name: (cells[0], cells[1]) for name, cells in found.items() if len(cells) == 2}


def group_edits(scene: Scene, shapes: Sequence[str] = SHAPES) -> Iterator[tuple[str, Edit, Edit]]:
    """Every change of two things at once, with what is said of the two; both of them change."""
    values = {**ATTRIBUTES, "shape": tuple(shapes)}
    for name, cells in groups(scene).items():
        one, other = map(scene.thing, cells)
        for kind, choices in values.items():
            for value in choices:
                if value not in (getattr(one, kind), getattr(other, kind)):
                    first, second = (
                        Edit(kind, cell, replace(scene.thing(cell), **{kind: value}))
                        for cell in cells
                    )
                    yield name, first, second
        if len(scene.occupied) == MAX_THINGS:
            yield name, Edit("remove", cells[0]), Edit("remove", cells[1])


def group_text(name: str, edit: Edit, rng: Random) -> str:
    """Say an edit of two things at once; `edit` is either of both."""
    it = f"{rng.choice(BOTH)} {name}"
    if edit.kind == "remove":
        return f"{rng.choice(('remove', 'delete', 'take away'))} {it}"
    assert edit.thing is not None
    value = getattr(edit.thing, edit.kind)
    if edit.kind == "shape":
        return f"{rng.choice(('turn', 'change'))} {it} into {PLURALS[value]}"
    if edit.kind == "colour":
        return rng.choice((f"make {it} {value}", f"change {it} to {value}", f"paint {it} {value}"))
    if edit.kind == "size":
        return f"make {it} {rng.choice((value, 'bigger' if value == 'large' else 'smaller'))}"
    return rng.choice((f"make {it} {value}", f"change {it} to {value}"))


def by_relations(edits: Sequence[Edit], scene: Scene, rng: Random) -> list[str] | None:
    """Say edits of one scene, by relations where that can be; None where it can be of none."""
    pointed = [by_relation(edit, scene, rng) for edit in edits]
    if not any(pointed):
        return None
    pairs = zip(pointed, edits, strict=True)
    return [text or modification_text(edit, scene, rng) for text, edit in pairs]
