"""Edited reference images: `cirflow import pictures` and `cirflow export pictures`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from deployments.errors import UserError
from deployments.exchange.texts import add_benchmark, benchmark_ref
from deployments.place import add_place, profile_of
from models.spelling import agreed, counted

IMPORT: Final = """\
Reference images that another program edited as a benchmark's texts ask.

manifest.jsonl lies in the folder of the pictures, one object a line:
  {"reference_sha256": of the reference image's file, "text": the query's text, "image": path,
   "image_sha256": of the picture's file, "editor": name, "text_sha256": ..., "revision": ...,
   "steps": ..., "text_guidance": ..., "image_guidance": ..., "seed": ...}
What follows "editor" may be left out. A picture belongs to the bytes of its reference and to the
text, exactly; for FashionIQ that is "caption one and caption two". A query without a picture is a
failed row of the ranking, and is counted.

example: what is asked of FashionIQ's queries, and the score of the pictures
  cirflow export pictures --benchmark fashioniq --split val --folder FashionIQ --out edits
  cirflow import pictures edits/manifest.jsonl
  cirflow run score-benchmark --set benchmark=fashioniq --set folder=FashionIQ \\
      --set 'methods=["instructpix2pix"]' --set editor.engine=imported --set editor.pictures=KEY"""

EXPORT: Final = """\
Pictures that were made under the profile (or imported: --set editor.engine=imported), with
manifest.jsonl; and asked.jsonl, the edits that have no picture yet, with the references' files.

example:
  cirflow export pictures --benchmark circo --split val --folder CIRCO --out edits"""


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of the import."""
    parser.add_argument("manifest", help="manifest.jsonl in the folder of the pictures")
    add_benchmark(parser, required=False)
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of the export."""
    add_benchmark(parser)
    parser.add_argument("--out", required=True, help="a folder")
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and say what was joined and how to use it."""
    from storage.exchange.sources import open_source
    from storage.locations.access import require_access
    from storage.locations.location import Location
    from tasks.imported_pictures import import_pictures
    from tasks.profile_stages import picture_stage

    named = [arguments.benchmark, arguments.split, arguments.folder]
    if any(named) and not all(named):
        raise UserError("name --benchmark, --split and --folder together, or none of them")
    profile = profile_of(arguments)
    require_access(Location(profile.root))
    asked: frozenset[str] = frozenset()
    if all(named):
        asked = frozenset(picture_stage(profile, benchmark_ref(arguments, profile)).planned())
    manifest = open_source(Path(arguments.manifest))
    done = import_pictures(profile.root, manifest.path)
    joined = len(asked & done.keys)
    if arguments.json:
        counts = {"pictures": done.pictures, "unusable": done.unusable, "repeated": done.repeated}
        said = {"asked": len(asked), "joined": joined} if asked else {}
        print(json.dumps({"key": done.key, **counts, "editors": dict(done.editors), **said}))
        return 0
    editors = ", ".join(f"{count:,} by {editor}" for editor, count in done.editors.items())
    print(
        f"{counted(done.pictures, 'picture')} ({editors}); "
        f"{counted(done.repeated, 'record')} repeated"
    )
    if done.unusable:
        fails = agreed(done.unusable, "does", "do")
        print(f"{done.unusable:,} of them {fails} not decode: see the table edited_pictures")
    if asked:
        edits = f"{counted(len(asked), 'edit')} of {arguments.benchmark}"
        print(f"{joined:,} of {edits} {agreed(joined, 'has', 'have')} a picture")
    print(
        f"key: {done.key}\nto use it: --set editor.engine=imported --set editor.pictures={done.key}"
    )
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from tasks.exported_pictures import export_pictures

    profile = profile_of(arguments)
    folder = Path(arguments.out)
    written = export_pictures(profile, benchmark_ref(arguments, profile), folder)
    if arguments.json:
        print(json.dumps({str(folder / name): count for name, count in written.items()}))
        return 0
    for name, count in written.items():
        print(f"{folder / name}: {counted(count, 'record')}")
    return 0
