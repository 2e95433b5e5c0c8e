"""Triplets of others as a table: joined with the images of a collection, and written again."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

from models.spelling import agreed
from storage.collections.collection import Collection
from storage.exchange.sources import ExchangeError, SourceFile
from storage.exchange.triplet_forms import FORMS, PublishedTriplet, read_triplets
from storage.locations.location import Location
from storage.tables.plans import Shard
from storage.tables.schemas import OK
from storage.tables.table import Table, open_table
from tasks.image_names import ImageNames
from tasks.training.leak_guard import usable_rows
from tasks.training.triplet_sets import TripletSet

PRODUCER: Final = "cirflow/imported_triplets/1"
MISSING_IMAGE: Final = "missing_input"
REJECTED: Final = "rejected"
_SHARD: Final = 4096

Texts = Literal["all", "one"]
"""Of a record with several texts: a triplet for each, or one drawn by the record's images."""


@dataclass(frozen=True)
class Imported:
    """What an import found.

    Attributes:
        triplets: The reference that training takes.
        records: Records of the files.
        statuses: Status -> triplets; `ok` ones can be trained on.
        repeated: Triplets that occurred before, left out.
        first_missing: Place and name of the first image that the collection lacks; empty if none.
    """

    triplets: TripletSet
    records: int
    statuses: Mapping[str, int]
    repeated: int
    first_missing: str


def import_triplets(
    root: str,
    sources: Sequence[SourceFile],
    form: str,
    collection: str,
    *,
    fields: Mapping[str, str],
    texts: Texts = "all",
    limit: int | None = None,
    allow_missing: bool = False,
) -> Imported:
    """Read files into a triplets table of their own; the same files again make nothing.

    Args:
        root: Root of the tables.
        sources: Files of one form, read in this order.
        form: One of `FORMS`.
        collection: An ingested collection with the images.
        fields: Our name -> name of the field, where it differs from the form's.
        texts: Which texts of a record with several are taken.
        limit: Most records that are read.
        allow_missing: Whether images may be absent; their triplets are rows that say so.

    Raises:
        ExchangeError: a record does not fit, images are absent, or no triplet is left.
    """
    names = ImageNames(root, collection, FORMS[form].name)
    placed = itertools.islice(_all(sources, form, fields), limit)
    counted = _Counted(names, collection, texts)
    # Rows are joined before anything is published, so that a file that is refused leaves nothing.
    rows = list(counted.rows(placed, allow_missing))
    if not counted.statuses[OK]:
        records = counted.records
        raise ExchangeError(
            f"none of the {records:,} {agreed(records, 'record')} can be used with {collection}: "
            f"{counted.first_missing or 'no text'}"
        )
    table = open_table(
        Location(root), "triplets", _spec(root, sources, form, collection, fields, texts, limit)
    )
    _publish(table, rows)
    found = TripletSet(
        root=str(Location(root)),
        spec_key=table.spec_key,
        collections=(collection,),
        count=len(rows),
    )
    return Imported(
        found, counted.records, dict(counted.statuses), counted.repeated, counted.first_missing
    )


def _spec(
    root: str,
    sources: Sequence[SourceFile],
    form: str,
    collection: str,
    fields: Mapping[str, str],
    texts: Texts,
    limit: int | None,
) -> dict[str, Any]:
    """Files, reading and images by content; `generator` is what makers of texts are named by."""
    return {
        "producer": PRODUCER,
        "imported": [{"file": source.name, "sha256": source.sha256} for source in sources],
        "generator": {"model": "imported from " + " and ".join(s.title for s in sources)},
        "form": form,
        "fields": dict(fields),
        "texts": texts,
        "limit": limit,
        "collection": {
            "name": collection,
            "listing": Collection.open(Location(root), collection).listing,
        },
    }


def _all(
    sources: Sequence[SourceFile], form: str, fields: Mapping[str, str]
) -> Iterator[PublishedTriplet]:
    for source in sources:
        yield from read_triplets(source.path, form, fields)


class _Counted:
    """Makes rows of records, and counts."""

    def __init__(self, names: ImageNames, collection: str, texts: Texts) -> None:
        self.statuses: Counter[str] = Counter()
        self.records = self.repeated = 0
        self.first_missing = ""
        self._names, self._collection, self._texts = names, collection, texts
        self._seen: set[str] = set()

    def rows(
        self, records: Iterable[PublishedTriplet], allow_missing: bool
    ) -> Iterator[dict[str, Any]]:
        """A row for each different triplet, in the order of the files."""
        for record in records:
            self.records += 1
            sides = [self._names.find(name) for name in (record.reference, record.target)]
            absent = [
                n
                for n, i in zip((record.reference, record.target), sides, strict=True)
                if i is None
            ]
            if absent and not self.first_missing:
                self.first_missing = f"{record.where}: no image {absent[0]} in {self._collection}"
            if absent and not allow_missing:
                raise ExchangeError(
                    f"{self.first_missing}. Ingest it, or leave out what is absent: --allow-missing"
                )
            for text in self._chosen(record):
                row = self._row(record, sides, absent, text)
                if row["triplet_id"] in self._seen:
                    self.repeated += 1
                    continue
                self._seen.add(row["triplet_id"])
                self.statuses[row["status"]] += 1
                yield row

    def _chosen(self, record: PublishedTriplet) -> Sequence[str]:
        if self._texts == "all":
            return record.texts
        return [Random(f"{record.reference}>{record.target}").choice(record.texts)]

    def _row(
        self,
        record: PublishedTriplet,
        sides: Sequence[str | None],
        absent: Sequence[str],
        text: str,
    ) -> dict[str, Any]:
        status, reason = OK, ""
        if absent:
            status, reason = MISSING_IMAGE, f"no image {' and '.join(absent)}"
        elif not text:
            status, reason = REJECTED, "no text"
        elif sides[0] == sides[1]:
            status, reason = REJECTED, "reference and target are one image"
        whole = f"{record.reference}>{record.target}>{text}"
        return {
            "triplet_id": hashlib.sha256(whole.encode()).hexdigest()[:20],
            "position": len(self._seen),
            "reference": sides[0] or "",
            "target": sides[1] or "",
            "source": self._collection,
            "meta_class": self._names.classes.get(sides[0] or "", ""),
            "reference_caption": "",
            "target_caption": record.target_caption or "",
            "text": text if status == OK else None,
            "attempts": 0,
            "raw": text,
            "status": status,
            "reason": reason,
        }


def _publish(table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Publish the rows in the order of the files; parts that are there stay as they are."""
    for start in range(0, len(rows), _SHARD):
        part = {row["triplet_id"]: row for row in rows[start : start + _SHARD]}
        shard = Shard.of(list(part))
        ordered = [part[key] for key in shard.members]
        columns = {name: [row[name] for row in ordered] for name in ordered[0]}
        table.publish(shard, table.rows(**columns))


def exported(triplets: TripletSet) -> Iterator[PublishedTriplet]:
    """The usable triplets of a set in their order, images named by their paths."""
    paths: dict[str, str] = {}
    for collection in triplets.collections:
        rows = usable_rows(triplets.root, collection).sort("path")
        for image, path in rows.select("image_id", "path").iter_rows():
            paths.setdefault(image, path)
    for each in triplets.triplets():
        yield PublishedTriplet(
            where=f"position {each.position}",
            reference=paths[each.reference],
            target=paths[each.target],
            texts=(each.text,),
            target_caption=each.target_caption or None,
        )
