"""The names of collections: the images that each stands for, and the rules for changing them.

``collections/{name}.json`` says which listing a name stands for, and from which places (folders,
files, prefixes) it came. ``collections/places/{key}.json`` says the same of one place alone: the
listing that was last found there under that name. Each file is replaced as a whole, after
everything that it names is published, so that a reader sees the old listing or the new one.

A name is never silently given to other images. It is refreshed from a place that it stands for,
it follows the same images to another place, and any other change must be asked for.
"""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import Table, load_table

IfTaken = Literal["refuse", "replace", "add"]
"""What to do where a name stands for other images: refuse, stand for these instead, or for both."""

_CONTENT = ("path", "image_id", "status", "meta_class")


class NameTaken(ValueError):
    """The name of a collection stands for other images; the message lists what can be done."""


@dataclass(frozen=True)
class Listing:
    """A published listing: its key, and the spec key of the `sources` table of its rows."""

    key: str
    sources: str


@dataclass(frozen=True)
class Pointer:
    """The listing that a name stands for.

    Attributes:
        places: where the images came from, sorted.
        files, images: counts over all places, for messages.
        created: when the name was last changed (UTC).
    """

    name: str
    listing: Listing
    places: tuple[str, ...]
    files: int
    images: int
    created: str

    def covers(self, source: str) -> bool:
        """Whether a source is one of the places, or lies in one."""
        return any(lies_in(source, place) for place in self.places)


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


def lies_in(source: str, place: str) -> bool:
    """Whether a source is a place or a part of it."""
    return source == place or source.startswith(f"{place.rstrip('/')}/")


def check_name(name: str) -> None:
    """Refuse a text that cannot be the name of a collection.

    Raises:
        ValueError: says which names are allowed.
    """
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    if not (letters.isalnum() and name.isascii() and name[0].isalnum() and len(name) <= 128):
        raise ValueError(
            f"{name!r} is not a name for a collection: use up to 128 letters, digits, '.', '_' and"
            " '-', beginning with a letter or digit"
        )


# --------------------------------------------------------------------------- reading


def read_pointer(location: Location, name: str) -> Pointer | None:
    """The pointer of a name as it is now; None where there is no such collection."""
    try:
        said: dict[str, Any] = json.loads(location.read_bytes(_pointer_path(name)))
    except FileNotFoundError:
        return None
    return Pointer(
        name,
        Listing(said["listing"], said["sources"]),
        tuple(said.get("places") or [said["source"]]),  # names made earlier have one place
        said["files"],
        said["images"],
        said["created"],
    )


def read_place(location: Location, name: str, source: str) -> Listing | None:
    """The listing that was last found in a place under a name; None where there is none."""
    try:
        said = json.loads(location.read_bytes(_place_path(name, source)))
    except FileNotFoundError:
        return None
    return Listing(said["listing"], said["sources"])


def read_listing(location: Location, key: str) -> list[str]:
    """The source keys of a listing."""
    data = location.read_bytes(_listing_path(key))
    return pl.read_parquet(io.BytesIO(data))["source_key"].to_list()


def list_names(location: Location) -> list[str]:
    """The names of all collections, sorted."""
    paths = [path.removeprefix("collections/") for path in location.list("collections")]
    return [path[: -len(".json")] for path in paths if "/" not in path and path.endswith(".json")]


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

    def rows(self) -> pl.DataFrame:
        """The rows themselves."""
        return self.table.read(["source", *_CONTENT], self.keys)


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
    if set(_rows_of(location, pointer.listing)["path"]) != set(paths):
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
    own = Listing(_publish_listing(location, found.keys), found.table.spec_key)
    pointer = read_pointer(location, found.name)
    before, kept = pointer, _kept_places(found, pointer, if_taken)
    while True:
        _write_place(location, found.name, found.source, own)
        change = _merged(found, own, kept, pointer)
        if pointer is not None and (pointer.listing, pointer.places) == change:
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
    if _content(_rows_of(found.location, pointer.listing)) != _content(found.rows()):
        raise _name_taken(found.location, pointer, found.source)
    return ()


def _content(rows: pl.DataFrame) -> set[tuple[Any, ...]]:
    return set(rows.select(_CONTENT).iter_rows())


def _merged(
    found: Found, own: Listing, kept: Sequence[str], pointer: Pointer | None
) -> tuple[Listing, tuple[str, ...]]:
    """The listing of all places that a name stands for, and those places."""
    if not kept:
        return own, (found.source,)
    keys = set(found.keys)
    for place in kept:
        listing = read_place(found.location, found.name, place)
        if listing is None and pointer is not None:  # a name that was made earlier
            rows = _rows_of(found.location, pointer.listing)
            keys.update(rows.filter(pl.col("source") == place)["source_key"])
            listing = pointer.listing
        elif listing is not None:
            keys.update(read_listing(found.location, listing.key))
        if listing is not None and listing.sources != found.table.spec_key:
            raise ValueError(
                f"{place} was ingested with other limits than {found.source}; one collection has"
                " the same limits throughout"
            )
    key = _publish_listing(found.location, sorted(keys))
    return Listing(key, found.table.spec_key), tuple(sorted({*kept, found.source}))


def _counted(
    found: Found, before: Pointer | None, listing: Listing, places: tuple[str, ...]
) -> Change:
    """Count what changed in a name."""
    if before is None:
        return Change(
            listing.key, places, (), len(read_listing(found.location, listing.key)), 0, 0, 0
        )
    if before.listing == listing:
        return Change(listing.key, places, before.places, 0, 0, 0, before.files)
    old_rows, new_rows = (_rows_of(found.location, each) for each in (before.listing, listing))
    moved = not set(places) & set(before.places) and _content(old_rows) == _content(new_rows)
    old, new = (_by_place(rows, with_source=not moved) for rows in (old_rows, new_rows))
    both = old.keys() & new.keys()
    changed = sum(old[key] != new[key] for key in both)
    counts = len(new) - len(both), changed, len(old) - len(both), len(both) - changed
    return Change(listing.key, places, before.places, *counts)


def _by_place(rows: pl.DataFrame, with_source: bool) -> dict[str, list[Any]]:
    return {
        f"{source}/{path}" if with_source else path: content
        for source, path, *content in rows.select(
            "source", "path", "image_id", "status", "meta_class"
        ).iter_rows()
    }


def _rows_of(location: Location, listing: Listing) -> pl.DataFrame:
    table = load_table(location, "sources", listing.sources)
    return table.read(["source", *_CONTENT], read_listing(location, listing.key))


def _name_taken(location: Location, pointer: Pointer, source: str) -> NameTaken:
    again = f"cirflow ingest {source} --name {pointer.name} --root {location}"
    return NameTaken(
        f"the collection {pointer.name!r} at {location} stands for {', '.join(pointer.places)}"
        f" ({pointer.files} inputs, {pointer.images} images, since {pointer.created}), and {source}"
        f" holds others. Nothing was changed. Choose another name (or another root), or say what"
        f" you mean: `{again} --add` for both, `{again} --replace` for {source} alone. The"
        " ingested images stay stored either way"
    )


# --------------------------------------------------------------------------- writing


def _publish_listing(location: Location, keys: Sequence[str]) -> str:
    key = content_key(list(keys))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"source_key": pa.array(keys, pa.string())}), sink, compression="zstd")
    location.create(_listing_path(key), sink.getvalue().to_pybytes())
    return key


def _write_place(location: Location, name: str, source: str, listing: Listing) -> None:
    said = {"name": name, "source": source, "listing": listing.key, "sources": listing.sources}
    if read_place(location, name, source) != listing:
        location.replace(_place_path(name, source), _as_text(said))


def _write_pointer(found: Found, listing: Listing, places: tuple[str, ...], new: bool) -> bool:
    """Write the pointer of a name; False if another run made a new name first."""
    rows = _rows_of(found.location, listing)
    said = {
        "name": found.name,
        "listing": listing.key,
        "sources": listing.sources,
        "places": places,
        "files": len(rows),
        "images": rows.filter(pl.col("status") == OK)["image_id"].n_unique(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path = _pointer_path(found.name)
    if new:
        return found.location.create(path, _as_text(said))
    found.location.replace(path, _as_text(said))
    return True


def _as_text(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, indent=2) + "\n").encode()


def _pointer_path(name: str) -> str:
    return f"collections/{name}.json"


def _place_path(name: str, source: str) -> str:
    return f"collections/places/{content_key([name, source])}.json"


def _listing_path(key: str) -> str:
    return f"collections/listings/{key}.parquet"
