"""An independent reader of the embedded world's instructions, for checking what is right.

It knows the language from its description, not from the grammar's code: plain dictionaries of
scenes, one regular expression per kind of instruction, and every fitting scene written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Looks = tuple[str | None, str | None, str, str]
"""Size, fill (None: left open), colour and shape of one thing."""
Picture = tuple[str, tuple[Looks | None, ...]]
"""Background and the nine cells in reading order."""

PLACES = ("top left", "top", "top right", "left", "center", "right")
PLACES += ("bottom left", "bottom", "bottom right")
WORDS = {
    "size": "small|large",
    "fill": "solid|striped|outlined",
    "colour": "red|orange|yellow|green|blue|purple|pink|cyan",
    "shape": "circle|square|triangle|star|cross|heart",
}
_PLACE = r"(?:at|on|in|to) the (top left|top right|bottom left|bottom right|top|left|center|right"
_PLACE += r"|bottom)"
_THING = rf"an? (?:({WORDS['size']}) )?(?:({WORDS['fill']}) )?({WORDS['colour']}) "
_THING += rf"({WORDS['shape']})"
_IT = rf"the (?:(?:({WORDS['colour']}) )?({WORDS['shape']})|object)(?: {_PLACE})?"


def picture_of(caption: str) -> Picture:
    """Read a canonical caption."""
    *placed, ground = caption.split(", ")
    cells: list[Looks | None] = [None] * 9
    for phrase in placed:
        match = re.fullmatch(f"{_PLACE} {_THING}", phrase)
        assert match, phrase
        place, *looks = match.groups()
        cells[PLACES.index(place)] = tuple(looks)  # type: ignore[call-overload]
    found = re.fullmatch(r"on a (\w+) background", ground)
    assert found, ground
    return found[1], tuple(cells)


def edited(picture: Picture, text: str) -> Picture:
    """What an instruction makes of a picture; open sizes and fills stay None."""
    background, cells = picture
    text = _position_last(text)
    for pattern in (
        r"(?:change the background to|make the background) (\w+)",
        r"put it on a (\w+) background",
    ):
        if match := re.fullmatch(pattern, text):
            return match[1], cells
    after = list(cells)
    if match := re.fullmatch(f"(?:add|put|draw) {_THING} {_PLACE}", text):
        *looks, place = match.groups()
        cell = PLACES.index(place)
        assert after[cell] is None, f"{text}: the cell is taken"
        after[cell] = tuple(looks)  # type: ignore[call-overload]
        return background, tuple(after)
    if match := re.fullmatch(f"(?:remove|delete|take away) {_IT}", text):
        after[_pointed_at(cells, *match.groups())] = None
        return background, tuple(after)
    if match := re.fullmatch(f"(?:move|shift) {_IT} {_PLACE}", text):
        *it, goal = match.groups()
        source = _pointed_at(cells, *it)
        assert after[PLACES.index(goal)] is None, f"{text}: the goal is taken"
        after[PLACES.index(goal)], after[source] = after[source], None
        return background, tuple(after)
    if match := re.fullmatch(f"(?:replace {_IT} with|swap {_IT} for) {_THING}", text):
        first, second, looks = match.groups()[:3], match.groups()[3:6], match.groups()[6:]
        it = first if text.startswith("replace") else second
        after[_pointed_at(cells, *it)] = looks  # type: ignore[call-overload]
        return background, tuple(after)
    match = re.fullmatch(rf"(?:make|change|paint|turn) {_IT}(?: to| into)?(?: an?)? (\w+)", text)
    assert match, text
    *it, word = match.groups()
    cell = _pointed_at(cells, *it)
    word = {"bigger": "large", "smaller": "small"}.get(word, word)
    which = next(i for i, names in enumerate(WORDS.values()) if word in names.split("|"))
    looks = list(after[cell] or ())
    assert looks[which] != word, f"{text}: nothing changes"
    looks[which] = word
    after[cell] = tuple(looks)  # type: ignore[call-overload]
    return background, tuple(after)


def fits(wanted: Picture, shown: Picture) -> bool:
    """Whether a picture shows what is wanted; what is open fits anything."""
    if wanted[0] != shown[0]:
        return False
    for want, have in zip(wanted[1], shown[1], strict=True):
        if (want is None) != (have is None):
            return False
        if want and have and any(w not in (None, h) for w, h in zip(want, have, strict=True)):
            return False
    return True


def showing(wanted: Picture, pictures: Mapping[str, Picture]) -> set[str]:
    """Names of all pictures that show what is wanted."""
    return {name for name, picture in pictures.items() if fits(wanted, picture)}


def _position_last(text: str) -> str:
    """Bring a position that was put first back to the thing that it belongs to."""
    match = re.fullmatch(rf"({_PLACE}) (.*)", text)
    if not match:
        return text
    place, rest = match[1], match[3]
    if re.fullmatch(f"(?:add|put|draw) {_THING}", rest):
        return f"{rest} {place}"
    return re.sub(
        rf"(the (?:(?:(?:{WORDS['colour']}) )?(?:{WORDS['shape']})|object))\b",
        rf"\1 {place}",
        rest,
        count=1,
    )


def _pointed_at(
    cells: Iterable[Looks | None], colour: str | None, shape: str | None, place: str | None
) -> int:
    """The one thing that a phrase points at; anything else is ambiguous."""
    found = [
        cell
        for cell, looks in enumerate(cells)
        if looks
        and colour in (None, looks[2])
        and shape in (None, looks[3])
        and place in (None, PLACES[cell])
    ]
    assert len(found) == 1, f"the {colour} {shape} at {place} points at {len(found)} things"
    return found[0]
