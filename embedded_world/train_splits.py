"""Train splits of the drawn benchmarks, for supervised training: CIRR-like and FashionIQ-like.

    python -m embedded_world.train_splits WORLD --subsets 2000 --fashion-queries 1000 --seed 5

writes them next to the other splits of the drawn benchmarks in WORLD (`cirr`, `fashioniq`). Their
scenes are those that all training may see; no scene of theirs is in a split that is evaluated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from embedded_world.benchmarks import (
    WorldSize,
    cirr_split,
    fashion_split,
    write_cirr_split,
    write_fashion_split,
)
from embedded_world.scenes import THEMES

SPLIT = "train"


def write_train_splits(root: Path, size: WorldSize, seed: int) -> None:
    """Write the split `train` of both benchmarks below `root`.

    Args:
        root: Folder of the drawn benchmarks.
        size: `subsets`, each with two triplets, and `fashion_queries` for each category.
        seed: Of scenes and pictures.
    """
    gallery, records = cirr_split(SPLIT, size.subsets, seed)
    write_cirr_split(root / "cirr", SPLIT, gallery, records, 7 * seed + 3)
    for place, category in enumerate(THEMES):
        gallery, records = fashion_split(SPLIT, category, size, seed)
        folder = root / "fashioniq"
        write_fashion_split(folder, SPLIT, category, gallery, records, 7 * seed + 4 + place)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the splits that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path, help="folder with the drawn benchmarks")
    parser.add_argument(
        "--subsets", type=int, default=500, help="CIRR-like groups, two triplets each"
    )
    parser.add_argument("--fashion-queries", type=int, default=300, help="triplets of a category")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    size = WorldSize(
        subsets=given.subsets,
        fashion_queries=given.fashion_queries,
        distractors=0,
        fashion_siblings=0,
    )
    write_train_splits(given.world, size, given.seed)


if __name__ == "__main__":
    main()
