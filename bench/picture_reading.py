"""What a stage over stored pictures opens, asks for and reads, as the number of parts grows.

The baseline is the form of earlier versions: shards of sorted ids, each of which opens every part
and reads its row groups. Only its first shards are run. Requests are those of s3fs to a local
server: an ingest, and a stage that reads each picture once and publishes a row for it.

python -m bench.picture_reading
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

from bench.command_line import command_line
from bench.ingest import draw_files
from bench.verdict import Verdict, exit_status, report
from storage.collections.collection import Collection, ingest
from storage.collections.places import IMAGES_SPEC, places_of
from storage.collections.reading import read_pictures
from storage.locations.location import Location
from storage.tables.index import known_of
from storage.tables.part_files import open_part
from storage.tables.table import Shard, Table, open_table
from tasks.galleries import features_of

PARTS: Final = (4, 16, 64, 256)
IN_A_PART: Final = 32
PICTURE_BYTES: Final = 20_000
SHARD: Final = 64
NAIVE_SHARDS: Final = 4
FILES_ON_S3: Final = (96, 384)
ALLOWED_GROWTH: Final = 1.25


@dataclass(frozen=True)
class Reads:
    """Files opened, bytes read and processor seconds for each picture."""

    opens: float
    bytes: float
    seconds: float


def store(location: Location, parts: int) -> int:
    """Publish parts of random files; returns their bytes."""
    chance, table, total = random.Random(parts), open_table(location, "images", IMAGES_SPEC), 0
    for _ in range(parts):
        files = [chance.randbytes(PICTURE_BYTES) for _ in range(IN_A_PART)]
        ids = [hashlib.sha256(data).hexdigest() for data in files]
        sides: dict[str, Any] = {name: [1] * len(ids) for name in ("width", "height")}
        rows = table.rows(
            image_id=ids, data=files, bytes=[len(f) for f in files], format=["PNG"] * len(ids),
            status=["ok"] * len(ids), reason=[""] * len(ids), **sides,
        )  # fmt: skip
        table.publish(Shard.of(ids), rows)
        total += sum(map(len, files))
    return total


def read_now(location: Location, ids: Sequence[str]) -> Reads:
    """All shards of a stage, planned and read as stages do."""
    asked, read_spans = Counter[str](), Location.read_spans

    def counted(self: Location, spans: Sequence[tuple[str, int, int]]) -> list[bytes]:
        asked["opens"] += len({path for path, _, _ in spans})
        asked["bytes"] += sum(end - start for _, start, end in spans)
        return read_spans(self, spans)

    target = open_table(location, "captions", {"producer": "bench"})
    with mock.patch.object(Location, "read_spans", counted):
        began = time.process_time()
        plan = target.plan(ids, SHARD, order=places_of(location).in_order)
        read = sum(len(dict(read_pictures(location, each.members))) for each in plan.shards)
        seconds = time.process_time() - began
    return Reads(asked["opens"] / read, asked["bytes"] / read, seconds / read)


def read_as_before(location: Location, ids: Sequence[str]) -> Reads:
    """The first shards of sorted ids; that their groups are known already costs nothing."""
    parts = places_of(location).table.parts()
    known = []
    for entry in parts:
        with open_part(location, entry.path) as part:
            known.append(part.keys_by_group())
    opens = size = read = 0
    began = time.process_time()
    for start in range(0, min(len(ids), NAIVE_SHARDS * SHARD), SHARD):
        wanted = set(ids[start : start + SHARD])
        read += len(wanted)
        for entry, groups in zip(parts, known, strict=True):
            hits = [number for number, keys in enumerate(groups) if not wanted.isdisjoint(keys)]
            if hits:
                with open_part(location, entry.path) as part:
                    opens += 1
                    for group in hits:
                        size += part.table(["image_id", "data"], [group])["data"].nbytes
    return Reads(opens / read, size / read, (time.process_time() - began) / read)


def measure_parts() -> Verdict:
    """Reads at each number of parts, now and as before."""
    now, before = [], []
    for parts in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            location = Location(folder)
            store(location, parts)
            images = places_of(location).table
            ids = sorted(key for part in images.parts() for key in images.keys_of(_name(part.path)))
            now.append(read_now(location, ids))
            before.append(read_as_before(location, ids))
    for parts, own, old in zip(PARTS, now, before, strict=True):
        print(
            f"  {parts} parts, a picture of {PICTURE_BYTES} B: {own.opens:.3f} opens (before "
            f"{old.opens:.3f}), {own.bytes:.0f} B ({old.bytes:.0f} B), "
            f"{own.seconds * SHARD * 1e3:.1f} ms a shard ({old.seconds * SHARD * 1e3:.1f} ms)"
        )
    growth = max(now[-1].opens / now[0].opens, now[-1].bytes / now[0].bytes)
    naive = before[-1].opens / before[0].opens
    return report(
        "picture_reading",
        f"opens and bytes of a picture at {PARTS[-1]} parts: {growth:.2f}x those at {PARTS[0]} "
        f"(allowed {ALLOWED_GROWTH}x, before {naive:.1f}x)",
        "ok" if growth <= ALLOWED_GROWTH else "MISSED",
        {
            "parts": PARTS,
            "now": [vars(each) for each in now],
            "before": [vars(each) for each in before],
        },
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


@contextlib.contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """S3's requests by name."""
    import s3fs
    from fsspec.asyn import sync_wrapper

    sent, call, files = Counter[str](), s3fs.S3FileSystem._call_s3, s3fs.S3FileSystem

    async def counted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        sent[method] += 1
        return await call(self, method, *args, **options)

    with mock.patch.multiple(files, _call_s3=counted, call_s3=sync_wrapper(counted)):
        yield sent


def fill(location: Location, table: Table, ids: Sequence[str]) -> int:
    """A stage: plan, read each shard's pictures, publish rows; returns the number of shards."""
    plan = table.plan(ids, SHARD, order=places_of(location).in_order)
    for shard in plan.shards:
        if not table.holds(shard):
            read = dict(read_pictures(location, shard.members))
            vectors = np.ones((len(read), 4), np.float32)
            table.publish(shard, table.rows(image_id=list(shard.members), vector=vectors))
    return len(plan.shards)


def forget() -> None:
    """Know no more of tables and pictures than a process that has just begun."""
    known_of.cache_clear()
    places_of.cache_clear()


def requests_at(files: int) -> dict[str, Any]:
    """Requests of an ingest of some files, of a stage over them, and of what reads its table.

    `check` is the count of its rows at the stage's end, `rerun` a plan by another process, `score`
    the reading of all vectors into a matrix of the user's cache folder, `again` that of a process
    that finds the matrix there.
    """
    import fsspec

    fsspec.filesystem("s3", use_listings_cache=False).mkdir(f"bench-{files}")
    location = Location(f"s3://bench-{files}/root")
    with tempfile.TemporaryDirectory() as folder:
        draw_files(Path(folder), files)
        with counted_requests() as taken_in:
            ingest(location, folder, "bench", part_rows=IN_A_PART)
    collection = Collection.open(location, "bench")
    table = open_table(
        location, "image_features", {"producer": "bench", "dim": 4, "dtype": "float32"}
    )
    ids = collection.image_ids()
    with counted_requests() as stage:
        shards = fill(location, table, ids)
    sent = {"ingest": taken_in, "stage": stage}
    reads: dict[str, Callable[[], Any]] = {
        "check": lambda: table.completeness(ids),
        "rerun": lambda: table.plan(ids, SHARD),
        "score": lambda: features_of(table, ids),
        "again": lambda: features_of(table, ids),
    }
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, XDG_CACHE_HOME=cache):
        for name, read in reads.items():
            if name != "check":
                forget()
            with counted_requests() as sent[name]:
                read()
    parts = len(collection.images.parts())
    return {"files": files, "parts": parts, "shards": shards, **sent}


def measure_requests() -> Verdict:
    """Requests at two sizes, and what each further part and shard costs."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    own = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        with mock.patch.dict(os.environ, keys | own):
            small, large = (requests_at(files) for files in FILES_ON_S3)
    finally:
        server.stop()
    for each in (small, large):
        print(f"  {each}")

    def law(kind: str, by: str) -> float:
        more = sum(large[kind].values()) - sum(small[kind].values())
        return more / (large[by] - small[by])

    growth = law("stage", "shards") * large["shards"] / sum(large["stage"].values())
    heads = large["stage"]["head_object"] / large["shards"]
    constant = max(sum(large[kind].values()) for kind in ("rerun", "again"))
    return report(
        "picture_requests",
        f"requests on S3: {law('ingest', 'parts'):.1f} a part to ingest, "
        f"{law('stage', 'shards'):.1f} a shard to read and publish, {heads:.0f} of them HEAD, "
        f"{law('check', 'shards'):.1f} to count its rows, {law('score', 'shards'):.1f} to score; "
        f"{constant} in all for a rerun or a second score (allowed 1)",
        "ok" if growth <= 1 and heads <= 1 and constant <= 1 else "MISSED",
        {"small": small, "large": large},
    )


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    sys.exit(exit_status([measure_parts(), measure_requests()]))
