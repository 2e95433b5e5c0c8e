"""A strict reader of modification texts: the changes that an instruction states about a scene.

It shares no code with the templates of `modification_texts`, so it can judge texts of any writer.
It reads canonical words only and refuses a text that is not wholly clear.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedded_world.scenes import ATTRIBUTES, BACKGROUNDS, Scene, Thing

_PLACES = (
    *("top left", "top", "top right", "left", "center", "right"),
    *("bottom left", "bottom", "bottom right"),
)
_PREPOSITIONS = {"left": "on", "right": "on", "center": "in"}
_AT = tuple(f"{_PREPOSITIONS.get(place, 'at')} the {place}" for place in _PLACES)
_TO = tuple(f"to the {place}" for place in _PLACES)
_RELATIVE = {"bigger": "large", "smaller": "small"}


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(words)})"


_COLOUR, _SHAPE = _any(ATTRIBUTES["colour"]), _any(ATTRIBUTES["shape"])
_NEW = (
    rf"an? (?:(?P<new_size>{_any(ATTRIBUTES['size'])}) )?"
    rf"(?:(?P<new_fill>{_any(ATTRIBUTES['fill'])}) )?"
    rf"(?P<new_colour>{_COLOUR}) (?P<new_shape>{_SHAPE})"
)
_PLACE = rf"(?: (?P<place>{_any(_AT)}))?"
_FROM = (
    r" (?P<relation>to the left of|to the right of|above|below)"
    rf" the (?P<from_colour>{_COLOUR}) (?P<from_shape>{_SHAPE})"
)
_IT = rf"the (?:(?:(?P<old_colour>{_COLOUR}) )?(?P<old_shape>{_SHAPE})|object)(?:{_PLACE}|{_FROM})"
_SHAPES = {f"{shape}{'es' if shape == 'cross' else 's'}": shape for shape in ATTRIBUTES["shape"]}
_TWO = (
    rf"(?:both|the two) (?:(?:(?P<old_colour>{_COLOUR}) )?objects|(?P<old_shape>{_any(_SHAPES)}))"
)
_SIZE = _any((*ATTRIBUTES["size"], *_RELATIVE))
_FILL, _GROUND = _any(ATTRIBUTES["fill"]), _any(BACKGROUNDS)

_FORMS = tuple(
    (slot, re.compile(rf"(?:(?P<first>{_any(_AT)}) )?{form}"))
    for slot, form in (
        ("background", rf"(?:change the background to|make the background) (?P<to>{_GROUND})"),
        ("background", rf"put it on a (?P<to>{_GROUND}) background"),
        ("new", rf"(?:add|put|draw) {_NEW}{_PLACE}"),
        ("new", rf"replace {_IT} with {_NEW}"),
        ("new", rf"swap {_IT} for {_NEW}"),
        ("gone", rf"(?:remove|delete|take away) {_IT}"),
        ("moved", rf"(?:move|shift) {_IT} (?P<to>{_any(_TO)})"),
        ("colour", rf"(?:make|paint) {_IT} (?P<to>{_COLOUR})"),
        ("colour", rf"change {_IT} to (?P<to>{_COLOUR})"),
        ("shape", rf"(?:turn|change) {_IT} into an? (?P<to>{_SHAPE})"),
        ("size", rf"make {_IT} (?P<to>{_SIZE})"),
        ("fill", rf"make {_IT} (?P<to>{_FILL})"),
        ("fill", rf"change {_IT} to (?P<to>{_FILL})"),
    )
)


_OF_TWO = tuple(
    (slot, re.compile(form))
    for slot, form in (
        ("gone", rf"(?:remove|delete|take away) {_TWO}"),
        ("colour", rf"(?:make|paint) {_TWO} (?P<to>{_COLOUR})"),
        ("colour", rf"change {_TWO} to (?P<to>{_COLOUR})"),
        ("shape", rf"(?:turn|change) {_TWO} into (?P<to>{_any(_SHAPES)})"),
        ("size", rf"make {_TWO} (?P<to>{_SIZE})"),
        ("fill", rf"make {_TWO} (?P<to>{_FILL})"),
        ("fill", rf"change {_TWO} to (?P<to>{_FILL})"),
    )
)


@dataclass(frozen=True)
class Change:
    """One thing that an instruction states.

    Attributes:
        slot: `background`; `size`, `fill`, `colour` or `shape` of the thing in `cell`; `gone` or
            `new` or `moved` for the thing that leaves the cell, or is described in it, or comes.
        cell: Where; None for the background.
        value: The new background or attribute.
        thing: The thing in the cell afterwards, for `new` and `moved`.
    """

    slot: str
    cell: int | None
    value: str | None = None
    thing: Thing | None = None

    def agrees(self, scene: Scene) -> bool:
        """Whether a scene is as stated here; an open attribute is not as stated.

        Of a moved thing it is only stated that it is the same one.
        """
        if self.slot == "background":
            return scene.background == self.value
        assert self.cell is not None
        there = scene.cells[self.cell]
        if self.slot == "gone" or there is None:
            return self.slot == "gone" and there is None
        if self.thing is None:
            return getattr(there, self.slot) == self.value
        if self.slot == "new":
            return self.thing.matches(there)
        pairs = [(getattr(self.thing, slot), getattr(there, slot)) for slot in ATTRIBUTES]
        return all(None in pair or pair[0] == pair[1] for pair in pairs)

    def apply(self, scene: Scene) -> Scene:
        """The scene with this stated."""
        if self.slot == "background":
            return replace(scene, background=self.value)
        assert self.cell is not None
        if self.slot in ATTRIBUTES:
            named: dict[str, Any] = {self.slot: self.value}
            return scene.put(self.cell, replace(scene.thing(self.cell), **named))
        return scene.put(self.cell, self.thing)

    def collides(self, other: "Change") -> bool:
        """Whether both speak about the same attribute, thing or background."""
        if self.cell != other.cell:
            return False
        return self.slot == other.slot or not {self.slot, other.slot} <= set(ATTRIBUTES)


def read_instruction(text: str, scene: Scene) -> list[Change] | None:
    """The changes that an instruction states about a scene.

    Several instructions may be joined by "and"; all of them speak about the scene before.

    Returns:
        The changes in the order of the text (a move is two, and so is what is said of two things),
        or None when a part is not in a
        known form, points at nothing or at several things, brings a thing to a cell that is
        taken, changes nothing, or collides with another part.
    """
    stated: list[Change] = []
    for clause in text.split(" and "):
        changes = _read_clause(clause, scene)
        if not changes or any(new.collides(old) for new in changes for old in stated):
            return None
        stated += changes
    return stated


def apply_instruction(text: str, scene: Scene) -> Scene | None:
    """The scene after an instruction, or None where `read_instruction` refuses the text."""
    changes = read_instruction(text, scene)
    if changes is None:
        return None
    for change in changes:
        scene = change.apply(scene)
    return scene


def _read_clause(clause: str, scene: Scene) -> Sequence[Change]:
    """The changes that one form states; empty where the clause is refused."""
    for slot, pattern in _FORMS:
        match = pattern.fullmatch(clause)
        if match is not None:
            return _stated(slot, match, scene)
    for slot, pattern in _OF_TWO:
        match = pattern.fullmatch(clause)
        if match is not None:
            return _stated_of_two(slot, match.groupdict(), scene)
    return ()


def _stated_of_two(slot: str, said: dict[str, str], scene: Scene) -> Sequence[Change]:
    """What is stated of two things at once; both must change."""
    described = said | {"old_shape": _SHAPES.get(said["old_shape"])}
    cells = [cell for cell in scene.occupied if _fits(scene.thing(cell), described)]
    if len(cells) != 2:
        return ()
    if slot == "gone":
        return [Change(slot, cell) for cell in cells]
    value = _SHAPES.get(said["to"], _RELATIVE.get(said["to"], said["to"]))
    if any(getattr(scene.thing(cell), slot) == value for cell in cells):
        return ()
    return [Change(slot, cell, value) for cell in cells]


def _stated(slot: str, match: re.Match[str], scene: Scene) -> Sequence[Change]:
    said = match.groupdict()
    if said["first"] and (slot == "background" or said["place"]):
        return ()
    named = said["first"] or said.get("place")
    place = _AT.index(named) if named else None
    if slot == "background":
        return () if said["to"] == scene.background else (Change(slot, None, said["to"]),)
    new = _new_thing(said) if slot == "new" else None
    if "old_shape" not in said:  # a thing is added
        free = place is not None and scene.cells[place] is None
        return (Change(slot, place, thing=new),) if free else ()
    cells = [cell for cell in scene.occupied if _fits(scene.thing(cell), said)]
    found = [cell for cell in cells if place in (None, cell)]
    if said["relation"]:
        found = [] if place is not None else _lying(found, said, scene)
    if len(found) != 1:
        return ()
    cell, thing = found[0], scene.thing(found[0])
    if slot == "gone":
        return (Change(slot, cell),)
    if slot == "new":
        return () if new == thing else (Change(slot, cell, thing=new),)
    if slot == "moved":
        goal = _TO.index(said["to"])
        free = scene.cells[goal] is None
        return (Change("gone", cell), Change(slot, goal, thing=thing)) if free else ()
    value = _RELATIVE.get(said["to"], said["to"])
    return () if value == getattr(thing, slot) else (Change(slot, cell, value),)


def _lying(cells: Sequence[int], said: dict[str, str], scene: Scene) -> list[int]:
    """The cells that lie so from the one thing that is named; none where several are."""
    colour, shape = said["from_colour"], said["from_shape"]
    looks = [(scene.thing(cell).colour, scene.thing(cell).shape) for cell in scene.occupied]
    if looks.count((colour, shape)) != 1:
        return []
    anchor = scene.occupied[looks.index((colour, shape))]
    across, down = anchor % 3, anchor // 3
    lying = {
        "to the left of": lambda cell: cell % 3 < across,
        "to the right of": lambda cell: cell % 3 > across,
        "above": lambda cell: cell // 3 < down,
        "below": lambda cell: cell // 3 > down,
    }[said["relation"]]
    return [cell for cell in cells if cell != anchor and lying(cell)]


def _new_thing(said: dict[str, str]) -> Thing:
    return Thing(said["new_size"], said["new_fill"], said["new_colour"], said["new_shape"])


def _fits(thing: Thing, said: Mapping[str, str | None]) -> bool:
    return said["old_colour"] in (None, thing.colour) and said["old_shape"] in (None, thing.shape)
