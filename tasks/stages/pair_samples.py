"""The pairs of images that modification texts are written for, as a value.

`PairSample` is a rule, not a list: the same rule draws the same pairs from the same collections.
It also stands for the images of its pairs, so that exactly those are captioned.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import polars as pl
from pydantic import Field, field_validator, model_validator

from models.encoders.spec import EncoderSpec
from models.instructcir.pairs import VERSION, Pair, Pool, sample_pairs
from models.instructcir.similarity import VERSION as SIMILARITY_VERSION
from models.instructcir.similarity import Similarity, check_band, spread
from models.settings import Settings
from models.spelling import agreed, counted
from models.triplets import triplet_id
from storage.collections.sources.fashion200k import product_of
from storage.tables.keys import content_key
from storage.tables.plans import Keys
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable
from tasks.choices import Within
from tasks.settings import PictureSettings
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.image_sets import ImageSet, StoredImages
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
    same_product: bool = False
    """Pair views of one product too (images of Fashion200k, by their paths)."""


class SimilarityBand(Settings):
    """The part of each class's pairs that is drawn from, by the rank of their similarity."""

    low: float = 0.0
    """Share of a class's pairs that are too unlike."""
    high: float = 1.0
    """Upper end of the band; below 1, the share above it is too alike."""
    encoder: EncoderSpec
    """Its image features are compared by their cosine."""
    pictures: PictureSettings = PictureSettings()

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        check_band(self.low, self.high)
        return self

    def features(self, root: str, collection: str, shard_size: int = 512) -> ImageFeatureStage:
        """The features of a collection's images."""
        return ImageFeatureStage(
            root=root,
            shard_size=shard_size,
            images=ImageSet(collection=collection),
            encoder=self.encoder,
            pictures=self.pictures,
        )


class PairSample(StoredImages):
    """The first pairs of a seeded sample."""

    sources: tuple[PairSource, ...] = Field(min_length=1)
    count: int = Field(ge=1)
    """Number of pairs; fewer are a prefix of more."""
    seed: int = 0
    guard: tuple[Guarded, ...] = ()
    """Collections and benchmarks whose images are left out."""
    guard_names: bool = True
    """Leave out images by file name too."""
    guard_sets: bool = True
    """Leave out the whole set of eight images of a guarded image of NLVR2."""
    similarity: SimilarityBand | None = None
    """Draw pairs of this similarity only; none: of any."""

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

    def similarities(self, root: str) -> Mapping[str, float]:
        """The spread of the pairs' cosine similarity; empty for pairs of any similarity."""
        vectors = self.pools(root).similarity
        pairs = [(pair.reference, pair.target) for pair in self.pairs(root)] if vectors else []
        return spread(vectors.of(pairs)) if vectors else {}

    def features(self, root: str, shard_size: int) -> list[ImageFeatureStage]:
        """The stages whose features a band of similarity needs."""
        names = [source.collection for source in self.sources]
        band = self.similarity
        return [band.features(root, name, shard_size) for name in names] if band else []

    def identity(self, root: str) -> dict[str, Any]:
        """Everything that decides the pairs, except their number, by content."""
        pools = self.pools(root)
        return {
            **self._banded(root),
            "version": VERSION,
            "seed": self.seed,
            "sources": [
                {**source.model_dump(exclude={"same_product"}), "images": images, **_apart(pool)}
                for source, images, pool in zip(
                    self.sources, pools.image_keys, pools.pools, strict=True
                )
            ],
            "guard": as_json(pools.exclusions),
        }

    def _banded(self, root: str) -> dict[str, Any]:
        """The band's part in the identity; images that lack a feature are not in the pools."""
        if self.similarity is None:
            return {}
        features = self.similarity.features(root, self.sources[0].collection).spec_key
        band = {"low": self.similarity.low, "high": self.similarity.high}
        return {"similarity": {"version": SIMILARITY_VERSION, "features": features, **band}}

    def _listings(self, root: str) -> tuple[str, ...]:
        """What the pools are read from, as it is now: part of every cache key below."""
        names = [*(source.collection for source in self.sources), *self.guard]
        parts: list[str] = []
        if self.similarity is not None:
            features = self.similarity.features(root, self.sources[0].collection)
            parts = [entry.path for entry in features.existing_table().parts()]
        return (*(listing_of(root, name) for name in names), *parts)


@dataclass(frozen=True)
class Pools:
    """Images to draw from.

    Attributes:
        pools: One per source, in the order of their names.
        image_keys: Content key of each source's (image id, class) list.
        exclusions: The images that the leak guard took out, counted by source and guard.
        similarity: Of the images, where a band of it is asked for.
        without_feature: Images that have no feature to compare, and are in no pool.
    """

    pools: tuple[Pool, ...]
    image_keys: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]
    similarity: Similarity | None = None
    without_feature: int = 0


@functools.lru_cache(maxsize=4)
def _pools(root: str, rule: str, listings: tuple[str, ...]) -> Pools:
    sample = PairSample.model_validate_json(rule)
    wards = [ward_of(root, guarded) for guarded in sample.guard]
    members, groups, account = [], [], []
    for source in sample.sources:
        rows = usable_rows(root, source.collection)
        kept, excluded = without_guarded(
            rows, source.collection, wards, sample.guard_names, sample.guard_sets
        )
        account += excluded
        groups.append({} if source.same_product else _products(kept))
        members.append(_members(kept, source.within))
    similarity, lacking = None, set[str]()
    if sample.similarity is not None:
        ids = sorted({image for own in members for image in own["image_id"]})
        similarity, lacking = _similarity(sample.similarity, root, sample.sources, ids)
        members = [own.filter(~pl.col("image_id").is_in(list(lacking))) for own in members]
    pools = [
        Pool(source.collection, source.weight, _classes(own), apart)
        for source, own, apart in zip(sample.sources, members, groups, strict=True)
    ]
    keys = [content_key(own.rows()) for own in members]
    return Pools(tuple(pools), tuple(keys), tuple(account), similarity, len(lacking))


def _similarity(
    band: SimilarityBand, root: str, sources: Sequence[PairSource], ids: Sequence[str]
) -> tuple[Similarity, set[str]]:
    """The similarities of some images, and those images that have no usable feature.

    Raises:
        IncompleteTable: features were not made yet.
    """
    table = band.features(root, sources[0].collection).existing_table()
    statuses = dict(table.read(["status"], ids).select("image_id", "status").iter_rows())
    if len(statuses) < len(ids):
        lacking = len(ids) - len(statuses)
        raise IncompleteTable(
            f"{lacking:,} of {counted(len(ids), 'image')} {agreed(lacking, 'has', 'have')} no "
            f"feature to compare yet; generate-triplets makes {agreed(lacking, 'it', 'them')} "
            "before it draws pairs, run it again"
        )
    usable = [image for image in ids if statuses[image] == OK]
    return Similarity(usable, table.vectors(usable)), set(ids) - set(usable)


def _products(rows: pl.DataFrame) -> dict[str, frozenset[str]]:
    """Image id -> products that it shows, of images of Fashion200k."""
    found: dict[str, frozenset[str]] = {}
    for image, path in rows.select("image_id", "path").iter_rows():
        if product := product_of(path):
            found[image] = found.get(image, frozenset()) | {product}
    return found


def _apart(pool: Pool) -> dict[str, str]:
    """The part of groups in an identity; nothing where there are none."""
    if not pool.groups:
        return {}
    return {"apart": content_key([[k, *sorted(v)] for k, v in sorted(pool.groups.items())])}


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
    pools, band = sample.pools(root), sample.similarity
    narrowed = pools.similarity.band(band.low, band.high) if pools.similarity and band else None
    return tuple(sample_pairs(pools.pools, sample.count, sample.seed, narrowed))


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
