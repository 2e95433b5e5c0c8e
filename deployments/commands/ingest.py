"""Bring images into a named collection: a folder, webdataset tars, Parquet with a bytes column,
or an s3:// prefix. Every input gets a row, readable or not; equal bytes are one image.

A repetition costs a listing and reads new inputs only. A name that stands for other images is
refused without --add or --replace. Prefect is not started (`cirflow run ingest` does the same as a
flow)."""

from __future__ import annotations

import argparse

from deployments.display import console, stage_display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("source", help="folder, file, .tar, .parquet or s3:// prefix")
    parser.add_argument("--name", required=True, help="name of the collection")
    parser.add_argument("--root", default=".cirflow", help="where tables are kept")
    parser.add_argument(
        "--class-field", default="meta_class", help="column or JSON key of the meta class"
    )
    taken = parser.add_mutually_exclusive_group()
    for choice, meaning in (("add", "both"), ("replace", "these alone (the others stay stored)")):
        taken.add_argument(
            f"--{choice}",
            dest="if_taken",
            action="store_const",
            const=choice,
            default="refuse",
            help=f"if the name stands for other images, let it stand for {meaning}",
        )


def run(arguments: argparse.Namespace) -> int:
    """Ingest and sum up."""
    from storage.collections.collection import ingest
    from storage.locations.location import Location

    done = 0
    with stage_display(f"ingest {arguments.name}", 0, 0) as listener:

        def report(count: int, total: int | None) -> None:
            nonlocal done
            listener(count - done)
            done = count

        summary = ingest(
            Location(arguments.root),
            arguments.source,
            arguments.name,
            if_taken=arguments.if_taken,
            class_field=arguments.class_field,
            progress=report,
        )
    console.print(
        f"{summary.files} inputs: {summary.images} images, {summary.duplicates} duplicates, "
        f"{sum(summary.failed.values())} not usable; {summary.new_images} images were new"
    )
    for status, count in summary.failed.items():
        console.print(f"  {status}: {count}")
    if summary.failed:
        _name_failures(arguments)
    said = summary.change.in_words()
    print(
        f"collection {summary.name} at {Location(arguments.root)}" + (f": {said}" if said else "")
    )
    return 0


def _name_failures(arguments: argparse.Namespace, most: int = 40) -> None:
    from storage.collections.collection import Collection
    from storage.locations.location import Location

    rows = Collection.open(Location(arguments.root), arguments.name).rows()
    failed = rows.filter(rows["status"] != "ok")
    for row in failed.head(most).to_dicts():
        console.print(f"  {row['path']}: {row['status']} ({row['reason']})", highlight=False)
    if len(failed) > most:
        console.print(f"  and {len(failed) - most} more: see the table `sources`")
