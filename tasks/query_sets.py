"""A benchmark joined to a collection: its queries and galleries by image id instead of by name."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field

from models.settings import Settings
from models.spelling import agreed
from storage.benchmarks.indexing import IndexedCategory, index_category
from storage.benchmarks.records import Benchmark, Query
from storage.benchmarks.registry import benchmark_facts, load_benchmark
from storage.collections.known import Listing
from storage.locations.location import Location
from storage.tables.keys import content_key
from tasks.query_texts import (
    OWN_TEXTS,
    PARAPHRASED,
    FoundTexts,
    QueryTexts,
    file_texts,
    key_of,
    paraphrased_texts,
    written_texts,
)

WORLD_NOTE = "world.json"
"""A file in the folder of a benchmark that marks it as drawn."""


class BenchmarkRef(Settings):
    """A split of a benchmark, the folder of its files, and its protocol."""

    name: str
    """Name of the benchmark."""
    root: str
    """Folder of the benchmark in its published layout."""
    split: str = "val"
    """The split's published name."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Protocol switches of the benchmark's loader."""
    collection: str = ""
    """Name of the image collection; empty: NAME-SPLIT."""
    allow_missing: bool = False
    """Accept that images are missing."""
    texts: QueryTexts = OWN_TEXTS
    """Texts that the queries are asked with."""
    listing: Listing | None = None
    """The collection's listing that a plan was made for; empty: the present one."""

    @property
    def collection_name(self) -> str:
        """The collection that the benchmark's images are ingested into."""
        return self.collection or f"{self.name}-{self.split}"

    @property
    def title(self) -> str:
        """Name of what is evaluated: the collection, and the texts where they are not its own."""
        own = self.texts
        which = f" {own.source} {own.content[:8]}".rstrip() if own.are_replaced else ""
        return f"{self.collection_name}{which}"

    def load(self) -> Benchmark:
        """The benchmark with its images located, and with its own texts."""
        return _load_benchmark(self.model_dump_json(exclude={"listing", "texts"}))

    def with_texts(self, texts: QueryTexts) -> BenchmarkRef:
        """The same queries with other texts."""
        return self.model_copy(update={"texts": texts})

    def pinned(self, root: str) -> BenchmarkRef:
        """The same with the present listing, so that all stages of a plan see the same images."""
        return self.model_copy(update={"listing": _present_listing(root, self)})

    def items(self, root: str) -> dict[str, QueryItem]:
        """The distinct queries whose reference image is readable, by content key."""
        return {item.key: item for item in load_query_set(root, self).items.values()}


class OneQuery(Settings):
    """A query of a person: a reference image and a text that belong to no benchmark."""

    image_id: str
    """sha256 of the reference image."""
    text: str
    """Modification text."""
    collection_name: ClassVar[str] = "the query"

    def items(self, root: str) -> dict[str, QueryItem]:
        """The query by content key."""
        item = QueryItem.of(self.image_id, (self.text,))
        return {item.key: item}


NO_QUERY: Final = OneQuery(image_id="0" * 64, text="")
"""Stands for a query that is still to come."""


class TripletQueries(Settings):
    """The queries of generated triplets, whose images lie in one collection."""

    root: str
    """Root of the triplets."""
    spec_key: str
    """Key of their table."""
    count: int
    """Pairs taken from the beginning of the sample."""
    collection_name: str
    """The collection; triplets of others are left out."""

    def items(self, root: str) -> dict[str, QueryItem]:
        """The distinct queries by content key."""
        from storage.tables.schemas import OK
        from storage.tables.table import load_table

        columns = ["reference", "text", "source", "position", "status"]
        rows = load_table(Location(self.root), "triplets", self.spec_key).read(columns)
        found: dict[str, QueryItem] = {}
        for reference, text, source, position, status in rows.select(columns).iter_rows():
            if status == OK and source == self.collection_name and position < self.count:
                item = QueryItem.of(reference, (text,))
                found[item.key] = item
        return found


Queries = BenchmarkRef | OneQuery | TripletQueries
"""Where queries come from."""


@functools.lru_cache(maxsize=8)
def _load_benchmark(ref_json: str) -> Benchmark:
    ref = BenchmarkRef.model_validate_json(ref_json)
    options = {**benchmark_facts(ref.name).options, **ref.options}
    return load_benchmark(ref.name, ref.root, ref.split, allow_missing=ref.allow_missing, **options)


def is_embedded_world(root: str) -> bool:
    """Whether the benchmark in this folder was drawn by `embedded_world`."""
    return Path(root, WORLD_NOTE).is_file()


def image_folder(benchmark: Benchmark) -> str:
    """The deepest folder that holds all images of a located benchmark."""
    folders = {os.path.dirname(path) for path in benchmark.image_paths.values()}
    return os.path.commonpath(sorted(folders))


@dataclass(frozen=True)
class QueryItem:
    """A query by content: equal texts about equal images are one query.

    Attributes:
        key: content key of the reference image and the texts.
        image_id: the reference image.
        texts: all readings of the modification text, the protocol's own first.
    """

    key: str
    image_id: str
    texts: tuple[str, ...]

    @classmethod
    def of(cls, image_id: str, texts: tuple[str, ...]) -> QueryItem:
        """Make the item of an image and its texts."""
        return cls(content_key({"image": image_id, "texts": list(texts)}), image_id, texts)


@dataclass(frozen=True)
class QuerySet:
    """Queries and galleries of a benchmark, joined to image ids.

    Attributes:
        benchmark: as loaded; its protocol says how many images were found.
        image_ids: benchmark image name -> image id, of every readable image.
        items: query id (with its category, see `item_of`) -> the query by content.
        unusable: benchmark image name -> why it has no image, of every other image.
        untold: query -> why it has no text, where texts are replaced.
    """

    benchmark: Benchmark
    image_ids: Mapping[str, str]
    items: Mapping[tuple[str, str], QueryItem]
    unusable: Mapping[str, str]
    untold: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def not_asked(self) -> list[str]:
        """A line for each query that has no reference image or no text: the query, the reason."""
        return [
            f"query {query.query_id} has no {why}"
            for query in self.benchmark.queries
            if (why := self.why_not_asked(query))
        ]

    def why_not_asked(self, query: Query) -> str:
        """What a query lacks, and the reason; empty for a query that can be asked."""
        if query.reference in self.unusable:
            return f"reference image: {query.reference} {self.unusable[query.reference]}"
        reason = self.untold.get(key_of(query), "")
        return f"text: {reason}" if reason else ""

    def item_of(self, query: Query) -> QueryItem | None:
        """The query by content; None where its reference image is not readable."""
        return self.items.get((query.category, query.query_id))

    def reference_ids(self) -> list[str]:
        """Distinct image ids of the references."""
        return sorted({item.image_id for item in self.items.values()})

    def gallery_ids(self) -> list[str]:
        """Distinct image ids of all galleries."""
        names = {name for gallery in self.benchmark.galleries.values() for name in gallery}
        return sorted({self.image_ids[name] for name in names if name in self.image_ids})

    def all_ids(self) -> list[str]:
        """Distinct image ids of references and galleries."""
        return sorted({*self.reference_ids(), *self.gallery_ids()})

    def view(self, category: str, usable: frozenset[str] | None = None) -> IndexedCategory:
        """The integer view of one category over the images that can be searched.

        Args:
            category: a gallery of the benchmark.
            usable: image ids that have all features; None for all readable images.
        """
        gallery = [
            name
            for name in self.benchmark.galleries[category]
            if name in self.image_ids and (usable is None or self.image_ids[name] in usable)
        ]
        return index_category(self.benchmark, category, gallery)


def load_query_set(root: str, ref: BenchmarkRef) -> QuerySet:
    """Join a benchmark to its ingested collection.

    Raises:
        ValueError: some of its images were not ingested (run the ingest flow first), or are
            unreadable and missing images are not allowed.
    """
    listing = ref.listing or _present_listing(root, ref)
    return _load_query_set(root, ref.model_dump_json(exclude={"listing"}), listing)


def _present_listing(root: str, ref: BenchmarkRef) -> Listing:
    """The present listing of the collection, at the place of the benchmark's images."""
    from storage.collections.collection import Collection

    benchmark = ref.load()
    folder = Location(image_folder(benchmark)).root if benchmark.image_paths else ""
    collection = Collection.open(Location(root), ref.collection_name, folder)
    return Listing(collection.listing, collection.sources.spec_key)


@functools.lru_cache(maxsize=8)
def _load_query_set(root: str, ref_json: str, listing: Listing) -> QuerySet:
    from storage.collections.collection import Collection
    from storage.tables.schemas import OK

    ref = BenchmarkRef.model_validate_json(ref_json)
    benchmark = ref.load()
    rows = Collection.listed(Location(root), ref.collection_name, listing).rows()
    ids: dict[str, str] = {}
    reasons: dict[str, str] = {}
    columns = ("source", "path", "image_id", "status", "reason")
    for source, path, image_id, status, reason in rows.select(columns).iter_rows():
        place = os.path.join(source, path)
        if status == OK:
            ids[place] = image_id
        else:
            reasons[place] = f"cannot be used: {status} ({reason})"
    found = {
        name: ids[os.path.abspath(path)]
        for name, path in benchmark.image_paths.items()
        if os.path.abspath(path) in ids
    }
    outside = f"is not in the collection {ref.collection_name!r}"
    unusable = {
        name: reasons.get(os.path.abspath(path), outside)
        for name, path in sorted(benchmark.image_paths.items())
        if name not in found
    }
    if unusable and not ref.allow_missing:
        first = "; ".join(f"{name} {why}" for name, why in list(unusable.items())[:3])
        raise ValueError(
            f"{len(unusable)} of {len(benchmark.image_paths)} "
            f"{agreed(len(benchmark.image_paths), 'image')} of {ref.name} {ref.split} "
            f"cannot be used, first {first}. Mend the files and ingest again, "
            "or allow gaps (allow_missing_images=true): absent targets then count as misses"
        )
    untold: Mapping[tuple[str, str], str] = {}
    if ref.texts.are_replaced:
        texts = _texts_as_planned(root, ref, benchmark, found)
        benchmark, untold = texts.replaced(benchmark), texts.without
    items = {
        key_of(query): QueryItem.of(found[query.reference], query.texts)
        for query in benchmark.queries
        if query.reference in found and key_of(query) not in untold
    }
    unusable |= dict.fromkeys(benchmark.missing, "is missing on disk")
    return QuerySet(benchmark, found, items, unusable, untold)


def found_texts(
    root: str, texts: QueryTexts, benchmark: Benchmark, image_ids: Mapping[str, str]
) -> FoundTexts:
    """The present texts in place of a benchmark's own.

    Raises:
        ValueError: a file's texts are not those of the benchmark's queries.
    """
    if texts.source == "file":
        return file_texts(texts.place, benchmark)
    if texts.source == PARAPHRASED:
        return paraphrased_texts(root, texts.place, benchmark)
    return written_texts(root, texts.place, benchmark, image_ids)


def _texts_as_planned(
    root: str, ref: BenchmarkRef, benchmark: Benchmark, image_ids: Mapping[str, str]
) -> FoundTexts:
    if not ref.texts.content:
        raise ValueError(f"the {ref.texts.source} texts of {ref.collection_name} are not made yet")
    texts = found_texts(root, ref.texts, benchmark, image_ids)
    if texts.content != ref.texts.content:
        raise ValueError(
            f"the {ref.texts.source} texts of {ref.collection_name} ({ref.texts.place}) are not "
            "those that this run was planned with: run it again"
        )
    return texts


def protocol_of(ref: BenchmarkRef, query_set: QuerySet) -> dict[str, object]:
    """The choices that results on this benchmark depend on, as plain JSON."""
    benchmark = query_set.benchmark
    protocol = json.loads(json.dumps(dict(benchmark.protocol), default=list))
    if protocol.get("join") == "both":
        protocol["join"] = "first and second; pseudo-word features average both orders"
    if ref.texts.are_replaced:
        own = ref.texts.model_dump(include={"source", "content", "label"})
        protocol |= {"texts": own | {"without": len(query_set.untold)}}
        protocol |= {name: "replaced" for name in ("join", "empty_side") if name in protocol}
    return {
        **protocol,
        "benchmark": benchmark.name,
        "split": benchmark.split,
        "world": "embedded" if is_embedded_world(ref.root) else "real",
        "queries": len(benchmark.queries),
        "gallery_size": {key: len(names) for key, names in benchmark.galleries.items()},
        "readable_images": len(query_set.image_ids),
    }
