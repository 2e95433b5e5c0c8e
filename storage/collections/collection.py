"""Collections: named, content-addressed listings of images from any kind of source.

A name points to ``collections/listings/{key}.parquet``, the keys of the rows of the `sources`
table that make up the collection: one row for each input, readable or not. The rules by which a
name may change are in `storage.collections.names`. Image bytes lie in the `images` table, once for
each distinct image of all collections.
"""

from __future__ import annotations

import datetime
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from storage.collections.decoding import MAX_PIXELS
from storage.collections.image_paths import ImagePaths
from storage.collections.known import IfTaken, Layout, Listing, check_name, unknown_collection
from storage.collections.names import (
    NOT_GIVEN,
    Change,
    Found,
    give_name,
    refuse_other_files,
)
from storage.collections.places import IMAGES_SPEC, places_of
from storage.collections.pointers import read_place, read_pointer
from storage.collections.reading import read_pictures
from storage.collections.recovery import listing_keys
from storage.collections.sources.candidates import Candidate, Limits
from storage.collections.sources.files import list_files
from storage.collections.sources.layouts import listed_as
from storage.collections.sources.scan import (
    ContainerEnd,
    ContainerKnown,
    Event,
    has_containers,
    scan,
)
from storage.collections.writer import Examined, Known, Result, Writer, examine
from storage.locations.location import Entry, Location
from storage.tables.key_columns import KeyColumn, key_series
from storage.tables.part_files import open_part
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable, Table, load_table, open_table
from storage.words import agreed

Progress = Callable[[int, int | None], None]
SHOWN = 40
"""Unusable inputs that the summary of an ingest names."""


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest found and did.

    Attributes:
        files: inputs of the source, each with one row.
        images: distinct images that decode.
        duplicates: further inputs with the bytes of one of those.
        failed: status -> number of inputs without an image.
        new_files, new_images, new_bytes: the additions of this run to the tables.
        change: how the name changed; `NOT_GIVEN` without a usable image.
        unusable: the first inputs without an image, by path: path, status and reason.
        notes: on the counts of a named source, against those that are published.
    """

    name: str
    source: str
    files: int
    images: int
    duplicates: int
    failed: Mapping[str, int]
    new_files: int
    new_images: int
    new_bytes: int
    change: Change
    unusable: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def unusable_in_words(self) -> list[str]:
        """A line for each of the unusable inputs, and one that counts the others."""
        lines = [f"{path}: {status} ({reason})" for path, status, reason in self.unusable]
        others = sum(self.failed.values()) - len(lines)
        return [*lines, f"and {others} more: see the table `sources`"] if others else lines

    @property
    def listing(self) -> str:
        """Key of the content-addressed listing that the name now points to."""
        return self.change.listing

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        change = asdict(self.change)
        change |= {key: list(change[key]) for key in ("places", "places_before")}
        own = {key: value for key, value in vars(self).items() if key != "change"}
        own |= {"failed": dict(self.failed), "unusable": [list(each) for each in self.unusable]}
        own |= {"notes": list(self.notes)}
        return {**own, **change}


class NothingUsable(ValueError):
    """No input of a source is a usable image: its name was not given, or stays as it was.

    Attributes:
        summary: the counts, and the first inputs with their reasons.
        in_short: the message without a reason, for a reader of the summary.
    """

    def __init__(self, summary: IngestSummary, taken: bool) -> None:
        """Say what was found, and what became of the name.

        Args:
            summary: as the attribute.
            taken: whether the name stands for images already.
        """
        found, why = f"no input in {summary.source} is a usable image", ""
        if not summary.files:
            found = f"{summary.source} is empty"
        elif summary.unusable:
            path, status, reason = summary.unusable[0]
            why = f" ({summary.files} in all, the first {path}: {status}, {reason})"
        kept = "stays as it was" if taken else "was not made"
        ended = f"; the collection {summary.name!r} {kept}"
        super().__init__(found + why + ended)
        self.in_short = found + ended
        self.summary = summary


def ingest(
    location: Location,
    source: str | os.PathLike[str],
    name: str,
    *,
    if_taken: IfTaken = "refuse",
    class_field: str = "meta_class",
    layout: Layout = "files",
    part_bytes: int = 64 * 2**20,
    part_rows: int = 4096,
    max_pixels: int = MAX_PIXELS,
    max_file_bytes: int = 128 * 2**20,
    workers: int | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Bring a source into the collection `name`: one row for each input, readable or not.

    A source is a folder (searched recursively; hidden files are ignored), one file, or an
    ``s3://`` prefix. Files ending in ``.tar``, ``.tar.gz`` or ``.tgz`` are read as webdataset
    archives, ``.parquet`` as tables with a bytes column, all others as images. Equal bytes are one
    image. An input that is known (same source, path, size and time or ETag) is not read again, so
    repeating an ingest costs a listing. It may be killed and started again at any time; the
    collection appears, or changes, as a whole at the end.

    A name that is in use is refreshed from its own source (or a folder around it). It follows the
    same images, path by path, to another place. Anything else needs `if_taken`.

    Args:
        location: where the collection is kept.
        source: the folder, file or S3 prefix.
        name: letters, digits, ``.``, ``_`` and ``-``.
        if_taken: where the name stands for other images: "refuse", "add" these to them, or let the
            name stand for these alone ("replace").
        class_field: column (Parquet) or key (``.json`` next to an image in a tar) of the class;
            without it the class is the first folder level.
        layout: "files" for images of any kind, or a published set whose label files name them.
        part_bytes: image bytes in a part; memory stays within a few times that.
        part_rows: most inputs in a part.
        max_pixels: larger images become rows with the status ``too_many_pixels``.
        max_file_bytes: larger files become rows with the status ``too_large``.
        workers: threads that read and decode; by default one for each core, up to 32.
        progress: called with (inputs done, inputs in all, or None where archives hide it).

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the name is not allowed.
        NameTaken: the name stands for other images.
        NothingUsable: it holds no usable image, and a name stands for some.
        LabelFault: the source is not of this layout.
    """
    check_name(name)
    origin = Location(os.fspath(source))
    listed = listed_as(layout, origin, list_files(origin, exclude=location))
    files = listed.files
    if not has_containers(files):
        paths = [file.path for file in files]
        refuse_other_files(location, name, origin.root, paths, if_taken)
    limits = Limits(max_pixels, max_file_bytes)
    writer = Writer(location, origin.root, limits, part_bytes, part_rows)
    events = scan(files, origin.root, limits, class_field, writer.knows_container)
    total = None if has_containers(files) else len(files)
    done = 0
    for result in _examined(events, writer, limits, workers or min(32, os.cpu_count() or 1)):
        writer.add(result)
        done += isinstance(result, Examined | Known)
        if progress is not None:
            progress(done, total)
    writer.close()
    places_of(location).find((), again=True)  # for readers, who may not be allowed to write
    found = Found(location, name, writer.source, writer.sources, writer.listing.column())
    summary = replace(_summary(writer, found), notes=listed.notes)
    if not summary.images:
        raise NothingUsable(summary, read_pointer(location, name) is not None)
    return replace(summary, change=give_name(found, if_taken))


def _examined(
    events: Iterable[Event], writer: Writer, limits: Limits, workers: int
) -> Iterator[Result]:
    """Read and decode new inputs in a few threads, a few inputs ahead, keeping the order."""

    def work(candidate: Candidate) -> Result:
        return writer.known(candidate) or examine(candidate, limits)

    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="ingest") as pool:
        for event in events:
            if isinstance(event, Candidate):
                ahead.append(pool.submit(work, event))
            else:
                ahead.append(_settled(event))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _settled(event: ContainerEnd | ContainerKnown) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(event)
    return future


def _summary(writer: Writer, found: Found) -> IngestSummary:
    rows = found.rows(["image_id", "status"])
    good = rows.filter(pl.col("status") == OK)
    images = good["image_id"].n_unique()
    bad_keys = rows.filter(pl.col("status") != OK)["source_key"]
    bad = found.table.read(["path", "status", "reason"], KeyColumn(bad_keys)).sort("path")
    failed = Counter(bad["status"])
    return IngestSummary(
        name=found.name,
        source=found.source,
        files=len(rows),
        images=images,
        duplicates=len(good) - images,
        failed=dict(sorted(failed.items())),
        new_files=writer.new_files,
        new_images=writer.new_images,
        new_bytes=writer.new_bytes,
        change=NOT_GIVEN,
        unusable=tuple(bad.select("path", "status", "reason").head(SHOWN).iter_rows()),
    )


@dataclass(frozen=True)
class Collection:
    """A named listing of inputs and their images. Make it with `Collection.open`."""

    location: Location
    name: str
    listing: str
    sources: Table
    images: Table

    @classmethod
    def open(cls, location: Location, name: str, source: str = "") -> Collection:
        """Open the collection that a name points to now.

        Args:
            location: where it is kept.
            name: of the collection.
            source: the place whose images are wanted. Where the name follows the same images
                from place to place, this finds them by the paths that they have there.

        Raises:
            UnknownCollection: the name is unknown; the message lists the collections that exist.
        """
        check_name(name)
        pointer = read_pointer(location, name)
        if pointer is None:
            raise unknown_collection(location, name)
        listing = pointer.listing
        if source and not pointer.covers(source):
            listing = read_place(location, name, source) or listing
        return cls.listed(location, name, listing)

    @classmethod
    def listed(cls, location: Location, name: str, listing: Listing) -> Collection:
        """Open a listing, whatever its name points to now."""
        sources = load_table(location, "sources", listing.sources)
        images = open_table(location, "images", IMAGES_SPEC)
        return cls(location, name, listing.key, sources, images)

    def rows(self) -> pl.DataFrame:
        """Return one row for each input, sorted by path, with its status and reason."""
        return self._read(None, self._source_keys()).sort(["path", "source_key"])

    def paths(self) -> ImagePaths:
        """Where all images came from, for many questions; see `paths_of` for one."""
        columns = ["image_id", "source", "path", "status"]
        rows = self._read(columns, self._source_keys())
        return ImagePaths.of(rows.filter(pl.col("status") == OK))

    def paths_of(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The files of some images, by path; none for an image that the collection lacks.

        Parts are read one by one: memory does not grow with the collection.
        """
        columns, wanted = ["image_id", "source", "path"], key_series(image_ids).implode()
        found = [
            rows.filter(pl.col("image_id").is_in(wanted))
            for rows in self.sources.iter_parts(columns)
        ]
        own = self._source_keys()
        rows = pl.concat(found) if found else self.sources.read(columns, [])
        listed = [key in own for key in rows["source_key"]]
        return ImagePaths.of(rows.filter(pl.Series(listed, dtype=pl.Boolean))).find(image_ids)

    def _source_keys(self) -> KeyColumn:
        return listing_keys(self.location, Listing(self.listing, self.sources.spec_key))

    def _read(self, columns: Sequence[str] | None, keys: KeyColumn) -> pl.DataFrame:
        rows = self.sources.read(columns, keys)
        if len(rows) != len(keys):
            raise IncompleteTable(
                f"collection {self.name} lists {len(keys)} {agreed(len(keys), 'input')},"
                f" {self.sources.folder} holds {len(rows)} of them; ingest the source again"
            )
        return rows

    def image_ids(self) -> KeyColumn:
        """Return the distinct images that decode, sorted."""
        keys = self._source_keys()
        rows = self._read(["image_id", "status"], keys)
        return KeyColumn.of(rows.filter(pl.col("status") == OK)["image_id"])

    def stored_between(
        self, since: datetime.date | None, until: datetime.date | None
    ) -> frozenset[str]:
        """Return the images whose bytes were stored on a day (UTC) of a range, ends included.

        An image that came in twice counts on the day on which it first came.
        """
        first: dict[str, datetime.date] = {}
        for entry in self.images.parts():
            day, keys = _stored(self.location, entry)
            for key in keys:
                first[key] = min(day, first.get(key, day))
        return frozenset(
            key
            for key, day in first.items()
            if (since is None or day >= since) and (until is None or day <= until)
        )

    def read_images(self, image_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Stream (image id, bytes), each image once, in the order in which they are stored.

        Their own bytes are read, a few megabytes at a time.

        Raises:
            IncompleteTable: after all others, if some are not stored.
            CorruptPart: one lies in a part that cannot be read.
        """
        yield from read_pictures(self.location, image_ids)


def _stored(location: Location, entry: Entry) -> tuple[datetime.date, list[str]]:
    """The day on which a part was made and the ids of its images."""
    with open_part(location, entry.path, entry.size) as part:
        return datetime.datetime.fromisoformat(part.footer().created).date(), part.keys()
