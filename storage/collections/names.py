"""The names of collections: the images that each stands for, and the rules for changing them.

Each file of `storage.collections.pointers` is replaced as a whole, after everything that it names
is published, so that a reader sees the old listing or the new one.

A name is never silently given to other images. It is refreshed from a place that it stands for,
it follows the same images to another place, and any other change must be asked for.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from storage.collections.known import IfTaken, Listing, pointer_path
from storage.collections.pointers import (
    Pointer,
    copy_path,
    lies_in,
    mend_pointer,
    pointer_text,
    publish_listing,
    read_place,
    read_pointer,
    write_place,
)
from storage.collections.recovery import listing_keys
from storage.locations.damage import DamagedFile
from storage.locations.location import Location
from storage.tables.key_columns import KeyColumn, key_series
from storage.tables.schemas import OK
from storage.tables.table import Table, load_table
from storage.words import agreed

_CONTENT: Final = ("path", "image_id", "status", "meta_class")
_PLACED: Final = ("source", *_CONTENT)


class NameTaken(ValueError):
    """The name of a collection stands for other images; the message lists what can be done."""


@dataclass(frozen=True)
class Change:
    """How a name changed.

    Attributes:
        listing: key of the listing that the name stands for now.
        places, places_before: the places of the images, now and before the change (none before
            for a new name).
        added, changed, gone, unchanged: inputs, compared by place and path (by path alone where
            the same images were found in another place).
    """

    listing: str
    places: tuple[str, ...]
    places_before: tuple[str, ...]
    added: int
    changed: int
    gone: int
    unchanged: int

    def in_words(self) -> str:
        """The change in one line; empty for a new name."""
        if not self.places_before:
            return ""
        counts = f"{self.added} added, {self.changed} changed, {self.gone} gone"
        text = f"{counts}, {self.unchanged} unchanged"
        if self.places == self.places_before:
            return text
        now, before = ", ".join(self.places), ", ".join(self.places_before)
        return f"{text}; the name stands for {now} now, for {before} before"


NOT_GIVEN: Final = Change("", (), (), 0, 0, 0, 0)
"""Of a name that was given to nothing."""

# --------------------------------------------------------------------------- changing


@dataclass(frozen=True)
class Found:
    """What an ingest found in one place.

    Attributes:
        table: the `sources` table that holds the rows.
        keys: their keys, sorted.
    """

    location: Location
    name: str
    source: str
    table: Table
    keys: Sequence[str]

    def rows(self, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of the rows, which are the memory of an ingest of many images."""
        return self.table.read(columns, self.keys)


def refuse_other_files(
    location: Location, name: str, source: str, paths: Sequence[str], if_taken: IfTaken
) -> None:
    """Refuse a source whose files differ from those of the name, before any of them is read.

    Args:
        location: where the collection is kept.
        name: of the collection.
        source: normalised.
        paths: of all its inputs.
        if_taken: the caller's choice.

    Raises:
        NameTaken: the name stands for other files.
    """
    pointer = read_pointer(location, name)
    if pointer is None or if_taken != "refuse" or _refreshes(pointer, source):
        return
    if set(rows_of(location, pointer.listing, ["path"])["path"]) != set(paths):
        raise _name_taken(location, pointer, source)


def give_name(found: Found, if_taken: IfTaken) -> Change:
    """Let a name stand for the images found in a place, as far as that is allowed.

    Two runs may refresh two places of one name at the same time. Each run looks again after it has
    written, so that the last of them has seen both places.

    Raises:
        NameTaken: the name stands for other images, and `if_taken` is "refuse".
        ValueError: images are to be added to some that were ingested with other limits.
    """
    location = found.location
    own = Listing(publish_listing(location, found.keys), found.table.spec_key)
    mend_pointer(location, found.name)
    pointer = read_pointer(location, found.name)
    before, kept = pointer, _kept_places(found, pointer, if_taken)
    while True:
        write_place(location, found.name, found.source, own)
        change = _merged(found, own, kept, pointer)
        if pointer is not None and (pointer.listing, pointer.places) == change:
            if not location.exists(copy_path(found.name)):  # the run that made the name was killed
                location.replace(copy_path(found.name), pointer_text(pointer))
            break
        written = _write_pointer(found, *change, new=pointer is None)
        pointer = read_pointer(location, found.name)
        if not written:  # another run has made the name meanwhile
            before, kept = pointer, _kept_places(found, pointer, if_taken)
        elif pointer is None or found.source not in pointer.places:
            break  # another run has given it to another place since
        else:
            kept = tuple(place for place in pointer.places if place != found.source)
    return _counted(found, before, *change)


def _refreshes(pointer: Pointer, source: str) -> bool:
    return any(lies_in(place, source) for place in pointer.places)


def _kept_places(found: Found, pointer: Pointer | None, if_taken: IfTaken) -> tuple[str, ...]:
    """The places that the name keeps, in addition to the one that was ingested."""
    if pointer is None or if_taken == "replace":
        return ()
    others = tuple(place for place in pointer.places if not lies_in(place, found.source))
    if if_taken == "add" or len(others) < len(pointer.places):
        return others
    if not _content(rows_of(found.location, pointer.listing)).equals(
        _content(found.rows(_CONTENT))
    ):
        raise _name_taken(found.location, pointer, found.source)
    return ()


def _content(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(_CONTENT).unique().sort(_CONTENT)


def _merged(
    found: Found, own: Listing, kept: Sequence[str], pointer: Pointer | None
) -> tuple[Listing, tuple[str, ...]]:
    """The listing of all places that a name stands for, and those places."""
    if not kept:
        return own, (found.source,)
    keys = [key_series(found.keys)]
    for place in kept:
        listing = _place_of(found, place)
        if listing is None and pointer is not None:  # a name that was made earlier
            rows = rows_of(found.location, pointer.listing, ["source"])
            keys.append(rows.filter(pl.col("source") == place)["source_key"])
            listing = pointer.listing
        elif listing is not None:
            keys.append(listing_keys(found.location, listing).series)
        if listing is not None and listing.sources != found.table.spec_key:
            raise ValueError(
                f"{place} was ingested with other limits than {found.source}; one collection has"
                " the same limits throughout"
            )
    key = publish_listing(found.location, KeyColumn.of(pl.concat(keys)))
    return Listing(key, found.table.spec_key), tuple(sorted({*kept, found.source}))


def _place_of(found: Found, place: str) -> Listing | None:
    try:
        return read_place(found.location, found.name, place)
    except DamagedFile:
        return None


def _counted(
    found: Found, before: Pointer | None, listing: Listing, places: tuple[str, ...]
) -> Change:
    """Count what changed in a name."""
    if before is None:
        return Change(listing.key, places, (), len(listing_keys(found.location, listing)), 0, 0, 0)
    if before.listing == listing:
        return Change(listing.key, places, before.places, 0, 0, 0, before.files)
    new_rows = rows_of(found.location, listing)
    try:
        old_rows = rows_of(found.location, before.listing)
    except DamagedFile:  # what it held is unknown: all is counted as added
        old_rows = new_rows.clear()
    moved = not set(places) & set(before.places) and _content(old_rows).equals(_content(new_rows))
    old, new = (_by_place(rows, with_source=not moved) for rows in (old_rows, new_rows))
    both = old.join(new, on="place")
    changed = both.filter(pl.any_horizontal(_differs(name) for name in old.columns[1:])).height
    counts = len(new) - len(both), changed, len(old) - len(both), len(both) - changed
    return Change(listing.key, places, before.places, *counts)


def _by_place(rows: pl.DataFrame, with_source: bool) -> pl.DataFrame:
    """Image, status and class of each place and path, or of each path alone."""
    place = pl.concat_str("source", "path", separator="/") if with_source else pl.col("path")
    held = rows.select(place.alias("place"), "image_id", "status", "meta_class")
    return held.unique("place", keep="last", maintain_order=True)


def _differs(name: str) -> pl.Expr:
    return pl.col(name).ne_missing(pl.col(f"{name}_right"))


def rows_of(location: Location, listing: Listing, columns: Sequence[str] = _PLACED) -> pl.DataFrame:
    """Every input of a listing: its place, path, image, status and class, or some of these."""
    table = load_table(location, "sources", listing.sources)
    return table.read(columns, listing_keys(location, listing))


def _name_taken(location: Location, pointer: Pointer, source: str) -> NameTaken:
    again = f"cirflow ingest {source} --name {pointer.name} --root {location}"
    return NameTaken(
        f"the collection {pointer.name!r} at {location} stands for {', '.join(pointer.places)}"
        f" ({pointer.files} {agreed(pointer.files, 'input')}, {pointer.images}"
        f" {agreed(pointer.images, 'image')}, since {pointer.created}), and {source} holds others."
        " Nothing was changed. Choose another name (or another root), or say what you mean:"
        f" `{again} --add` for both, `{again} --replace` for {source} alone. The ingested images"
        " stay stored either way"
    )


# --------------------------------------------------------------------------- writing


def _write_pointer(found: Found, listing: Listing, places: tuple[str, ...], new: bool) -> bool:
    """Write the pointer of a name; False if another run made a new name first."""
    pointer = pointer_of(found.location, found.name, listing, places)
    text = pointer_text(pointer)
    if new:
        made = found.location.create(pointer_path(found.name), text)
        if made:
            found.location.replace(copy_path(found.name), text)
        return made
    found.location.replace(copy_path(found.name), text)
    found.location.replace(pointer_path(found.name), text)
    return True


def pointer_of(location: Location, name: str, listing: Listing, places: Sequence[str]) -> Pointer:
    """The pointer of a name to a listing, with its counts and the present time."""
    rows = rows_of(location, listing, ["image_id", "status"])
    images = rows.filter(pl.col("status") == OK)["image_id"].n_unique()
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Pointer(name, listing, tuple(places), len(rows), images, created)
