"""An oracle editor: references of drawn benchmarks, drawn again as their texts ask.

    python -m embedded_world.drawn_edits WORLD --out edits
    cirflow import pictures edits/manifest.jsonl

It reads the scene behind a reference and the instruction by its grammar, and draws the scene that
follows. Its pictures are those of a perfect image editor: the best that InstructPix2Pix + CLIP can
reach in this world, and never a result of a trained editor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from embedded_world.benchmarks import (
    WorldSize,
    circo_queries,
    cirr_split,
    completions,
    fashion_split,
)
from embedded_world.drawing import draw
from embedded_world.instruction_reader import apply_instruction
from embedded_world.scenes import THEMES, Scene
from models.spelling import counted
from storage.benchmarks.registry import load_benchmark
from storage.collections.decoding import encode_png
from storage.exchange.edited_pictures import MANIFEST, write_pictures
from storage.exchange.records import write_records
from storage.exchange.sources import ExchangeError
from storage.tables.keys import sha256_hex

EDITOR: Final = "the drawn world's own renderer (an oracle)"
SPLIT: Final = "val"


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        pictures: Edits with a picture.
        unread: Edits whose text the grammar does not read.
    """

    pictures: int
    unread: int


def write_drawn_edits(world: Path, folder: Path) -> Drawn:
    """Draw the edits of all drawn benchmarks below `world` into a folder with a manifest.

    Raises:
        FileNotFoundError: The folder holds none.
        ExchangeError: The folder holds a manifest.
    """
    made: dict[tuple[str, str], bytes] = {}
    unread = 0
    for name, read_scenes in _SCENES.items():
        if (world / name).is_dir():
            for reference, text, scene in _queries(world / name, name, read_scenes):
                after = apply_instruction(text, scene)
                if after is None:
                    unread += 1
                    continue
                rng = Random(f"{reference} {text}")
                whole = rng.choice(completions(after))
                made[reference, text] = encode_png(draw(whole, rng.randrange(2**31)))
    if not made:
        raise FileNotFoundError(
            f"{world} holds no drawn benchmark; give the folder that holds cirr, circo or "
            "fashioniq as `cirflow demo` draws them (out/demo/world)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    rows = ((*key, data, {"editor": EDITOR}) for key, data in made.items())
    write_records(folder / MANIFEST, write_pictures(folder, rows))
    return Drawn(len(made), unread)


Scenes = Mapping[str, Scene]
"""Image name -> its scene."""
ReadScenes = Callable[[WorldSize, int], Scenes]
"""From size and seed of a benchmark to its scenes."""


def _queries(folder: Path, name: str, read_scenes: ReadScenes) -> Iterator[tuple[str, str, Scene]]:
    """sha256 of the reference, text and scene of each query."""
    note = json.loads((folder / "world.json").read_text())
    seed = note.pop("seed")
    scenes: Scenes = read_scenes(WorldSize(**note), seed)
    benchmark = load_benchmark(name, folder, SPLIT)
    for query in benchmark.queries:
        data = Path(benchmark.image_paths[query.reference]).read_bytes()
        yield sha256_hex(data), query.text, scenes[query.reference]


def _cirr(size: WorldSize, seed: int) -> Scenes:
    return cirr_split(SPLIT, size.subsets, seed)[0].scenes


def _circo(size: WorldSize, seed: int) -> Scenes:
    scenes = circo_queries(size, seed)[0].scenes
    return {str(int(name)): scene for name, scene in scenes.items()}  # COCO's names are numbers


def _fashioniq(size: WorldSize, seed: int) -> Scenes:
    scenes: dict[str, Scene] = {}
    for category in THEMES:
        scenes |= fashion_split(SPLIT, category, size, seed)[0].scenes
    return scenes


_SCENES: Final[Mapping[str, ReadScenes]] = {"cirr": _cirr, "circo": _circo, "fashioniq": _fashioniq}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the edits that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path, help="folder with the drawn benchmarks")
    parser.add_argument("--out", type=Path, required=True, help="folder of pictures and manifest")
    given = parser.parse_args(arguments)
    try:
        done = write_drawn_edits(given.world, given.out)
    except (FileNotFoundError, ExchangeError) as error:
        parser.error(str(error))
    texts = counted(done.unread, "text is", "texts are")
    print(f"{counted(done.pictures, 'picture')} in {given.out}, {texts} not in the grammar")


if __name__ == "__main__":
    main()
