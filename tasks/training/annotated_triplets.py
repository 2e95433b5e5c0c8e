"""The annotated train split of a benchmark as a set of triplets: supervised training data.

Whatever is trained on it is not zero-shot: the table's spec names the benchmark under
`saw_benchmark_texts`, which every published network carries in its provenance.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from models.spelling import agreed, unknown
from storage.benchmarks.errors import BenchmarkError
from storage.benchmarks.records import Benchmark, Query
from storage.benchmarks.registry import BENCHMARKS, benchmark_facts
from storage.collections.known import UnknownCollection
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.plans import Shard
from storage.tables.schemas import OK
from storage.tables.table import Table, open_table
from tasks.query_sets import BenchmarkRef, QuerySet, image_folder, load_query_set
from tasks.training.triplet_sets import TripletSet

PRODUCER: Final = "cirflow/annotated_triplets/1"
_FORM: Final = re.compile(r"([\w-]+):([\w-]+):(.+)")
_SHARD: Final = 4096
_LEAST_GROUP: Final = 10
"""Triplets that a group may always have to be held out whole."""
_SHARE: Final = 10
"""One triplet in so many stands in front, to be held out: training holds out no more."""


def parse_split(given: str) -> BenchmarkRef | None:
    """The split that `BENCHMARK:SPLIT:FOLDER` names; None for a text of another form.

    Raises:
        BenchmarkError: there is no such benchmark, or the split is not one to train on; those that
            are are named.
    """
    form = _FORM.fullmatch(given)
    if form is None:
        return None
    name, split, folder = form.groups()
    if name not in BENCHMARKS:
        raise BenchmarkError(unknown("benchmark", name, BENCHMARKS))
    offered = [s.name for s in benchmark_facts(name).splits if s.targets and not s.offered]
    if not offered:
        raise BenchmarkError(f"{name} has no split to train on")
    if split not in offered:
        raise BenchmarkError(
            f"{unknown(f'split of {name} to train on', split, offered)}; others are evaluated on"
        )
    return BenchmarkRef(name=name, root=folder, split=split, allow_missing=True)


def annotated_triplets(root: str, ref: BenchmarkRef, allow_missing: bool = False) -> TripletSet:
    """The triplets of a split whose images are ingested; the same again make nothing.

    A triplet's text is the protocol's own first reading ("c1 and c2" of FashionIQ).

    Args:
        root: Root of the tables.
        ref: The split.
        allow_missing: Whether images may be absent; their triplets are rows that say so.

    Raises:
        BenchmarkError: annotations cannot be read.
        ValueError: images are not ingested, or absent, or no triplet is left.
    """
    benchmark = ref.load()
    try:
        found = load_query_set(root, ref)
    except UnknownCollection as error:
        folder = image_folder(benchmark)
        raise ValueError(
            f"the images of {ref.name} {ref.split} are not in the tables yet: "
            f"cirflow ingest {folder} --name {ref.collection_name} --root {root}"
        ) from error
    rows = list(_rows(benchmark, found, ref.collection_name))
    good = sum(row["status"] == OK for row in rows)
    if good < len(rows) and not allow_missing:
        first = next(row for row in rows if row["status"] != OK)
        raise ValueError(
            f"{len(rows) - good} of the {len(rows)} {agreed(len(rows), 'triplet')} of {ref.name} "
            f"{ref.split} cannot be used, first {first['reason']}. Mend the files and ingest "
            "again, or allow gaps (allow_missing_images=true)"
        )
    if not good:
        raise ValueError(f"no triplet of {ref.name} {ref.split} can be used: {rows[0]['reason']}")
    ordered = [
        {**rows[place], "position": position}
        for position, place in enumerate(
            order([(row["reference"], row["target"]) for row in rows], [r["text"] for r in rows])
        )
    ]
    table = open_table(Location(root), "triplets", _spec(ref, ordered))
    _publish(table, ordered)
    return TripletSet(
        root=str(Location(root)),
        spec_key=table.spec_key,
        collections=(ref.collection_name,),
        count=len(ordered),
    )


def order(pairs: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[int]:
    """The order of a set: what may be held out stands in front, the rest is shuffled.

    Training holds out the first triplets and leaves out all others that share an image with them.
    Pairs that are linked by images are a group; small groups stand in front, whole, until they are
    a tenth of all. In one chain of images (most of CIRR is one) little would be left to train on
    otherwise. The order follows from images and texts alone.

    Args:
        pairs: Reference and target images.
        texts: Of each pair.
    """
    mixed = [
        hashlib.sha256("\n".join((*pair, text)).encode()).hexdigest()
        for pair, text in zip(pairs, texts, strict=True)
    ]
    groups: dict[str, list[int]] = {}
    for place, leader in enumerate(_leaders(pairs)):
        groups.setdefault(leader, []).append(place)
    largest = max(_LEAST_GROUP, len(pairs) // 100)
    small = [group for group in groups.values() if len(group) <= largest]
    front: list[int] = []
    for group in sorted(small, key=lambda each: min(mixed[place] for place in each)):
        if len(front) * _SHARE >= len(pairs):
            break
        front += sorted(group, key=mixed.__getitem__)
    rest = set(range(len(pairs))) - set(front)
    return [*front, *sorted(rest, key=mixed.__getitem__)]


def _leaders(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """For each pair an image that stands for all that are linked with it."""
    above: dict[str, str] = {}

    def leader(image: str) -> str:
        while (parent := above.setdefault(image, image)) != image:
            above[image] = above[parent]
            image = parent
        return image

    for reference, target in pairs:
        above[leader(reference)] = leader(target)
    return (leader(reference) for reference, _ in pairs)


def _rows(benchmark: Benchmark, found: QuerySet, collection: str) -> Iterator[dict[str, Any]]:
    """A row for each right answer of each query; absent images are named by their names."""
    for query in benchmark.queries:
        for target in query.targets:
            yield _row(benchmark, found, query, target, collection)


def _row(
    benchmark: Benchmark, found: QuerySet, query: Query, target: str, collection: str
) -> dict[str, Any]:
    sides = [found.image_ids.get(name, "") for name in (query.reference, target)]
    absent = [name for name in (query.reference, target) if name not in found.image_ids]
    status, reason, text = OK, "", query.texts[0]
    if absent:
        status, reason = (
            "missing_input",
            f"{absent[0]} {found.unusable.get(absent[0], 'is absent')}",
        )
    elif not text:
        status, reason = "rejected", f"query {query.query_id} has no text"
    elif sides[0] == sides[1]:
        status, reason = "rejected", f"query {query.query_id}: reference and target are one image"
    whole = f"{benchmark.name} {benchmark.split}>{query.query_id}>{'>'.join(sides)}>{text}"
    return {
        "triplet_id": hashlib.sha256(whole.encode()).hexdigest()[:20],
        "position": 0,
        "reference": sides[0],
        "target": sides[1],
        "source": collection,
        "meta_class": query.category,
        "reference_caption": "",
        "target_caption": "",
        "text": text,
        "attempts": 0,
        "raw": "\n".join(query.captions),
        "status": status,
        "reason": reason,
    }


def _spec(ref: BenchmarkRef, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = ("triplet_id", "position", "status", "reason")
    return {
        "producer": PRODUCER,
        "generator": {
            "model": f"the annotators of {ref.name} {ref.split}",
            "saw_benchmark_texts": [ref.name],
        },
        "benchmark": ref.name,
        "split": ref.split,
        "rows": content_key([[row[name] for name in told] for row in rows]),
    }


def _publish(table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Publish the rows; parts that are there stay as they are."""
    by_key = {row["triplet_id"]: row for row in rows}
    for shard in table.plan(sorted(by_key), _SHARD).shards:
        _publish_shard(table, shard, [by_key[key] for key in shard.members])


def _publish_shard(table: Table, shard: Shard, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table.publish(shard, table.rows(**columns))
