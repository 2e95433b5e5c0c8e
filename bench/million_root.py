"""A whole root of many images, made by the project's own code with random texts and vectors.

`ingest` takes in a Parquet file of distinct pictures of 4 x 4 pixels; captions and image features
are published in the shards of their stages' plans. A thousand of the features are left out.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from storage.collections.collection import Collection, ingest
from storage.collections.places import places_of
from storage.locations.location import Location
from storage.tables.table import Table, open_table

NAME: Final = "synthetic"
DIM: Final = 768
LACKING: Final = 1000
"""Images without features, at most one in ten."""
FEATURES: Final = 512
"""Rows of a shard of features."""
METHOD: Final = "image-text-sum"
SIDE: Final = 4

Figures = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The folder of a run.

    Attributes:
        folder: holds `source`, `root` and `query.png`.
        images: pictures of the source.
    """

    folder: Path
    images: int

    @property
    def root(self) -> Location:
        """The root of the tables."""
        return Location(str(self.folder / "root"))

    @property
    def ids(self) -> pl.Series:
        """The collection's images, sorted."""
        return Collection.open(self.root, NAME).image_ids().series

    @property
    def lacking(self) -> int:
        """Images without features."""
        return min(LACKING, self.images // 10)

    @property
    def features(self) -> Table:
        """The features that `vectors` and exact search read."""
        spec = {"producer": "bench", "dim": DIM, "dtype": "float32"}
        return open_table(self.root, "image_features", spec)


def pictures(start: int, count: int) -> list[bytes]:
    """Files that decode, no two alike: the first bytes of the pixels hold the number."""
    random = np.random.default_rng(start).integers(0, 256, (count, 3 * SIDE**2), dtype=np.uint8)
    random[:, :8] = np.arange(start, start + count, dtype=np.uint64)[:, None].view(np.uint8)
    return [b"P6 %d %d 255\n" % (SIDE, SIDE) + pixels.tobytes() for pixels in random]


def write_source(place: Place, name: str, start: int, count: int) -> None:
    """A folder with one Parquet file of pictures."""
    folder = place.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / "a.parquet", pa.schema([("image", pa.binary())])) as file:
        for first in range(start, start + count, 2**16):
            held = pictures(first, min(2**16, start + count - first))
            file.write_table(pa.table({"image": held}))


def make_source(place: Place) -> Figures:
    """The pictures of the collection, and one to search with."""
    write_source(place, "source", 0, place.images)
    Image.new("RGB", (96, 96), "red").save(place.folder / "query.png")
    return {}


def take_in(place: Place) -> Figures:
    """Ingest the source."""
    found = ingest(place.root, place.folder / "source", NAME, workers=1)
    return {"result": found.images, "new": found.new_images}


def take_in_naive(place: Place) -> Figures:
    """Hash and decode every picture of the source; keep nothing but the hashes."""
    seen = set()
    for file in sorted((place.folder / "source").iterdir()):
        for batch in pq.ParquetFile(file).iter_batches(1024):
            for data in batch["image"].to_pylist():
                seen.add(hashlib.sha256(data).hexdigest())
                Image.open(io.BytesIO(data)).convert("RGB")
    return {"result": len(seen)}


def take_in_more(place: Place) -> Figures:
    """Ingest a thousandth more below another name."""
    count = max(1, place.images // 1000)
    write_source(place, "more", place.images, count)
    before = time.process_time()
    found = ingest(place.root, place.folder / "more", "more", workers=1)
    return {"result": found.new_images, "seconds": time.process_time() - before}


def publish_all(
    table: Table, keys: Any, size: int, order: Any, rows: Callable[[Sequence[str]], pa.Table]
) -> Figures:
    """Publish every shard of a plan; says what the plan alone took."""
    before = time.process_time()
    plan = table.plan(keys, size, order=order)
    planned = time.process_time() - before
    for shard in plan.shards:
        table.publish(shard, rows(shard.members), 1.0)
    return {"planned": planned, "shards": len(plan.shards)}


def caption_stage(place: Place) -> Any:
    """The captions of the collection under the profile `tiny`."""
    from flows.profiles import resolve_profile
    from tasks import profile_stages

    return profile_stages.caption_stage(resolve_profile("tiny", {"root": place.root.root}), NAME)


def make_captions(place: Place) -> Figures:
    """Two captions of every image."""
    stage = caption_stage(place)
    table = stage.table()

    def rows(members: Sequence[str]) -> pa.Table:
        texts = [[f"a cat {key[:6]}", "a dog"] for key in members]
        return table.rows(image_id=members, captions=texts, n=[2] * len(members), raw=texts)

    return publish_all(table, stage.planned_keys(), stage.shard_size, stage.read_order, rows)


def make_features(place: Place) -> Figures:
    """Vectors of `DIM` numbers of all images but a thousand."""
    keys = place.ids.gather(np.arange(place.images - place.lacking))
    rows = random_vectors(place.features, DIM)
    return publish_all(place.features, keys, FEATURES, places_of(place.root).in_order, rows)


def make_gallery(place: Place) -> Figures:
    """Features of all images under the profile `tiny`, as wide as its backbone's."""
    stage = gallery_stage(place)
    table = stage.table()
    rows = random_vectors(table, table.spec["dim"])
    return publish_all(table, stage.planned_keys(), stage.shard_size, stage.read_order, rows)


def gallery_stage(place: Place) -> Any:
    """The image features that `cirflow search` reads."""
    from flows.profiles import resolve_profile
    from tasks.planner import gallery_stages

    profile = resolve_profile("tiny", {"root": place.root.root})
    (stage,) = gallery_stages(profile, NAME, METHOD).values()
    return stage


def random_vectors(
    table: Table, dim: int, more: Mapping[str, Any] | None = None
) -> Callable[[Sequence[str]], pa.Table]:
    """Makes rows of unit vectors, with one value in each of `more` columns."""
    random = np.random.default_rng(dim)

    def rows(members: Sequence[str]) -> pa.Table:
        made = random.standard_normal((len(members), dim), np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        others = {name: [value] * len(members) for name, value in (more or {}).items()}
        return table.rows(image_id=list(members), vector=made, **others)

    return rows
