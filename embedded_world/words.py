"""Words and fixed phrases of the embedded world's language."""

from collections.abc import Sequence

from embedded_world.scenes import BACKGROUNDS, COLOURS, FILLS, NUM_CELLS, SHAPES, SIZES

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
RELATIONS = ("to the left of", "to the right of", "above", "below")
"""Where a thing lies from another one, by columns or rows alone."""
PLURALS = {
    **{shape: f"{shape}s" for shape in SHAPES},
    "cross": "crosses",
    "object": "objects",
}
BOTH = ("both", "the two")
POINTING_WORDS = ("above", "below", "both", "two", *PLURALS.values())
"""Words that point at things by others and by their number. They are not among `phrases`: the
models that were trained before there were such texts have no tokens for them."""
LEAD_INS = ("in this picture", "the image shows", "one can see")


def article(word: str) -> str:
    """The indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def with_synonyms(words: Sequence[str]) -> list[str]:
    """The words, and then all their synonyms."""
    return [*words, *(s for w in words for s in SYNONYMS.get(w, ()))]


_SMALL_WORDS = """
a an , . and the object background backdrop it on to with into for that of
change make put remove delete take away move shift add draw replace swap paint turn
bigger smaller none photo picture image should have has in there is
"""


def phrases() -> list[str]:
    """Every fixed multi-word phrase and word of the language, without repeats."""
    words = [*AT, *AT_ALT, *TO, *LEAD_INS]
    words += with_synonyms([*SIZES, *FILLS, *COLOURS, *SHAPES, *BACKGROUNDS])
    words += [f"on a {b} background" for b in with_synonyms(BACKGROUNDS)]
    words += [f"with a {b} backdrop" for b in with_synonyms(BACKGROUNDS)]
    words += _SMALL_WORDS.split()
    assert len(AT) == NUM_CELLS
    return list(dict.fromkeys(words))
