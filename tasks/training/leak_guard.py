"""The guard list: images of benchmarks are kept out of the training pairs.

CIRR's images come from NLVR2, which InstructCIR's second source may hold too. An image is left out
if its bytes are those of a benchmark's image, or if its file has the name of one: the file name
without folder and ending, in lower case. A copy that was scaled or encoded again *and* renamed is
not recognised. Names say nothing where files are merely numbered; then compare content only.
Images of NLVR2 come in sets of eight that one search found: by default the whole set of a guarded
image is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import polars as pl

from models.spelling import counted
from storage.benchmarks.images import locate_images
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import load_annotations
from storage.collections.collection import Collection
from storage.collections.known import UnknownCollection
from storage.collections.sources.nlvr2 import set_of
from storage.locations.location import Location
from storage.tables.schemas import OK
from tasks.query_sets import BenchmarkRef, load_query_set

Guarded = BenchmarkRef | str
"""A benchmark or a collection with images that must not be trained on."""


@dataclass(frozen=True)
class Ward:
    """Images under guard.

    Attributes:
        name: Of the benchmark and split, or of the collection.
        image_ids: By content; None where the images are not available.
        stems: By file name.
        not_at_hand: Number of images of unknown content, because their files are absent.
    """

    name: str
    image_ids: frozenset[str] | None
    stems: frozenset[str]
    not_at_hand: int = 0


@dataclass(frozen=True)
class Exclusion:
    """The images that one guard took out of one collection.

    Attributes:
        guard: Name of the ward.
        collection: Where images were taken out.
        by_content: Images with the bytes of a guarded one.
        by_name: Further images with the file name of a guarded one.
        content_known: False where the guarded images were not available, so that only names were
            compared.
        guarded: Number of names under guard.
        not_at_hand: Guarded images that were compared by name only.
        by_set: Further images of NLVR2 that lie in a set of eight with a guarded one.
    """

    guard: str
    collection: str
    by_content: int
    by_name: int
    content_known: bool
    guarded: int
    not_at_hand: int = 0
    by_set: int = 0


def parse_guard(text: str) -> Guarded:
    """A guard as typed: `COLLECTION`, or `BENCHMARK:SPLIT:FOLDER`.

    Raises:
        ValueError: it is neither.
    """
    if ":" not in text:
        return text
    name, _, rest = text.partition(":")
    split, _, folder = rest.partition(":")
    if not (name and split and folder):
        raise ValueError(
            f"a guard is the name of a collection or BENCHMARK:SPLIT:FOLDER, such as "
            f"cirr:test1:data/cirr; not {text!r}"
        )
    return BenchmarkRef(name=name, root=folder, split=split, allow_missing=True)


def located(ref: BenchmarkRef) -> Benchmark:
    """A benchmark with those of its images that are on disk; none need be."""
    return locate_images(load_annotations(ref.name, ref.root, ref.split, **ref.options))


def listing_of(root: str, guarded: Guarded) -> str:
    """The listing of a guard's collection now; "" for a benchmark that was not ingested.

    Raises:
        UnknownCollection: a collection is named that does not exist.
    """
    name = guarded if isinstance(guarded, str) else guarded.collection_name
    try:
        return Collection.open(Location(root), name).listing
    except UnknownCollection:
        if isinstance(guarded, str):
            raise
        return ""


def ward_of(root: str, guarded: Guarded) -> Ward:
    """The images of a guard, by content where they were ingested, and by name."""
    if isinstance(guarded, str):
        rows = usable_rows(root, guarded)
        return Ward(guarded, frozenset(rows["image_id"]), frozenset(map(stem, rows["path"])))
    benchmark = located(guarded)
    files = [*benchmark.image_candidates, *_flat(benchmark.image_candidates.values())]
    content = None
    if benchmark.image_paths and listing_of(root, guarded):
        content = frozenset(load_query_set(root, guarded).all_ids())
    absent = len(benchmark.image_candidates) - (len(benchmark.image_paths) if content else 0)
    name = f"{guarded.name} {guarded.split}"
    return Ward(name, content, frozenset(map(stem, files)), absent)


def usable_rows(root: str, collection: str) -> pl.DataFrame:
    """The inputs of a collection that are images: image_id, meta_class, path."""
    rows = Collection.open(Location(root), collection).rows()
    return rows.filter(pl.col("status") == OK).select("image_id", "meta_class", "path")


def without_guarded(
    rows: pl.DataFrame,
    collection: str,
    wards: Sequence[Ward],
    by_name: bool = True,
    by_set: bool = True,
) -> tuple[pl.DataFrame, list[Exclusion]]:
    """Rows of the images that no ward holds, and an account of the others.

    Args:
        rows: As from `usable_rows`; an image with several files goes if one of them is guarded.
        collection: Its name, for the account.
        wards: Images under guard.
        by_name: Whether file names are compared too.
        by_set: Whether images of NLVR2 go with the set of a guarded one, where names are compared.
    """
    ids = set(rows["image_id"])
    stems = [(stem(path), image_id) for path, image_id in rows.select("path", "image_id").rows()]
    taken: set[str] = set()
    account = []
    for ward in wards:
        equal = ids & (ward.image_ids or frozenset())
        named = {image_id for name, image_id in stems if by_name and name in ward.stems} - equal
        sets = {set_of(name) for name in ward.stems} - {None} if by_set and by_name else set()
        near = {image_id for name, image_id in stems if set_of(name) in sets} - equal - named
        taken |= equal | named | near
        known = ward.image_ids is not None
        counts = len(equal), len(named), known, len(ward.stems), ward.not_at_hand, len(near)
        account.append(Exclusion(ward.name, collection, *counts))
    return rows.filter(~pl.col("image_id").is_in(list(taken))), account


def stem(path: str) -> str:
    """A file's name without folder, archive and ending, in lower case."""
    return PurePath(path.rpartition("!")[2]).stem.lower()


def _flat(groups: Iterable[Sequence[str]]) -> list[str]:
    return [each for group in groups for each in group]


def describe(exclusion: Exclusion) -> str:
    """An exclusion in words."""
    compared = (
        "content and names" if exclusion.content_known else "names only, images not available"
    )
    if exclusion.content_known and exclusion.not_at_hand:
        compared += f", {exclusion.not_at_hand:,} of the images not available"
    return (
        f"guard {exclusion.guard} ({counted(exclusion.guarded, 'name')}, compared by {compared}): "
        f"left out of {exclusion.collection}: {counted(exclusion.by_content, 'image')} of equal "
        f"content, {exclusion.by_name:,} of equal name"
        + (f", {exclusion.by_set:,} more of the same NLVR2 sets" if exclusion.by_set else "")
    )


def as_json(account: Sequence[Exclusion]) -> list[Mapping[str, str | int | bool]]:
    """The account as plain JSON; keys were made of it before there was `by_set`."""
    return [{k: v for k, v in vars(each).items() if k != "by_set" or v} for each in account]
