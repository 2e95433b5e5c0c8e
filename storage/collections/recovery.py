"""The keys of a listing, also where its file is lost and they follow from other files."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from storage.collections.known import Listing, list_collections
from storage.collections.pointers import (
    listing_path,
    read_listing,
    read_pointer,
)
from storage.locations.damage import DamagedFile
from storage.locations.location import Location
from storage.tables.key_columns import KeyColumn
from storage.tables.table import load_table


def listing_keys(location: Location, listing: Listing) -> KeyColumn:
    """The source keys of a listing: read, or else derived from the rows of `sources`.

    Raises:
        DamagedFile: the file is lost or damaged, and the rows do not say which of them it held.
    """
    try:
        return read_listing(location, listing.key)
    except FileNotFoundError:
        fault = DamagedFile(location.join(listing_path(listing.key)), "it is not there")
    except DamagedFile as error:
        fault = error
    keys = derived_keys(location, listing)
    if keys is None:
        raise fault
    return keys


def derived_keys(location: Location, listing: Listing) -> KeyColumn | None:
    """The keys of a listing from the rows of `sources`; None where they do not follow from these.

    A listing of places whose inputs never changed holds all rows of those places, and its name is
    the hash that proves it.
    """
    try:
        rows = load_table(location, "sources", listing.sources).read(["source"])
    except FileNotFoundError:
        return None
    for places in _candidates(location, listing, rows):
        keys = KeyColumn.of(rows.filter(pl.col("source").is_in(list(places)))["source_key"])
        if keys.content_key == listing.key:
            return keys
    return None


def _candidates(
    location: Location, listing: Listing, rows: pl.DataFrame
) -> Iterator[tuple[str, ...]]:
    yield from ((source,) for source in rows["source"].unique())
    for name in list_collections(location):
        try:
            pointer = read_pointer(location, name)
        except DamagedFile:
            continue
        if pointer is not None and pointer.listing == listing:
            yield pointer.places
