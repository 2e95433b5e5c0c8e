"""Pictures in the `images` table without an ingest, and a count of what reading them asks for."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from storage.collections.places import IMAGES_SPEC
from storage.locations.location import Location
from storage.tables.table import Shard, open_table


def store_pictures(
    location: Location, parts: int, each: int, size: int = 2_000, seed: int = 0
) -> dict[str, bytes]:
    """Publish parts of random files of about a size; image id -> bytes."""
    chance, table = random.Random(seed), open_table(location, "images", IMAGES_SPEC)
    stored: dict[str, bytes] = {}
    for _ in range(parts):
        files = [chance.randbytes(chance.randint(size // 2, 2 * size)) for _ in range(each)]
        own = {hashlib.sha256(data).hexdigest(): data for data in files}
        sizes = [len(data) for data in own.values()]
        rows = table.rows(
            image_id=list(own),
            data=list(own.values()),
            bytes=sizes,
            width=[1] * each,
            height=[1] * each,
            format=["PNG"] * each,
            status=["ok"] * each,
            reason=[""] * each,
        )
        table.publish(Shard.of(list(own)), rows)
        stored |= own
    return stored


@dataclass
class Asked:
    """What was read of pictures: a file opened once for each call, and bytes; S3's requests."""

    opens: int = 0
    bytes: int = 0
    requests: Counter[str] = field(default_factory=Counter)


@contextmanager
def counted_reads() -> Iterator[Asked]:
    """Count the spans read below any root, and S3's requests by name."""
    import s3fs
    from fsspec.asyn import sync_wrapper

    asked, spans, call = Asked(), Location.read_spans, s3fs.S3FileSystem._call_s3

    def read(self: Location, given: Sequence[tuple[str, int, int]]) -> list[bytes]:
        asked.opens += len({path for path, _, _ in given})
        asked.bytes += sum(end - start for _, start, end in given)
        return spans(self, given)

    async def sent(self: Any, method: str, *args: Any, **options: Any) -> Any:
        asked.requests[method] += 1
        return await call(self, method, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Location, "read_spans", read)
        patch.setattr(s3fs.S3FileSystem, "_call_s3", sent)
        patch.setattr(s3fs.S3FileSystem, "call_s3", sync_wrapper(sent))
        yield asked
