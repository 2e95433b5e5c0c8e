"""Modification texts in a style that the shipped text generator was never taught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from embedded_world.captions import caption
from embedded_world.scenes import COLOURS, Scene, sample_scenes
from embedded_world.words import AT


def recoloured_pairs(
    seed: int, count: int, *, held_out: bool = False
) -> Iterator[tuple[str, str, str]]:
    """(caption A, caption B, text) of drawn scenes of which one thing changes its colour.

    The text reads "the red circle at the top left into blue": thing first, and no verb. Its words
    are ones that the generator was trained on, because the embeddings of those that it was not are
    all alike, and an adapter of linear layers cannot tell them apart.
    """
    chance = Random(seed)
    for scene in sample_scenes(chance, count, held_out=held_out, least=2, most=3):
        cell = chance.choice(scene.occupied)
        thing = scene.thing(cell)
        colour = chance.choice([c for c in COLOURS if c != thing.colour])
        changed = list(scene.cells)
        changed[cell] = replace(thing, colour=colour)
        text = f"the {thing.colour} {thing.shape} {AT[cell]} into {colour}"
        yield caption(scene), caption(Scene(scene.background, tuple(changed))), text
