"""Cut out the images of GeneCIS's tasks on Visual Genome, once.

python -m storage.benchmarks.genecis_crops change_attribute FOLDER --visual-genome VG_100K VG_100K_2

FOLDER holds `change_attribute.json`; the pictures go to its `crops/`, cut as by the released
evaluation and padded with black to a square.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from storage.benchmarks.errors import BenchmarkError, MissingImages
from storage.benchmarks.genecis import ATTRIBUTES, CROPS, FOLDERS, Crop, read_crops
from storage.benchmarks.parsing import find_root, listing
from storage.locations.location import Location
from storage.words import agreed

WIDENED: Final = 0.7


def cut_out(picture: Image.Image, crop: Crop) -> Image.Image:
    """A crop's part of a picture as a square.

    The left and upper edge move out by 0.7 of the box's size, as far as the picture goes; from
    there the part is 1.7 times as large as the box.
    """
    x, y, width, height = crop.box
    left, top = max(0.0, x - WIDENED * width), max(0.0, y - WIDENED * height)
    right = min(picture.width, left + (1 + WIDENED) * width)
    bottom = min(picture.height, top + (1 + WIDENED) * height)
    part = picture.crop((left, top, right, bottom))
    side = max(part.size)
    square = Image.new(part.mode, (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def write_crops(root: Path, task: str, folders: Sequence[Path]) -> int:
    """Write the pictures of a task that are not there yet; returns how many were written.

    Args:
        root: Folder of the task's file, or a folder above it.
        task: A task on Visual Genome.
        folders: Where pictures of Visual Genome lie, as ID.jpg.

    Raises:
        BenchmarkError: The task's file is not there or broken, or a picture is missing.
    """
    crops = read_crops(root, task)
    out = find_root(root, FOLDERS, Path(f"{task}.json")) / CROPS
    out.mkdir(exist_ok=True)
    have = {path.stem for path in out.iterdir()}
    sources = {
        number: next(
            (f / f"{number}.jpg" for f in folders if (f / f"{number}.jpg").is_file()), None
        )
        for number in {crop.image_id for crop in crops.values()}
    }
    if missing := sorted(number for number, path in sources.items() if path is None):
        raise MissingImages(
            f"{len(missing)} of {len(sources)} {agreed(len(sources), 'picture')} "
            f"{agreed(len(missing), 'is', 'are')} in none of "
            f"{listing([str(each) for each in folders])}, first {listing(missing)}."
        )
    written = 0
    for name, crop in crops.items():
        source = sources[crop.image_id]
        if name in have or source is None:
            continue
        with Image.open(source) as picture:
            part = cut_out(picture, crop)
        encoded = io.BytesIO()
        part.save(encoded, "PNG")
        Location(str(out)).replace(f"{name}.png", encoded.getvalue())
        written += 1
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures of a task on Visual Genome."""
    parser = argparse.ArgumentParser(description="Cut out GeneCIS's images of Visual Genome.")
    parser.add_argument("task", choices=ATTRIBUTES)
    parser.add_argument("folder", type=Path, help="folder of the task's file")
    parser.add_argument("--visual-genome", type=Path, nargs="+", required=True, metavar="FOLDER")
    given = parser.parse_args(arguments)
    try:
        written = write_crops(given.folder, given.task, given.visual_genome)
    except BenchmarkError as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"{given.task}: {written} {agreed(written, 'picture')} written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
