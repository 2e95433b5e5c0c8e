"""Texts of a benchmark: `cirflow import texts` and `cirflow export texts`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deployments.errors import UserError
from deployments.place import add_place, profile_of
from models.spelling import agreed, unknown

if TYPE_CHECKING:
    from tasks.imported_texts import TextImport
    from tasks.query_sets import BenchmarkRef
    from tasks.settings import Profile

IMPORT: Final = """\
Captions, edits and objects of a benchmark's queries, and captions of its gallery.

forms, told apart by what is in the file:
  LDRE      the benchmark's annotation records with multi_caption_opt, multi_gpt-3.5_opt, ...
  CIReVL    ..._mods_....json: base_caption, instruction, modified_captions
  CVSI      the same with added_content; ..._captions.pkl and ..._target_captions.pkl as JSON
  own       .jsonl or .parquet: query_id, captions, edits, joined_edit, single_caption, single_edit,
            objects; gallery images: image, captions
A pickle is refused, with the command that converts it.

Several files are one import: LDRE's edits with CVSI's captions of the gallery, or the three
categories of FashionIQ. A query without a record, one that occurs twice or is unknown, and a text
or reference image that is not the benchmark's are refused.

example:
  cirflow import texts test.json gallery.jsonl --benchmark circo --split test --folder CIRCO"""

EXPORT: Final = """\
Captions, edits and objects of a benchmark: made under the profile, or imported (--texts).

example:
  cirflow export texts --benchmark circo --split val --folder CIRCO --form ldre --out val.json

LDRE's names of the fields stand for any models' texts (multi_gpt-3.5_opt); --field gives others.
FashionIQ's LDRE, CIReVL and CVSI files are one for each category: --out is then a folder."""

FORMS: Final = {
    "own": "JSONL, or Parquet where --out ends in .parquet",
    "ldre": "the benchmark's annotation records with captions and edits added",
    "cirevl": "CIReVL's file of edits",
    "cvsi": "CVSI's file of edits and added objects",
}


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of the import."""
    parser.add_argument("file", nargs="+", help="files of one benchmark")
    add_benchmark(parser)
    _add_fields(parser, "read")
    parser.add_argument("--licence", default="", help="words on what the files may be used for")
    _add_common(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of the export."""
    add_benchmark(parser)
    parser.add_argument("--texts", default="", metavar="KEY", help="an import; default: made texts")
    forms = "; ".join(f"{name}: {words}" for name, words in FORMS.items())
    parser.add_argument("--form", choices=FORMS, default="own", help=forms)
    parser.add_argument("--out", required=True, help="file (a folder for categories)")
    _add_fields(parser, "write")
    _add_common(parser)


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and say what was joined and how to use it."""
    from storage.locations.access import require_access
    from storage.locations.location import Location
    from tasks.imported_texts import import_texts

    profile = profile_of(arguments)
    require_access(Location(profile.root))
    done = import_texts(
        profile.root,
        benchmark_ref(arguments, profile),
        arguments.file,
        _fields(arguments),
        arguments.licence,
    )
    if arguments.json:
        print(json.dumps(done.as_json()))
        return 0
    print(f"imported from {done.source} ({done.form})")
    print(
        f"{done.queries} {agreed(done.queries, 'query')} and "
        f"{done.images} {agreed(done.images, 'gallery image')} joined; "
        f"{done.new_rows} {agreed(done.new_rows, 'new row')}"
    )
    print("queries with " + ", ".join(f"{name}: {n}" for name, n in done.texts.items() if n))
    for name, count in done.failures.items():
        queries = agreed(count, "query has", "queries have")
        print(f"{count} {queries} no {name}: the file says that there is none")
    if done.alike:
        queries = agreed(done.alike, "query equals", "queries equal")
        print(f"{done.alike} {queries} an earlier one, whose texts rankings use for both")
    print(f"key: {done.key}\nto use it: " + " ".join(f"--set {each}" for each in _settings(done)))
    return 0


def _settings(done: TextImport) -> list[str]:
    """Settings under which a profile reads the import, and asks for no more than it holds."""
    engines = (
        f"{name}.engine=imported {name}.texts={done.key}" for name in ("captioner", "generator")
    )
    settings = " ".join(engines).split()
    if done.captions:
        settings.append(f"cvsi.captions_per_image={done.captions}")
    single = "greedy" if done.texts["single_edit"] else "first"
    return [*settings, f"single_caption={single}"]


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from tasks.exported_texts import export_texts

    profile = profile_of(arguments)
    written = export_texts(
        profile,
        benchmark_ref(arguments, profile),
        arguments.form,
        Path(arguments.out),
        arguments.texts,
        _fields(arguments),
    )
    if arguments.json:
        print(json.dumps({str(path): rows for path, rows in written.items()}))
        return 0
    for path, rows in written.items():
        print(f"{path}: {rows} {agreed(rows, 'record')}")
    return 0


def add_benchmark(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Options that name a benchmark."""
    options = {
        "--benchmark": "its name, such as circo",
        "--split": "its split, such as val",
        "--folder": "the benchmark's folder, images included",
    }
    for option, words in options.items():
        parser.add_argument(option, required=required, default="", help=words)


def _add_fields(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="OURS=NAME",
        help=f"LDRE: {verb} captions, edits, single_caption or single_edit under another name",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _fields(arguments: argparse.Namespace) -> dict[str, str]:
    from storage.exchange.ldre import MAPPED

    fields = {}
    for given in arguments.field:
        name, sign, value = given.partition("=")
        if name not in MAPPED or not sign:
            raise UserError(unknown("--field", name, MAPPED))
        fields[name] = value
    return fields


def benchmark_ref(arguments: argparse.Namespace, profile: Profile) -> BenchmarkRef:
    """The benchmark that the options name.

    Raises:
        UserError: There is no such benchmark or split.
    """
    from storage.benchmarks.registry import BENCHMARKS
    from tasks.query_sets import BenchmarkRef

    if arguments.benchmark not in BENCHMARKS:
        raise UserError(unknown("benchmark", arguments.benchmark, BENCHMARKS))
    splits = [split.name for split in BENCHMARKS[arguments.benchmark].splits]
    if arguments.split not in splits:
        raise UserError(unknown(f"split of {arguments.benchmark}", arguments.split, splits))
    return BenchmarkRef(
        name=arguments.benchmark,
        root=arguments.folder,
        split=arguments.split,
        allow_missing=profile.allow_missing_images,
    )
