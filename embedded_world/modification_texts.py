"""Modification texts: edits said as instructions, in several templates per kind of edit."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from embedded_world.captions import name_thing
from embedded_world.edits import NOTHING_ADDED, ONE_EDIT, Edit
from embedded_world.scenes import COLOURS, SHAPES, Scene, random_thing
from embedded_world.words import AT, TO, article


def refer(scene: Scene, cell: int, rng: Random | None = None) -> str:
    """A phrase that points at one thing; shorter ones only where they are unambiguous."""
    thing = scene.thing(cell)
    full = f"the {thing.colour} {thing.shape} {AT[cell]}"
    if rng is None:
        return full
    others = [scene.thing(c) for c in scene.occupied if c != cell]
    choice = rng.random()
    if choice < 0.2 and all(o.shape != thing.shape for o in others):
        return f"the {thing.shape}"
    if choice < 0.5 and all((o.colour, o.shape) != (thing.colour, thing.shape) for o in others):
        return f"the {thing.colour} {thing.shape}"
    if choice < 0.6:
        return f"the object {AT[cell]}"
    return full


def modification_text(
    edit: Edit, scene: Scene, rng: Random | None = None, *, position_first: float = 0.25
) -> str:
    """Say an edit as an instruction, e.g. "turn the red circle into a square".

    Args:
        edit: The change.
        scene: The scene before the edit.
        rng: Draws the template and the way of pointing at the thing; None = the plainest form.
        position_first: Share of texts naming a place that begin with it.
    """
    it = "" if edit.cell is None or edit.kind == "add" else refer(scene, edit.cell, rng)
    templates = forms(edit, scene, it)
    if rng is None:
        return templates[0]
    text = rng.choice(templates)
    place = next((at for at in sorted(AT, key=len, reverse=True) if at in text), None)
    if place is not None and rng.random() < position_first:
        text = f"{place} {text.replace(' ' + place, '', 1)}"
    return text


def forms(edit: Edit, scene: Scene, it: str) -> list[str]:
    """All templates of an edit; `it` points at the thing that changes."""
    if edit.kind == "background":
        new = edit.background
        return [
            f"change the background to {new}",
            f"make the background {new}",
            f"put it on a {new} background",
        ]
    if edit.kind == "remove":
        return [f"remove {it}", f"delete {it}", f"take away {it}"]
    if edit.kind == "move":
        assert edit.to_cell is not None
        return [f"move {it} {TO[edit.to_cell]}", f"shift {it} {TO[edit.to_cell]}"]
    assert edit.thing is not None
    assert edit.cell is not None
    thing = edit.thing
    if edit.kind == "add":
        return [f"{verb} {name_thing(thing)} {AT[edit.cell]}" for verb in ("add", "put", "draw")]
    if edit.kind == "replace":
        new = name_thing(thing)
        return [f"replace {it} with {new}", f"swap {it} for {new}"]
    if edit.kind == "colour":
        new = thing.colour
        return [f"make {it} {new}", f"change {it} to {new}", f"paint {it} {new}"]
    if edit.kind == "shape":
        new = f"{article(thing.shape)} {thing.shape}"
        return [f"turn {it} into {new}", f"change {it} into {new}"]
    if edit.kind == "size":
        relative = "bigger" if thing.size == "large" else "smaller"
        return [f"make {it} {thing.size}", f"make {it} {relative}"]
    return [f"make {it} {thing.fill}", f"change {it} to {thing.fill}"]


def join_texts(texts: Sequence[str]) -> str:
    """Join the texts of several edits into one instruction."""
    return " and ".join(texts)


def join_added(edits: Sequence[Edit]) -> str:
    """The things that several edits bring in, comma-separated, or "none"."""
    names = [edit.added() for edit in edits if edit.added() != NOTHING_ADDED]
    return ", ".join(names) or NOTHING_ADDED


def statement(scene: Scene, rng: Random) -> str:
    """An instruction that this picture already satisfies.

    It is about one picture, without a picture before, so that text encoders can learn the words
    of modification texts from single pictures.
    """
    kind = rng.choice(ONE_EDIT)
    if kind == "background":
        return rng.choice(forms(Edit(kind, background=scene.background), scene, ""))
    if kind == "remove":
        cell = rng.choice(scene.empty)
        gone = random_thing(rng)
        return rng.choice(
            forms(Edit(kind, cell), scene, f"the {gone.colour} {gone.shape} {AT[cell]}")
        )
    cell = rng.choice(scene.occupied)
    thing = scene.thing(cell)
    it = rng.choice(
        [f"the {thing.shape}", f"the {thing.colour} {thing.shape}", f"the object {AT[cell]}"]
    )
    if kind == "move":
        return rng.choice(forms(Edit(kind, cell, to_cell=cell), scene, it))
    if kind == "replace":
        old = random_thing(rng)
        it = f"the {old.colour} {old.shape} {AT[cell]}"
    if kind == "shape":
        it = f"the {thing.colour} {rng.choice(SHAPES)} {AT[cell]}"
    if kind == "colour":
        it = f"the {rng.choice(COLOURS)} {thing.shape} {AT[cell]}"
    if kind in ("add", "replace"):
        size = thing.size if rng.random() < 0.7 else None
        fill = thing.fill if rng.random() < 0.7 else None
        thing = replace(thing, size=size, fill=fill)
    return rng.choice(forms(Edit(kind, cell, thing), scene, it))
