"""The files behind the names of collections: pointers, their copies, places and listings.

``collections/{name}.json`` says which listing a name stands for, and from which places (folders,
files, prefixes) it came; ``collections/copies/{name}.json`` says the same once more, for repairs.
``collections/places/{key}.json`` names the listing that was last found in one place under a name.
``collections/listings/{key}.parquet`` holds the keys of rows of `sources`, and its own hash as its
name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.collections.known import Listing, pointer_path
from storage.locations.damage import DamagedFile, as_text, from_text, put_aside, read_checked
from storage.locations.location import Location
from storage.tables.key_columns import KeyColumn
from storage.tables.keys import content_key

_POINTER = {"name", "listing", "sources", "places", "source", "files", "images", "created"}


@dataclass(frozen=True)
class Pointer:
    """The listing that a name stands for.

    Attributes:
        places: where the images came from, sorted.
        files, images: counts over all places, for messages.
        created: when the name was last changed (UTC).
        checked: whether the file holds its own hash; those of earlier versions do not.
    """

    name: str
    listing: Listing
    places: tuple[str, ...]
    files: int
    images: int
    created: str
    checked: bool = True

    def covers(self, source: str) -> bool:
        """Whether a source is one of the places, or lies in one."""
        return any(lies_in(source, place) for place in self.places)


@dataclass(frozen=True)
class Place:
    """The listing that was last found in a place under a name."""

    name: str
    source: str
    listing: Listing


def lies_in(source: str, place: str) -> bool:
    """Whether a source is a place or a part of it."""
    return source == place or source.startswith(f"{place.rstrip('/')}/")


def copy_path(name: str) -> str:
    """The file that says the same as the pointer."""
    return f"collections/copies/{name}.json"


def place_path(name: str, source: str) -> str:
    """The file of a place of a name."""
    return f"collections/places/{content_key([name, source])}.json"


def listing_path(key: str) -> str:
    """The file of a listing."""
    return f"collections/listings/{key}.parquet"


def read_pointer(location: Location, name: str) -> Pointer | None:
    """The pointer of a name as it is now; None where there is no such collection.

    Raises:
        DamagedFile: it cannot be read, nor can its copy.
    """
    try:
        return read_pointer_file(location, name, pointer_path(name))
    except DamagedFile as damaged:
        with contextlib.suppress(DamagedFile):
            if copy := read_pointer_file(location, name, copy_path(name)):
                return copy
        raise damaged


def mend_pointer(location: Location, name: str) -> bool:
    """Write a damaged pointer again from its copy; false where there is nothing to do."""
    try:
        read_pointer_file(location, name, pointer_path(name))
    except DamagedFile:
        if copy := read_pointer_file(location, name, copy_path(name)):
            location.replace(pointer_path(name), pointer_text(copy))
            return True
    return False


def read_pointer_file(location: Location, name: str, path: str) -> Pointer | None:
    """What a pointer or its copy says; None where there is no such file.

    Raises:
        DamagedFile: it cannot be read, or is not the pointer of this name.
    """

    def parse(data: bytes) -> Pointer:
        said, checked = from_text(data)
        if unknown := said.keys() - _POINTER:
            raise ValueError(f"it has unknown fields: {', '.join(sorted(unknown))}")
        # names made earlier have one place
        places = said["places"] if "places" in said else [said["source"]]
        if said["name"] != name or not _texts(places) or not _counts(said):
            raise ValueError(f"it is not a record of the collection {name!r}")
        listing = Listing(said["listing"], said["sources"])
        known = said["files"], said["images"], str(said["created"]), checked
        return Pointer(name, listing, tuple(places), *known)

    try:
        return read_checked(location, path, parse)
    except FileNotFoundError:
        return None


def read_place(location: Location, name: str, source: str) -> Listing | None:
    """The listing that was last found in a place under a name; None where there is none.

    Raises:
        DamagedFile: the file cannot be read, or is that of another place.
    """
    try:
        return read_place_file(location, place_path(name, source)).listing
    except FileNotFoundError:
        return None


def read_place_file(location: Location, path: str) -> Place:
    """What a file of `collections/places` says.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read, or is that of another place.
    """

    def parse(data: bytes) -> Place:
        said, _ = from_text(data)
        name, source = said["name"], said["source"]
        if set(said) != {"name", "source", "listing", "sources"} or not _texts([name, source]):
            raise ValueError("it is not the record of a place")
        if place_path(name, source) != path:
            raise ValueError(f"it is the record of another place, {source!r} of {name!r}")
        return Place(name, source, Listing(said["listing"], said["sources"]))

    return read_checked(location, path, parse)


def read_listing(location: Location, key: str) -> KeyColumn:
    """The source keys of a listing.

    Raises:
        FileNotFoundError: there is no such listing.
        DamagedFile: its content does not have the key that it is named by.
    """

    def parse(data: bytes) -> KeyColumn:
        try:
            keys = pq.read_table(pa.BufferReader(data))["source_key"]
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error
        found = KeyColumn.of(pl.Series("key", keys))
        if found.content_key != key:
            raise ValueError("its content does not have the key that it is named by")
        return found

    return read_checked(location, listing_path(key), parse)


def publish_listing(location: Location, keys: Sequence[str]) -> str:
    """Publish a listing and return its key; one that lies there damaged is put aside first."""
    column = KeyColumn.of(keys)
    key = column.content_key
    path = listing_path(key)
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"source_key": column.series.to_arrow().cast(pa.string())}),
        sink,
        compression="zstd",
    )
    data = sink.getvalue().to_pybytes()
    if not location.create(path, data):
        try:
            read_listing(location, key)
        except DamagedFile:
            put_aside(location, path)
            location.create(path, data)
    return key


def write_place(location: Location, name: str, source: str, listing: Listing) -> None:
    """Let a place have a listing, if it has another one or a damaged record."""
    try:
        same = read_place(location, name, source) == listing
    except DamagedFile:
        same = False
    if not same:
        said = {"name": name, "source": source, "listing": listing.key, "sources": listing.sources}
        location.replace(place_path(name, source), as_text(said))


def pointer_text(pointer: Pointer) -> bytes:
    """The content of a pointer's file."""
    said: Mapping[str, Any] = {
        "name": pointer.name,
        "listing": pointer.listing.key,
        "sources": pointer.listing.sources,
        "places": list(pointer.places),
        "files": pointer.files,
        "images": pointer.images,
        "created": pointer.created,
    }
    return as_text(said)


def _texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


def _counts(said: Mapping[str, Any]) -> bool:
    return all(type(said[name]) is int and said[name] >= 0 for name in ("files", "images"))
