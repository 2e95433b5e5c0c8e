"""Checks of collections: pointers and their copies, places, listings, receipts of archives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from storage.checks.findings import Fault, Findings, Listed, going_on
from storage.checks.tables import ASIDE
from storage.collections.known import Listing, pointer_path
from storage.collections.names import pointer_of, rows_of
from storage.collections.pointers import (
    Place,
    Pointer,
    copy_path,
    listing_path,
    place_path,
    pointer_text,
    publish_listing,
    read_listing,
    read_place_file,
    read_pointer_file,
    write_place,
)
from storage.collections.recovery import derived_keys, listing_keys
from storage.collections.writer import read_container
from storage.locations.damage import DamagedFile, put_aside
from storage.locations.location import Location
from storage.tables.table import SPEC_KEY, CorruptPart, SpecConflict, load_table
from storage.words import agreed

_LISTING = re.compile(rf"listings/{SPEC_KEY.pattern}\.parquet")
INGEST = "ingest its source again"
_NOT_TO_JUDGE = (CorruptPart, SpecConflict, FileNotFoundError)
"""Faults of the tables below a collection, which have findings of their own."""


def check_collections(listed: Listed, found: Findings) -> None:
    """Check all files of collections."""
    check = _Check(listed.location, found)
    kinds: dict[str, list[str]] = {"": [], "copies": [], "places": [], "listings": []}
    for entry in listed.below("collections"):
        path = entry.path.removeprefix("collections/")
        folder, _, name = path.rpartition("/")
        if ASIDE.fullmatch(name):
            found.left_over["put aside"] = found.left_over.get("put aside", 0) + 1
        elif _LISTING.fullmatch(path) or (folder in kinds and name.endswith(".json")):
            kinds[folder].append(entry.path)
        elif folder.startswith("containers/") and name.endswith(".json"):
            with going_on(found, entry.path):
                check.container(entry.path, folder.removeprefix("containers/"), name)
        else:
            found.others.append(entry.path)
    for path in kinds["listings"]:
        with going_on(found, path):
            check.listing(path)
    for path in kinds["places"]:
        with going_on(found, path):
            check.place(path)
    names = {
        path.rpartition("/")[2].removesuffix(".json") for path in [*kinds[""], *kinds["copies"]]
    }
    for name in sorted(names | {place.name for place in check.places}):
        with going_on(found, pointer_path(name)):
            check.name(name)
    found.files += sum(len(paths) for paths in kinds.values())


class _Check:
    """A check of one root; `places` are the readable ones."""

    def __init__(self, location: Location, found: Findings) -> None:
        self.location = location
        self.found = found
        self.places: list[Place] = []
        self._missing: set[str] = set()

    # -- listings ----------------------------------------------------------------------------------

    def listing(self, path: str) -> None:
        """Check that a listing has the key that it is named by."""
        key = path.rpartition("/")[2].removesuffix(".parquet")
        try:
            read_listing(self.location, key)
        except DamagedFile as error:
            self._missing.add(key)
            self.found.faults.append(self._lost_listing(key, error.what))

    def named_listing(self, listing: Listing, by: str) -> None:
        """Check that a listing is there which a pointer or a place names."""
        if listing.key in self._missing or self.location.exists(listing_path(listing.key)):
            return
        self._missing.add(listing.key)
        self.found.faults.append(self._lost_listing(listing.key, f"{by} names it; it is not there"))

    def _lost_listing(self, key: str, what: str) -> Fault:
        path = listing_path(key)
        tables = {entry.path.split("/")[1] for entry in self.location.entries("sources")}
        keys = None
        for spec_key in sorted(tables):
            try:
                keys = keys or derived_keys(self.location, Listing(key, spec_key))
            except _NOT_TO_JUDGE:
                continue
        costs = "the collections that it belongs to cannot be opened"
        if keys is None:
            repair = f"it is put aside; {INGEST}"
        else:
            repair = "it is written again, from the rows of sources"

        def mend() -> str:
            if keys is not None:
                publish_listing(self.location, keys)
            elif self.location.exists(path):
                put_aside(self.location, path)
            return repair

        return Fault(path, what, costs if keys is None else "nothing", repair, mend)

    # -- places ------------------------------------------------------------------------------------

    def place(self, path: str) -> None:
        """Check the record of a place."""
        try:
            place = read_place_file(self.location, path)
        except DamagedFile as error:
            self.found.faults.append(self._lost_place(path, error.what))
        else:
            self.places.append(place)
            self.named_listing(place.listing, path)

    def _lost_place(self, path: str, what: str) -> Fault:
        known = self._place_by_pointer(path)
        costs = "the images of this place are found by the collection's present listing"
        repair = "it is put aside" if known is None else "it is written again, from its collection"

        def mend() -> str:
            if known is not None:
                write_place(self.location, known.name, known.source, self._listing_of(known))
            elif self.location.exists(path):
                put_aside(self.location, path)
            return repair

        return Fault(path, what, costs, repair, mend)

    def _place_by_pointer(self, path: str) -> Place | None:
        """The place that a damaged record was of, if a present collection stands for it."""
        for pointer in self._pointers():
            for source in pointer.places:
                if place_path(pointer.name, source) == path:
                    return Place(pointer.name, source, pointer.listing)
        return None

    def _listing_of(self, place: Place) -> Listing:
        """The listing of one place of a collection, published."""
        rows = load_table(self.location, "sources", place.listing.sources).read(
            ["source"], listing_keys(self.location, place.listing)
        )
        keys = sorted(rows.filter(pl.col("source") == place.source)["source_key"])
        return Listing(publish_listing(self.location, keys), place.listing.sources)

    def _pointers(self) -> list[Pointer]:
        found = []
        for path in self.location.list("collections"):
            name = path.removeprefix("collections/").removesuffix(".json")
            if "/" not in name and path.endswith(".json"):
                pointer = self._read(name, pointer_path(name)) or self._read(name, copy_path(name))
                found += [pointer] if pointer else []
        return found

    def _read(self, name: str, path: str) -> Pointer | None:
        try:
            return read_pointer_file(self.location, name, path)
        except DamagedFile:
            return None

    # -- pointers ----------------------------------------------------------------------------------

    def name(self, name: str) -> None:
        """Check the pointer of a name and its copy."""
        places = [place for place in self.places if place.name == name]
        pointer, fault = self._pointer(name, pointer_path(name))
        copy, copy_fault = self._pointer(name, copy_path(name))
        if pointer is None:
            what = fault or "it is not there"
            self.found.faults.append(self._lost_pointer(name, what, copy, places))
            return
        self.named_listing(pointer.listing, pointer_path(name))
        if pointer.checked and copy is None:
            self.found.faults.append(
                self._lost_copy(name, copy_fault or "it is not there", pointer)
            )
        elif copy_fault:
            self.found.faults.append(self._lost_copy(name, copy_fault, pointer))
        known = {place.source for place in places}
        reported = {fault.path for fault in self.found.faults}
        for source in pointer.places if pointer.checked else ():
            path = place_path(name, source)
            if source not in known and path not in reported and not self.location.exists(path):
                self.found.faults.append(self._lost_place(path, "it is not there"))

    def _pointer(self, name: str, path: str) -> tuple[Pointer | None, str]:
        """A pointer that agrees with its listing, or what is wrong with it."""
        try:
            pointer = read_pointer_file(self.location, name, path)
        except DamagedFile as error:
            return None, error.what
        if pointer is None or pointer.checked:
            return pointer, ""
        try:  # one of an earlier version holds no hash of itself
            rows = rows_of(self.location, pointer.listing)
        except FileNotFoundError:
            return None, f"there is no table sources/{pointer.listing.sources}"
        except (CorruptPart, SpecConflict, DamagedFile):
            return pointer, ""
        if pointer.files != len(rows):
            said = f"{pointer.files} {agreed(pointer.files, 'input')}"
            return None, f"it says {said}, its listing has {len(rows)}"
        if not set(rows["source"]) <= set(pointer.places):
            return None, "its listing has inputs of other places"
        real = pointer_of(self.location, name, pointer.listing, pointer.places)
        if pointer.images != real.images:
            said = f"{pointer.images} {agreed(pointer.images, 'image')}"
            return None, f"it says {said}, its listing has {real.images}"
        return pointer, ""

    def _lost_pointer(
        self, name: str, what: str, copy: Pointer | None, places: Sequence[Place]
    ) -> Fault:
        path = pointer_path(name)
        costs = f"the collection {name} cannot be opened"
        if copy is not None:
            repair = "it is written again, from its copy"
        elif len(places) == 1:
            repair = f"it is written again, for the one place that it had: {places[0].source}"
        else:
            repair = f"it is put aside; {INGEST}"

        def mend() -> str:
            if copy is not None:
                self.location.replace(path, pointer_text(copy))
            elif len(places) == 1:
                one = places[0]
                found = pointer_of(self.location, name, one.listing, (one.source,))
                self.location.replace(copy_path(name), pointer_text(found))
                self.location.replace(path, pointer_text(found))
            elif self.location.exists(path):
                put_aside(self.location, path)
            return repair

        return Fault(path, what, costs, repair, mend)

    def _lost_copy(self, name: str, what: str, pointer: Pointer) -> Fault:
        path = copy_path(name)

        def mend() -> str:
            self.location.replace(path, pointer_text(replace(pointer, checked=True)))
            return "written again"

        return Fault(path, what, "nothing", "it is written again, from the pointer", mend)

    # -- receipts of archives ----------------------------------------------------------------------

    def container(self, path: str, spec_key: str, name: str) -> None:
        """Check the receipt of an archive."""
        self.found.files += 1
        try:
            sources = load_table(self.location, "sources", spec_key)
            read_container(self.location, sources, name.removesuffix(".json"))
        except DamagedFile as error:
            self.found.faults.append(self._lost_receipt(path, error.what))
        except _NOT_TO_JUDGE:
            return

    def _lost_receipt(self, path: str, what: str) -> Fault:
        costs = "the archive is read again by the next ingest of its source"

        def mend() -> str:
            put_aside(self.location, path)
            return f"put aside; {costs}"

        return Fault(path, what, costs, "it is put aside", mend)
