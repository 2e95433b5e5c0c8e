"""Triplets: sets that others published, for training and as examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from deployments.errors import UserError
from deployments.place import add_place, reachable_root
from models.spelling import counted, unknown
from storage.exchange.triplet_forms import FORMS

IMPORT: Final = """Read a published set of triplets, joined with the images of a collection.

example: train on TransAgg's LAION-CIR, whose images lie in laion/ under its file names

  cirflow ingest laion --name laion
  cirflow import triplets laion_llm_info.json --form transagg --collection laion --out triplets.json
  cirflow run train-reformulation --set triplets=triplets.json

forms:
""" + "\n".join(f"  {name:14}{form.words}" for name, form in FORMS.items())
EXPORT: Final = """Write a set of triplets, generated or imported, in a form that others read.

  cirflow export triplets out/triplets/triplets.json --form megapairs --out triplets.jsonl

Images are named by their paths in the collection; only triplets with a text are written."""


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow import triplets`."""
    parser.add_argument("files", nargs="+", help="JSON, JSON lines, CSV or Parquet")
    parser.add_argument("--form", default="own", help="see above")
    parser.add_argument("--collection", required=True, help="an ingested collection of the images")
    parser.add_argument("--out", required=True, help="file for the reference that training takes")
    parser.add_argument(
        "--fields",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="another name of a field: reference, target, text or target_caption",
    )
    parser.add_argument(
        "--texts",
        choices=("all", "one"),
        default="all",
        help="of a record with several texts: a triplet for each, or one drawn text",
    )
    parser.add_argument("--limit", type=int, help="most records that are read")
    parser.add_argument(
        "--allow-missing", action="store_true", help="images may be absent; they are counted"
    )
    add_place(parser)


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and print the counts."""
    from storage.exchange.sources import open_sources
    from tasks.training.imported_triplets import import_triplets

    _require_form(arguments.form)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit is a number of records, 1 or more; not {arguments.limit}")
    out = Path(arguments.out)
    _require_free(out)
    fields = dict(_field(each) for each in arguments.fields)
    found = import_triplets(
        reachable_root(arguments),
        open_sources(arguments.files),
        arguments.form,
        arguments.collection,
        fields=fields,
        texts=arguments.texts,
        limit=arguments.limit,
        allow_missing=arguments.allow_missing,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(found.triplets.model_dump_json(indent=2) + "\n", encoding="utf-8")
    counts = ", ".join(f"{count:,} {status}" for status, count in found.statuses.items())
    print(f"{counted(found.records, 'record')}: {counts}, {found.repeated:,} repeated and left out")
    if found.first_missing:
        print(f"first absent image, {found.first_missing}")
    print(f"triplets/{found.triplets.spec_key}: {out}")
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow export triplets`."""
    parser.add_argument("triplets", help="triplets.json of generate-triplets or of an import")
    parser.add_argument("--form", default="own", help=f"one of {', '.join(FORMS)}")
    parser.add_argument("--out", required=True, help=".jsonl, .json, .csv or .parquet")


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and say how many."""
    from storage.exchange.records import write_records
    from storage.exchange.triplet_forms import to_record
    from tasks.training.imported_triplets import exported
    from tasks.training.triplet_sets import parse_triplet_set

    _require_form(arguments.form)
    found = parse_triplet_set(arguments.triplets)
    records = (to_record(arguments.form, each) for each in exported(found))
    written = write_records(Path(arguments.out), records)
    print(f"{counted(written, 'triplet')}: {arguments.out}")
    return 0


def _require_form(form: str) -> None:
    if form not in FORMS:
        raise UserError(unknown("form of triplets", form, FORMS))


def _require_free(out: Path) -> None:
    """Only a reference to triplets is replaced: the file may be the one that is imported."""
    from tasks.training.triplet_sets import parse_triplet_set

    if out.is_file():
        try:
            parse_triplet_set(str(out))
        except ValueError:
            raise UserError(
                f"{out} exists and is not a reference to triplets; name another file with --out"
            ) from None


def _field(given: str) -> tuple[str, str]:
    ours, _, theirs = given.partition("=")
    if not ours or not theirs:
        raise UserError(
            f"--fields is OURS=THEIRS, the name that a field has in the file; not {given!r}"
        )
    return ours, theirs
