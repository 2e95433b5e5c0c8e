"""The embedded vocabulary: concepts of the drawn world, and phrases about them by its grammar.

    python -m embedded_world.recipes.concepts --out models/embedded/concepts

SEARLE's phrases are a language model's. The shipped text generator answers other questions, so
these are written by rule: a photo of a scene with the concept in it, in the words of the world.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from embedded_world.captions import caption
from embedded_world.modification_texts import statement
from embedded_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    NUM_CELLS,
    SHAPES,
    Thing,
    make_scene,
    random_thing,
)

PHRASES = 12
"""Phrases of each concept."""


def things() -> Iterator[Thing]:
    """What is named: a colour and a shape, with or without a fill."""
    for fill in (None, *FILLS):
        for colour in COLOURS:
            for shape in SHAPES:
                yield Thing(None, fill, colour, shape)


def name(thing: Thing) -> str:
    """A concept: `striped red circle`."""
    return " ".join(word for word in (thing.fill, thing.colour, thing.shape) if word)


def phrase(thing: Thing, rng: Random) -> str:
    """A photo of a scene with the thing in it, half of the time with an instruction."""
    cells = rng.sample(range(NUM_CELLS), rng.randint(1, 3))
    background = rng.choice(BACKGROUNDS)
    scene = make_scene(background, {cell: random_thing(rng) for cell in cells})
    text = f"a photo of {caption(scene.put(cells[0], thing))}"
    return f"{text} that {statement(scene, rng)}" if rng.random() < 0.5 else text


def phrases(seed: int = 0) -> dict[str, list[str]]:
    """Phrases by concept."""
    return {
        name(thing): [
            phrase(thing, Random(f"concept {seed} {name(thing)} {number}"))
            for number in range(PHRASES)
        ]
        for thing in things()
    }


def main() -> None:
    """Write the vocabulary and its phrases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    made = phrases()
    out.mkdir(parents=True, exist_ok=True)
    (out / "concepts.txt").write_text("".join(f"{each}\n" for each in made))
    (out / "phrases.json").write_text(json.dumps(made, indent=0) + "\n")


if __name__ == "__main__":
    main()
