"""The pairs of images that modification texts are written for, as a value.

`PairSample` is a rule, not a list: the same rule draws the same pairs from the same collections.
It also stands for the images of its pairs, so that exactly those are captioned.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import Field, field_validator

from models.instructcir.pairs import VERSION, Pair, Pool, sample_pairs
from models.instructcir.triplets import triplet_id
from models.settings import Settings
from storage.collections.collection import Collection
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.plans import Keys
from tasks.choices import Within
from tasks.training.leak_guard import (
    Exclusion,
    Guarded,
    as_json,
    listing_of,
    usable_rows,
    ward_of,
    without_guarded,
)


class PairSource(Settings):
    """A collection that pairs are drawn from."""

    collection: str
    """Name of an ingested collection."""
    within: Within = "meta_class"
    """Pair images of one class, or any two of the collection."""
    weight: float = Field(1.0, gt=0)
    """Its share of the pairs, against the others'."""


class PairSample(Settings):
    """The first pairs of a seeded sample."""

    sources: tuple[PairSource, ...] = Field(min_length=1)
    count: int = Field(ge=1)
    """Number of pairs; fewer are a prefix of more."""
    seed: int = 0
    guard: tuple[Guarded, ...] = ()
    """Collections and benchmarks whose images are left out."""
    guard_names: bool = True
    """Leave out images by file name too."""

    @field_validator("sources")
    @classmethod
    def _in_order(cls, sources: tuple[PairSource, ...]) -> tuple[PairSource, ...]:
        """Sort by name: the order in which collections were typed plays no part."""
        names = [source.collection for source in sources]
        if len(set(names)) != len(names):
            raise ValueError(f"a collection is named twice: {', '.join(names)}")
        return tuple(sorted(sources, key=lambda source: source.collection))

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return "pairs of " + ", ".join(source.collection for source in self.sources)

    def pools(self, root: str) -> Pools:
        """The images that pairs are drawn from, after the leak guard."""
        rule = self.model_copy(update={"count": 1}).model_dump_json()
        return _pools(root, rule, self._listings(root))

    def pairs(self, root: str) -> tuple[Pair, ...]:
        """The pairs in the order in which they are drawn.

        Raises:
            NotEnoughPairs: the collections do not hold so many.
        """
        return _pairs(root, self.model_dump_json(), self._listings(root))

    def places(self, root: str) -> Mapping[str, tuple[int, Pair]]:
        """Triplet id -> place in the sample and pair, in the order of the places."""
        return _places(root, self.model_dump_json(), self._listings(root))

    def ids(self, root: str) -> list[str]:
        """Sorted distinct ids of the images in the pairs."""
        return list(_image_ids(root, self.model_dump_json(), self._listings(root)))

    def planned_keys(self, root: str) -> Keys:
        """The ids; a sample is drawn once in a process."""
        return self.ids(root)

    def read(self, root: str, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Stream (id, bytes) of some images; one table holds the images of all collections."""
        return Collection.open(Location(root), self.sources[0].collection).read_images(ids)

    def identity(self, root: str) -> dict[str, Any]:
        """Everything that decides the pairs, except their number, by content."""
        pools = self.pools(root)
        return {
            "version": VERSION,
            "seed": self.seed,
            "sources": [
                {**source.model_dump(), "images": images}
                for source, images in zip(self.sources, pools.image_keys, strict=True)
            ],
            "guard": as_json(pools.exclusions),
        }

    def _listings(self, root: str) -> tuple[str, ...]:
        """The listings that the collections' names point to now: part of every cache key below."""
        names = [*(source.collection for source in self.sources), *self.guard]
        return tuple(listing_of(root, name) for name in names)


@dataclass(frozen=True)
class Pools:
    """Images to draw from.

    Attributes:
        pools: One per source, in the order of their names.
        image_keys: Content key of each source's (image id, class) list.
        exclusions: The images that the leak guard took out, counted by source and guard.
    """

    pools: tuple[Pool, ...]
    image_keys: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]


@functools.lru_cache(maxsize=4)
def _pools(root: str, rule: str, listings: tuple[str, ...]) -> Pools:
    sample = PairSample.model_validate_json(rule)
    wards = [ward_of(root, guarded) for guarded in sample.guard]
    pools, keys, account = [], [], []
    for source in sample.sources:
        rows = usable_rows(root, source.collection)
        kept, excluded = without_guarded(rows, source.collection, wards, sample.guard_names)
        account += excluded
        members = _members(kept, source.within)
        keys.append(content_key(members.rows()))
        pools.append(Pool(source.collection, source.weight, _classes(members)))
    return Pools(tuple(pools), tuple(keys), tuple(account))


def _members(rows: pl.DataFrame, within: Within) -> pl.DataFrame:
    """Distinct (image id, class), sorted; over a whole collection there is one class, ""."""
    shown = pl.col("meta_class") if within == "meta_class" else pl.lit("").alias("meta_class")
    return rows.select("image_id", shown.fill_null("")).unique().sort("image_id", "meta_class")


def _classes(members: pl.DataFrame) -> dict[str, list[str]]:
    grouped = members.group_by("meta_class").agg(pl.col("image_id").sort())
    return dict(grouped.iter_rows())


@functools.lru_cache(maxsize=2)
def _pairs(root: str, sample_json: str, listings: tuple[str, ...]) -> tuple[Pair, ...]:
    sample = PairSample.model_validate_json(sample_json)
    return tuple(sample_pairs(sample.pools(root).pools, sample.count, sample.seed))


@functools.lru_cache(maxsize=2)
def _places(
    root: str, sample_json: str, listings: tuple[str, ...]
) -> Mapping[str, tuple[int, Pair]]:
    pairs = _pairs(root, sample_json, listings)
    return {triplet_id(p.reference, p.target): (place, p) for place, p in enumerate(pairs)}


@functools.lru_cache(maxsize=2)
def _image_ids(root: str, sample_json: str, listings: tuple[str, ...]) -> tuple[str, ...]:
    pairs = _pairs(root, sample_json, listings)
    return tuple(sorted({image for pair in pairs for image in (pair.reference, pair.target)}))
