"""Whether a source holds a picture at all, found out without writing anything."""

from __future__ import annotations

import os

from storage.collections.decoding import MAX_PIXELS
from storage.collections.sources.candidates import Candidate, Limits
from storage.collections.sources.files import list_files
from storage.collections.sources.scan import scan
from storage.collections.writer import Examined, examine
from storage.locations.location import Location
from storage.tables.schemas import OK
from storage.words import agreed


def require_a_picture(location: Location, source: str | os.PathLike[str]) -> None:
    """Read inputs of a source until one is a usable image.

    Args:
        location: Where collections are kept, which is not part of the source.
        source: As given to `ingest`.

    Raises:
        MissingSource: there is nothing at the source.
        ValueError: none of its inputs is a usable image; it says why the first is not.
    """
    origin, limits = Location(os.fspath(source)), Limits(MAX_PIXELS, 128 * 2**20)
    files = list_files(origin, exclude=location)
    first: Examined | None = None
    for event in scan(files, origin.root, limits, "meta_class", lambda _: False):
        if isinstance(event, Candidate):
            found = examine(event, limits)
            if found.status == OK:
                return
            first = first or found
    said = f" (the first, {first.candidate.path}: {first.reason})" if first else ""
    raise ValueError(
        f"{origin} holds no picture that can be used: {len(files)} {agreed(len(files), 'file')}"
        f"{said}. Name a folder with JPEG, PNG or other images in it or below it, or a .tar or "
        ".parquet of images"
    )
