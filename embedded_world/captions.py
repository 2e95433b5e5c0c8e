"""Captions of drawn scenes: written in canonical or varied words, and read back.

A caption names each thing position first, cells in reading order: "at the top left a small striped
red circle, in the center a large solid blue star, on a white background". Varied captions use
synonyms, another order or a lead-in, and may leave attributes out.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    make_scene,
)
from embedded_world.words import AT, AT_ALT, LEAD_INS, PLAIN, SYNONYMS, article, with_synonyms


def name_thing(thing: Thing, rng: Random | None = None, synonyms: float = 0.25) -> str:
    """Noun phrase of a thing, e.g. "a small striped red circle"; None attributes stay unsaid."""
    words = [w for w in (thing.size, thing.fill, thing.colour, thing.shape) if w is not None]
    if rng is not None:
        words = [
            rng.choice(SYNONYMS[w]) if w in SYNONYMS and rng.random() < synonyms else w
            for w in words
        ]
    return " ".join([article(words[0]), *words])


def caption(scene: Scene) -> str:
    """The canonical caption: reading order, position first, background last."""
    parts = [f"{AT[cell]} {name_thing(scene.thing(cell))}" for cell in scene.occupied]
    if scene.background is not None:
        parts.append(f"on a {scene.background} background")
    return ", ".join(parts)


def varied_caption(
    scene: Scene,
    rng: Random,
    *,
    shuffle: bool = False,
    synonyms: float = 0.25,
    lead_in: float = 0.15,
) -> str:
    """Another wording of the same facts.

    Args:
        scene: The facts; None attributes stay unsaid.
        rng: Source of variation.
        shuffle: Also change the order of the things.
        synonyms: Probability of a synonym for each word that has one.
        lead_in: Probability of an opening such as "in this picture".
    """
    cells = scene.occupied
    if shuffle:
        rng.shuffle(cells)
    parts = [
        f"{(AT_ALT if rng.random() < synonyms else AT)[cell]} "
        f"{name_thing(scene.thing(cell), rng, synonyms)}"
        for cell in cells
    ]
    if scene.background is not None:
        colour = scene.background
        if colour in SYNONYMS and rng.random() < synonyms:
            colour = rng.choice(SYNONYMS[colour])
        alt = rng.random() < synonyms
        ground = f"with a {colour} backdrop" if alt else f"on a {colour} background"
        parts.insert(0 if rng.random() < 0.3 else len(parts), ground)
    text = ", ".join(parts)
    return f"{rng.choice(LEAD_INS)} {text}" if rng.random() < lead_in else text


def leave_open(scene: Scene, rng: Random, share: float) -> Scene:
    """Drop each size, each fill and the background with probability `share`."""

    def drop(value: str | None) -> str | None:
        return None if rng.random() < share else value

    cells = tuple(
        None if thing is None else replace(thing, size=drop(thing.size), fill=drop(thing.fill))
        for thing in scene.cells
    )
    return Scene(drop(scene.background), cells)


def _any_of(words: Sequence[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_THING = (
    rf"an? (?:(?P<size>{_any_of(with_synonyms(SIZES))}) )?"
    rf"(?:(?P<fill>{_any_of(with_synonyms(FILLS))}) )?"
    rf"(?P<colour>{_any_of(with_synonyms(COLOURS))}) (?P<shape>{_any_of(with_synonyms(SHAPES))})"
)
_PLACED = re.compile(rf"(?P<place>{_any_of(AT + AT_ALT)}) {_THING}(?![a-z])")
_GROUND = re.compile(r"(?:on|with) a (\w+) (?:background|backdrop)")
_WHOLE = re.compile(
    rf"(?:(?:{_any_of(LEAD_INS)}) )?(?:(?:{_PLACED.pattern}|{_GROUND.pattern})(?:, |$))+".replace(
        "?P<", "?P<whole_"
    )
)


def _thing_of(match: re.Match[str]) -> Thing:
    said = {k: match[k] and PLAIN.get(match[k], match[k]) for k in ("size", "fill")}
    colour, shape = (PLAIN.get(match[k], match[k]) for k in ("colour", "shape"))
    return Thing(said["size"], said["fill"], colour, shape)


def parse_thing(text: str) -> Thing | None:
    """Read one noun phrase; None when it is not one."""
    match = re.fullmatch(_THING, text)
    return _thing_of(match) if match else None


def parse_caption(text: str) -> Scene | None:
    """Read a caption back into a scene.

    Returns:
        The scene, with None for unsaid attributes, or None when the text is not wholly made of
        known phrases, names a cell twice or names an unknown background.
    """
    if not _WHOLE.fullmatch(text):
        return None
    things: dict[int, Thing] = {}
    for match in _PLACED.finditer(text):
        place = match["place"]
        cell = (AT if place in AT else AT_ALT).index(place)
        if cell in things:
            return None
        things[cell] = _thing_of(match)
    grounds = [PLAIN.get(g, g) for g in _GROUND.findall(text)]
    if len(grounds) > 1 or any(g not in BACKGROUNDS for g in grounds):
        return None
    return make_scene(grounds[0] if grounds else None, things)
