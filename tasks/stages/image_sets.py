"""The images that a stage runs over: a collection, a benchmark's part of it, or a selection."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import polars as pl

from models.settings import Settings
from storage.collections.collection import Collection
from storage.collections.places import places_of
from storage.collections.reading import read_pictures
from storage.locations.location import Location
from storage.tables.finding import find_table
from storage.tables.key_columns import KeyColumn, key_series
from storage.tables.keys import content_key
from storage.tables.listing import list_tables
from storage.tables.plans import DerivedKeys, Keys
from storage.tables.schemas import OK
from tasks.choices import Which
from tasks.query_sets import BenchmarkRef, load_query_set

Part = Literal["all", "references", "gallery"]


class StoredImages(Settings):
    """Images whose files are stored below a root, which all its collections share."""

    def stored_at(self, root: str) -> Location:
        """Where the files are, for a stage of a root."""
        return Location(root)

    def read(self, root: str, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Stream (id, bytes) of some images, in the order in which they are stored."""
        return read_pictures(self.stored_at(root), ids)

    def in_order(self, root: str, ids: Sequence[str]) -> pl.Series:
        """Some ids in the order in which they are stored: stages read them in runs."""
        return places_of(self.stored_at(root)).in_order(ids)


class ImageSet(StoredImages):
    """Images of a collection: all, or the part that a benchmark uses."""

    collection: str
    """Name of an ingested collection."""
    benchmark: BenchmarkRef | None = None
    """Restrict to this benchmark."""
    part: Part = "all"
    """Part of the benchmark's images."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return self.collection if self.part == "all" else f"{self.collection} {self.part}"

    def ids(self, root: str) -> Sequence[str]:
        """Sorted distinct image ids."""
        if self.benchmark is None:
            return Collection.open(Location(root), self.collection).image_ids()
        query_set = load_query_set(root, self.benchmark)
        return {
            "all": query_set.all_ids,
            "references": query_set.reference_ids,
            "gallery": query_set.gallery_ids,
        }[self.part]()

    def planned_keys(self, root: str) -> Keys:
        """The ids; those of a whole collection follow from its listing."""
        if self.benchmark is not None:
            return self.ids(root)
        return ids_of_collection(root, self.collection)


class SelectedImages(StoredImages):
    """The images of a collection that a backfill is about."""

    collection: str
    """Name of an ingested collection."""
    captions_key: str
    """Spec key of the captions that are to be filled."""
    which: Which = "missing"
    """State of the images; see `flows.backfill_captions`."""
    since: datetime.date | None = None
    """Stored on this day (UTC) or later."""
    until: datetime.date | None = None
    """Stored on this day (UTC) or earlier."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return self.collection if self.which == "missing" else f"{self.which} {self.collection}"

    def ids(self, root: str) -> Sequence[str]:
        """Sorted distinct image ids."""
        collection = Collection.open(Location(root), self.collection)
        ids = collection.image_ids()
        if self.since or self.until:
            stored = collection.stored_between(self.since, self.until)
            ids = ids.only(ids.series.is_in(key_series(stored).implode()))
        if self.which == "failed":
            ids = _captioned(root, [self.captions_key], ids)
        if self.which == "stale":
            ids = _captioned(root, _other_captions(root, self.captions_key), ids, ok=True)
        return ids

    def planned_keys(self, root: str) -> Keys:
        """The ids; those of a whole collection follow from its listing."""
        if self.which != "missing" or self.since or self.until:
            return self.ids(root)
        return ids_of_collection(root, self.collection)


def ids_of_collection(root: str, name: str) -> DerivedKeys:
    """The distinct images of a collection as it is listed now: one small read."""
    collection = Collection.open(Location(root), name)
    identity = content_key(["images of", collection.listing, collection.sources.spec_key])
    return DerivedKeys(identity, functools.cache(collection.image_ids))


def _other_captions(root: str, own: str) -> list[str]:
    tables = list_tables(Location(root), ["captions"])
    return [table.spec_key for table in tables if table.spec_key != own]


def _captioned(root: str, spec_keys: Sequence[str], ids: KeyColumn, ok: bool = False) -> KeyColumn:
    """The images that have a row (a usable one, if `ok`) in any of some caption tables."""
    found = pl.Series([False]).new_from_index(0, len(ids))
    for spec_key in spec_keys:
        table = find_table(Location(root), "captions", spec_key)
        if table is None:
            continue
        rows = table.read(["status"], ids)
        held = rows.filter(pl.col("status") == OK) if ok else rows
        found |= ids.series.is_in(held["image_id"].implode())
    return ids.only(found)
