"""Stored pictures, by the bytes of each: neighbours are one read, and every hash is compared.

A picture's id is the hash of its bytes. So where the shortcuts (`storage.collections.places`) are
wrong or lost, it shows; then the parts themselves are asked, by their footers and row groups.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

from storage.collections.places import Found, places_of
from storage.locations.local_files import OddFile
from storage.locations.location import Entry, Location
from storage.tables.keys import sha256_hex
from storage.tables.part_files import open_part
from storage.tables.plans import IncompleteTable
from storage.words import agreed

_BATCH = 2**24
"""Bytes of pictures that are read at a time."""
_LONGEST = 2**22
"""Bytes of a read, so that a batch comes from S3 in several requests at a time."""
_HOLE = 2**14
"""Bytes between two pictures that are read rather than asked around."""

Picture = tuple[str, bytes]
Span = tuple[str, int, int]


def read_pictures(location: Location, ids: Sequence[str]) -> Iterator[Picture]:
    """Stream (image id, bytes), each picture once, in the order in which they are stored.

    Raises:
        IncompleteTable: after all others, if some are not stored.
        CorruptPart: one lies in a part that cannot be read.
    """
    left = dict.fromkeys(ids)
    for again in (False, True):  # parts may have come, or been put aside, since this process looked
        if not left:
            return
        for image_id, data in _found(location, places_of(location).find(list(left), again=again)):
            del left[image_id]
            yield image_id, data
    for image_id, data in _searched(location, set(left)):
        del left[image_id]
        yield image_id, data
    if left:
        images = agreed(len(left), "image is", "images are")
        their = agreed(len(left), "its", "their")
        raise IncompleteTable(
            f"{len(left)} {images} not stored, first {min(left)}: ingest {their} source again"
        )


def _found(location: Location, found: Found) -> Iterator[Picture]:
    """Pictures that lie where they are thought to lie."""
    slots = found.slots
    rows = zip(
        found.ids, slots.parts.tolist(), slots.starts.tolist(), slots.sizes.tolist(), strict=True
    )
    for exact, batch in itertools.groupby(rows, lambda row: row[2] >= 0):
        if exact:
            spans = ((i, (found.parts[p].path, at, at + size)) for i, p, at, size in batch)
            for few in _batches(spans):
                yield from _spans(location, few)
        else:
            for place, own in itertools.groupby(batch, lambda row: row[1]):
                wanted = list(own)
                groups = sorted({-1 - row[2] for row in wanted})
                chosen = {row[0] for row in wanted}
                with contextlib.suppress(FileNotFoundError, IndexError):
                    yield from _groups(location, found.parts[place], groups, chosen)


def _batches(pictures: Iterable[tuple[str, Span]]) -> Iterator[list[tuple[str, Span]]]:
    few, held = [], 0
    for picture in pictures:
        few.append(picture)
        held += picture[1][2] - picture[1][1]
        if held >= _BATCH:
            yield few
            few, held = [], 0
    if few:
        yield few


def _spans(location: Location, pictures: Sequence[tuple[str, Span]]) -> Iterator[Picture]:
    """Read a batch; pictures of another hash than theirs are left out, and those of lost parts."""
    runs: list[Span] = []
    for _, (path, start, end) in pictures:
        before = runs[-1] if runs else ("", 0, 0)
        near = before[0] == path and 0 <= start - before[2] <= _HOLE
        if near and end - before[1] <= _LONGEST:
            runs[-1] = (path, before[1], end)
        else:
            runs.append((path, start, end))
    try:
        read = iter(zip(runs, location.read_spans(runs), strict=True))
    except (FileNotFoundError, OddFile):
        return
    (path, start, end), data = next(read)
    for image_id, (own, first, last) in pictures:
        if own != path or last > end or first < start:
            (path, start, end), data = next(read)
        picture = data[first - start : last - start]
        if sha256_hex(picture) == image_id:
            yield image_id, picture


def _searched(location: Location, wanted: set[str]) -> Iterator[Picture]:
    """Pictures wherever they lie, by the footers of all parts."""
    for entry in places_of(location).table.parts() if wanted else ():
        with open_part(location, entry.path, entry.size) as part:
            hits = [i for i, ids in enumerate(part.keys_by_group()) if wanted & ids]
        if hits:
            for image_id, data in _groups(location, entry, hits, set(wanted)):
                wanted.discard(image_id)
                yield image_id, data


def _groups(
    location: Location, entry: Entry, groups: Sequence[int], wanted: set[str]
) -> Iterator[Picture]:
    """Pictures of some row groups, one group at a time."""
    with open_part(location, entry.path, entry.size) as part:
        for group in groups:
            rows = part.table(["image_id", "data"], [group])
            for image_id, data in zip(rows["image_id"].to_pylist(), rows["data"], strict=True):
                if image_id in wanted:
                    wanted.remove(image_id)
                    yield image_id, data.as_py()
