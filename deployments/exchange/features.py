"""Vectors of images: features of others, and SEARLE's pseudo tokens."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from deployments.errors import UserError
from deployments.place import add_place, reachable_root
from models.spelling import agreed, counted

IMPORT: Final = """Read vectors of images that others made, into a table of their own.

examples: gallery features of LDRE (names are COCO's numbers), and SEARLE's OTI tokens of a folder

  cirflow import features index_features.safetensors --names index_names.npy --numbered \\
      --collection circo --compare KEY
  cirflow import features oti_folder --collection cirr-dev

Vectors: .npy, .safetensors or .pt with tensors alone. Names: .npy of texts, .json or .txt. A folder
holds ema_oti_pseudo_tokens.pt and image_names.json, converted from image_names.pkl by
`python -m storage.exchange.plain_pickle`. A name that occurs twice counts as it came last.

--compare tells how near they are to a table `image_features` made here. Imported vectors are data
to compare and to export: no method mixes them with its own."""
EXPORT: Final = """Write the vectors of a collection's images, and their paths in the same order.

  cirflow export features --features KEY --collection photos --out features.safetensors

writes features.safetensors (or .npy) and features.names.json."""


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow import features`."""
    parser.add_argument("vectors", help="file of vectors, or SEARLE's folder of OTI tokens")
    parser.add_argument("--names", help="file of the names, in the order of the vectors")
    parser.add_argument("--collection", required=True, help="an ingested collection of the images")
    parser.add_argument("--tensor", default="", help="name of the tensor, if a file has several")
    parser.add_argument("--numbered", action="store_true", help="names are COCO's numbers")
    parser.add_argument("--backbone", default="", help="the model that made them, for the record")
    parser.add_argument(
        "--allow-missing", action="store_true", help="names may have no image; they are counted"
    )
    parser.add_argument("--compare", default="", metavar="KEY", help="a table image_features")
    add_place(parser)


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and print the counts."""
    from storage.exchange.sources import open_sources
    from tasks.imported_features import Given, compared, import_features, searle_folder

    place = Path(arguments.vectors)
    if place.is_dir():
        given = searle_folder(place)
    elif arguments.names is None:
        raise UserError(f"name the file with the names of the vectors in {place}: --names FILE")
    else:
        about = {"kind": "image features", "backbone": arguments.backbone}
        given = Given(place, Path(arguments.names), arguments.tensor, about)
    root = reachable_root(arguments)
    found = import_features(
        root,
        given,
        open_sources([given.vectors, given.names]),
        arguments.collection,
        numbered=arguments.numbered,
        allow_missing=arguments.allow_missing,
    )
    print(
        f"{counted(found.named, 'vector')}: {counted(found.joined, 'image has', 'images have')} "
        f"one ({found.unusable:,} unusable), {counted(found.repeated, 'name')} repeated, "
        f"{found.absent:,} without an image; {counted(found.without, 'image')} of "
        f"{arguments.collection} {agreed(found.without, 'has', 'have')} none"
    )
    print(f"image_features/{found.spec_key}")
    if arguments.compare:
        shared, mean, least = compared(root, found.spec_key, arguments.compare)
        print(
            f"cosine with image_features/{arguments.compare} over {counted(shared, 'image')}: "
            f"mean {mean:.6f}, least {least:.6f}"
        )
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow export features`."""
    parser.add_argument("--features", required=True, metavar="KEY", help="a table image_features")
    parser.add_argument("--collection", required=True, help="whose images are written")
    parser.add_argument("--out", required=True, help=".safetensors or .npy")
    add_place(parser)


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and say how many."""
    from models.vector_files import write_vectors
    from tasks.imported_features import stored

    out = Path(arguments.out)
    names = out.with_suffix(".names.json")
    for path in (out, names):
        if path.exists():
            raise UserError(f"{path} exists; name another file")
    paths, vectors = stored(reachable_root(arguments), arguments.features, arguments.collection)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(out, vectors)
    names.write_text(json.dumps(paths, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{counted(len(paths), 'vector')}: {out}, names: {names}")
    return 0
