"""Bring images into a named collection: a folder, webdataset tars, Parquet with a bytes column,
or an s3:// prefix. Every input gets a row, readable or not; equal bytes are one image. With
--layout fashion200k or nlvr2 the set's own label files say which images, in which class.

A repetition costs a listing and reads new inputs only. A name that stands for other images is
refused without --add or --replace. Prefect is not started (`cirflow run ingest` does the same as a
flow); where `cirflow up` runs in this folder, its forms offer the collection."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from deployments.display import console, stage_display
from deployments.errors import UserError
from deployments.place import add_place, given_settings
from models.plain_text import escaped_line
from models.spelling import agreed
from storage.collections.known import Layout

if TYPE_CHECKING:
    from storage.collections.collection import IngestSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("source", help="folder, file, .tar, .parquet or s3:// prefix")
    parser.add_argument("--name", required=True, help="name of the collection")
    add_place(parser)
    parser.add_argument(
        "--class-field", default="meta_class", help="column or JSON key of the meta class"
    )
    parser.add_argument(
        "--layout",
        choices=get_args(Layout),
        default="files",
        help="a published set, whose label files say what it holds; files: images of any kind",
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
    """Ingest and sum up.

    Raises:
        UserError: no input is a usable image.
    """
    from flows.requests.ingest_collection import ingest_collection

    asked = ingest_collection(
        arguments.source,
        arguments.name,
        arguments.profile,
        given_settings(arguments),
        arguments.class_field,
        arguments.if_taken,
        arguments.layout,
    )
    from storage.collections.collection import NothingUsable, ingest
    from storage.locations.location import Location

    done = 0
    with stage_display(f"ingest {asked.name}", 0, 0) as listener:

        def report(count: int, total: int | None) -> None:
            nonlocal done
            listener(count - done)
            done = count

        try:
            summary = ingest(
                Location(asked.root),
                asked.source,
                asked.name,
                if_taken=asked.if_taken,
                class_field=asked.class_field,
                layout=asked.layout,
                progress=report,
            )
        except NothingUsable as error:
            _tell(error.summary)
            raise UserError(error.in_short) from error
    _tell(summary)
    said = summary.change.in_words()
    print(f"collection {summary.name} at {Location(asked.root)}" + (f": {said}" if said else ""))
    _offer(asked.root)
    return 0


def _tell(summary: IngestSummary) -> None:
    """What was found, and the reasons of what cannot be used."""
    _say(
        f"{summary.files} {agreed(summary.files, 'input')}: "
        f"{summary.images} {agreed(summary.images, 'image')}, "
        f"{summary.duplicates} {agreed(summary.duplicates, 'duplicate')}, "
        f"{sum(summary.failed.values())} not usable; "
        f"{summary.new_images} {agreed(summary.new_images, 'image was', 'images were')} new"
    )
    for note in summary.notes:
        _say(f"  {note}")
    for status, count in summary.failed.items():
        _say(f"  {status}: {count}")
    for line in summary.unusable_in_words:
        _say(f"  {line}")


def _offer(root: str) -> None:
    """Offer the collection in the forms, where `cirflow up` runs in this folder."""
    from deployments.stack.settings import up_here
    from storage.locations.location import Location

    folder = Path.cwd()
    stack = up_here(folder)
    if stack is None or Location(root) != Location(str(folder / ".cirflow")):
        return
    from deployments.stack.stack import as_client

    with as_client(stack):
        from deployments.stack.connection import server_client
        from deployments.stack.registration import offer_choices

        try:
            with server_client(stack.api_url) as client:
                offer_choices(client, str(folder / ".cirflow"), folder)
        except UserError as error:  # the collection is there all the same
            _say(f"the forms do not offer it yet ({error}); `cirflow up` brings them up")


def _say(text: str) -> None:
    """A line on standard error as it stands: file names are not read as markup."""
    console.print(escaped_line(text), highlight=False, markup=False, soft_wrap=True)
