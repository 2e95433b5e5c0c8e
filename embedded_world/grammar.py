"""The language of the embedded world: captions, modification texts and added objects.

Captions name each thing position first, cells in reading order:
"at the top left a small striped red circle, in the center a large solid blue star, on a white
background". Varied captions use synonyms, another order or a lead-in, and may leave attributes
out. Modification texts come in several templates per kind of edit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    NUM_CELLS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    make_scene,
    random_thing,
)

AT = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the center",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
AT_ALT = (
    "in the upper left",
    "in the upper part",
    "in the upper right",
    "at the left",
    "in the middle",
    "at the right",
    "in the lower left",
    "in the lower part",
    "in the lower right",
)
TO = (
    "to the top left",
    "to the top",
    "to the top right",
    "to the left",
    "to the center",
    "to the right",
    "to the bottom left",
    "to the bottom",
    "to the bottom right",
)
SYNONYMS = {
    "small": ("tiny", "little"),
    "large": ("big", "huge"),
    "outlined": ("hollow",),
    "striped": ("stripy",),
    "solid": ("filled",),
    "circle": ("disc",),
    "square": ("box",),
    "purple": ("violet",),
    "gray": ("grey",),
}
PLAIN = {synonym: word for word, synonyms in SYNONYMS.items() for synonym in synonyms}
LEAD_INS = ("in this picture", "the image shows", "one can see")
NOTHING_ADDED = "none"

ONE_EDIT = ("colour", "shape", "size", "fill", "add", "remove", "background", "move", "replace")
"""Kinds of edit. `add` and `replace` may leave size and fill open."""


# --------------------------------------------------------------------------- captions


def article(word: str) -> str:
    """The indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def name_thing(thing: Thing, rng: Random | None = None, synonyms: float = 0.25) -> str:
    """Noun phrase of a thing, e.g. "a small striped red circle"; what is None is not said."""
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
        scene: What is described; None attributes stay unsaid.
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


def _with_synonyms(words: Sequence[str]) -> list[str]:
    return [*words, *(s for w in words for s in SYNONYMS.get(w, ()))]


_THING = (
    rf"an? (?:(?P<size>{_any_of(_with_synonyms(SIZES))}) )?"
    rf"(?:(?P<fill>{_any_of(_with_synonyms(FILLS))}) )?"
    rf"(?P<colour>{_any_of(_with_synonyms(COLOURS))}) (?P<shape>{_any_of(_with_synonyms(SHAPES))})"
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
        The scene, with None for what is not said, or None when the text is not wholly made of
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


# --------------------------------------------------------------------------- edits


@dataclass(frozen=True)
class Edit:
    """One change of a scene: what `kind` does in `cell`.

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


# --------------------------------------------------------------------------- modification texts


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
        edit: What changes.
        scene: The scene before the edit.
        rng: Draws the template and the way of pointing at the thing; None = the plainest form.
        position_first: Share of texts naming a place that begin with it.
    """
    it = "" if edit.cell is None or edit.kind == "add" else refer(scene, edit.cell, rng)
    forms = _forms(edit, scene, it)
    if rng is None:
        return forms[0]
    text = rng.choice(forms)
    place = next((at for at in sorted(AT, key=len, reverse=True) if at in text), None)
    if place is not None and rng.random() < position_first:
        text = f"{place} {text.replace(' ' + place, '', 1)}"
    return text


def _forms(edit: Edit, scene: Scene, it: str) -> list[str]:
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

    It is what a drawing tool's command line would say of its result: seen alone, without a
    picture before, so that text encoders can learn the words of modification texts from single
    pictures.
    """
    kind = rng.choice(ONE_EDIT)
    if kind == "background":
        return rng.choice(_forms(Edit(kind, background=scene.background), scene, ""))
    if kind == "remove":
        cell = rng.choice(scene.empty)
        gone = random_thing(rng)
        return rng.choice(
            _forms(Edit(kind, cell), scene, f"the {gone.colour} {gone.shape} {AT[cell]}")
        )
    cell = rng.choice(scene.occupied)
    thing = scene.thing(cell)
    it = rng.choice(
        [f"the {thing.shape}", f"the {thing.colour} {thing.shape}", f"the object {AT[cell]}"]
    )
    if kind == "move":
        return rng.choice(_forms(Edit(kind, cell, to_cell=cell), scene, it))
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
    return rng.choice(_forms(Edit(kind, cell, thing), scene, it))


_SMALL_WORDS = """
a an , . and the object background backdrop it on to with into for that of
change make put remove delete take away move shift add draw replace swap paint turn
bigger smaller none photo picture image should have has in there is
"""


def phrases() -> list[str]:
    """Every fixed multi-word phrase and word of the language, without repeats."""
    words = [*AT, *AT_ALT, *TO, *LEAD_INS]
    words += _with_synonyms([*SIZES, *FILLS, *COLOURS, *SHAPES, *BACKGROUNDS])
    words += [f"on a {b} background" for b in _with_synonyms(BACKGROUNDS)]
    words += [f"with a {b} backdrop" for b in _with_synonyms(BACKGROUNDS)]
    words += _SMALL_WORDS.split()
    assert len(AT) == NUM_CELLS
    return list(dict.fromkeys(words))
