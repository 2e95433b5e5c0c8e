"""The writing half of ingest: examined inputs -> parts of `images` and `sources`, in batches.

Order of publication makes a kill harmless at any instant: images first, then the rows that name
them, then the receipts of archives that are done, and at the very end the collection's pointer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from storage.collections.decoding import ImageFacts, ImageProblem, inspect_image
from storage.collections.places import IMAGES_SPEC
from storage.collections.sources.candidates import Candidate, Limits, SourceFault
from storage.collections.sources.scan import ContainerEnd, ContainerKnown
from storage.locations.damage import DamagedFile, as_text, from_text, read_checked
from storage.locations.location import Location
from storage.tables.key_sets import KeySet
from storage.tables.keys import ID_DIGITS, KEY_DIGITS, content_key, sha256_hex
from storage.tables.schemas import OK
from storage.tables.table import Shard, Table, open_table

# Faults of reaching an input, not of its content. They are looked at again by the next ingest even
# where path, size and time are the same: a changed permission changes none of these.
_TRANSIENT = frozenset({"unreadable", "outside_source", "linked_folder", "not_a_file"})


@dataclass(frozen=True)
class Known:
    """An input whose row, and image if it has one, are stored already."""

    key: str
    container: str


@dataclass(frozen=True)
class Examined:
    """An input that was read, with its outcome; `data` only where it is an image."""

    candidate: Candidate
    status: str
    reason: str
    size: int
    image_id: str | None = None
    facts: ImageFacts | None = None
    data: bytes = b""


Result: TypeAlias = Known | Examined | ContainerEnd | ContainerKnown


def sources_spec(limits: Limits) -> dict[str, Any]:
    """Return the spec of the sources table: the limits that decide a row, besides the bytes."""
    return {
        "producer": "cirflow/sources/1",
        "max_pixels": limits.max_pixels,
        "max_bytes": limits.max_bytes,
    }


def examine(candidate: Candidate, limits: Limits) -> Examined:
    """Read and decode one input; a fault becomes its status and reason."""
    try:
        data = candidate.load()
    except SourceFault as fault:
        return Examined(candidate, fault.status, fault.reason, 0)
    try:
        facts = inspect_image(data, limits.max_pixels)
    except ImageProblem as problem:
        return Examined(candidate, problem.status, problem.reason, len(data))
    return Examined(candidate, OK, "", len(data), sha256_hex(data), facts, data)


class Writer:
    """Collects examined inputs, publishes them in batches, and remembers the listing.

    `add` and `close` belong to one thread; `known` may be asked from any. A batch is published in
    a thread of its own while the next one is collected.
    """

    def __init__(
        self, location: Location, source: str, limits: Limits, part_bytes: int, part_rows: int
    ) -> None:
        self.location = location
        self.source = source
        self.sources: Table = open_table(location, "sources", sources_spec(limits))
        self.images: Table = open_table(location, "images", IMAGES_SPEC)
        self.listing = KeySet(KEY_DIGITS)
        self.new_files = self.new_images = self.new_bytes = 0
        self._part_bytes, self._part_rows = part_bytes, part_rows
        images = self.images.read(columns=[])
        rows = self.sources.read(columns=["image_id"])
        lost = rows.drop_nulls("image_id").join(images, on="image_id", how="anti")
        self._image_ids = KeySet(ID_DIGITS, images["image_id"])
        self._stored = KeySet(KEY_DIGITS, rows["source_key"])
        self._lost: dict[str, str] = dict(lost.select("source_key", "image_id").iter_rows())
        self._held_bytes = 0
        self._rows: dict[str, dict[str, Any]] = {}
        self._batch: dict[str, dict[str, Any]] = {}
        self._container_keys: dict[str, list[str]] = {}
        self._finished: list[str] = []
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._published: Future[None] | None = None

    # -- stored already ----------------------------------------------------------------------------

    def known(self, candidate: Candidate) -> Known | None:
        """Return the stored input of a candidate, or None if it has to be read."""
        key = self._key(candidate)
        return Known(key, candidate.container) if self._is_stored(key) else None

    def knows_container(self, container: str) -> bool:
        """Tell whether an archive was ingested to its end and all of it is still stored."""
        try:
            keys = read_container(self.location, self.sources, container)
        except (FileNotFoundError, DamagedFile):
            return False
        if not all(self._is_stored(key) for key in keys):
            return False
        self._container_keys[container] = keys
        return True

    def _is_stored(self, key: str) -> bool:
        if key not in self._stored:
            return False
        return key not in self._lost or self._lost[key] in self._image_ids

    def _key(self, candidate: Candidate, status: str = "") -> str:
        mark = [status] if status in _TRANSIENT else []
        return _source_key(self.source, candidate.path, candidate.stamp, *mark)

    # -- taking in ---------------------------------------------------------------------------------

    def add(self, result: Result) -> None:
        """Take in one result, in the order of the source; publishes when the batch is full."""
        if isinstance(result, Examined):
            self._add_examined(result)
        elif isinstance(result, Known):
            self._list(result.key, result.container)
        elif isinstance(result, ContainerKnown):
            for key in self._container_keys.pop(result.key):
                self.listing.add(key)
        else:
            self._finished.append(result.key)
            self._container_keys.setdefault(result.key, [])

    def _add_examined(self, item: Examined) -> None:
        key = self._key(item.candidate, item.status)
        self._list(key, item.candidate.container)
        if item.facts is not None and item.image_id not in self._image_ids:
            self._image_ids.add(str(item.image_id))
            self._batch[str(item.image_id)] = _image_row(item, item.facts)
            self._held_bytes += item.size
            self.new_images += 1
            self.new_bytes += item.size
        if key not in self._stored and key not in self._rows:
            self._rows[key] = self._source_row(key, item)
            self.new_files += 1
        if self._held_bytes >= self._part_bytes or len(self._rows) >= self._part_rows:
            self._flush()

    def _list(self, key: str, container: str) -> None:
        self.listing.add(key)
        if container:
            self._container_keys.setdefault(container, []).append(key)

    def _source_row(self, key: str, item: Examined) -> dict[str, Any]:
        facts = item.facts
        return {
            "source_key": key,
            "source": self.source,
            "path": item.candidate.path,
            "stamp": item.candidate.stamp,
            "container": item.candidate.container,
            "image_id": item.image_id,
            "meta_class": item.candidate.meta_class,
            "bytes": item.size,
            "width": facts.width if facts else None,
            "height": facts.height if facts else None,
            "format": facts.format if facts else None,
            "status": item.status,
            "reason": item.reason,
        }

    # -- publishing --------------------------------------------------------------------------------

    def close(self) -> None:
        """Publish what is left, and wait until all is published.

        Raises:
            Exception: whatever publishing raised.
        """
        with self._publisher:
            self._flush()
            self._wait()

    def _flush(self) -> None:
        """Begin to publish the batch, once the one before is published."""
        self._wait()
        ended = {each: self._container_keys.pop(each) for each in self._finished}
        for key in self._rows:
            self._stored.add(key)
        batch = self._batch, self._rows, ended
        self._batch, self._rows, self._finished, self._held_bytes = {}, {}, [], 0
        self._published = self._publisher.submit(self._publish, *batch)

    def _wait(self) -> None:
        if self._published is not None:
            self._published.result()

    def _publish(
        self,
        images: Mapping[str, dict[str, Any]],
        sources: Mapping[str, dict[str, Any]],
        ended: Mapping[str, list[str]],
    ) -> None:
        """Publish images, then rows that name them, then the receipts of archives that ended."""
        _publish(self.images, images)
        _publish(self.sources, sources)
        for container, keys in ended.items():
            path = container_path(self.sources, container)
            # Written over one that is damaged: its keys are known again at the end of the archive.
            text = as_text({"container": container, "source_keys": keys})
            self.location.replace(path, text)


@functools.lru_cache(maxsize=4096)  # asked for again when the input has been examined
def _source_key(*said: str) -> str:
    return content_key(said)


def container_path(sources: Table, container: str) -> str:
    """The receipt of an archive that was ingested to its end."""
    return f"collections/containers/{sources.spec_key}/{container}.json"


def read_container(location: Location, sources: Table, container: str) -> list[str]:
    """The keys of all inputs in an archive.

    Raises:
        FileNotFoundError: it was not ingested to its end.
        DamagedFile: its receipt cannot be read, or is that of another archive.
    """

    def parse(data: bytes) -> list[str]:
        said, checked = from_text(data)
        keys = said["source_keys"]
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("it does not list the keys of an archive")
        if checked:
            if said["container"] != container:
                raise ValueError("it is the receipt of another archive")
        elif said.keys() != {"source_keys"} or not keys or _containers(sources, keys) - {container}:
            raise ValueError("it does not list the inputs of this archive")
        return keys

    return read_checked(location, container_path(sources, container), parse)


def _containers(sources: Table, keys: list[str]) -> set[str]:
    """The archives of some inputs (for receipts of earlier versions, which do not name theirs)."""
    return set(sources.read(["container"], keys)["container"])


def _image_row(item: Examined, facts: ImageFacts) -> dict[str, Any]:
    return {
        "image_id": item.image_id,
        "data": item.data,
        "bytes": item.size,
        "width": facts.width,
        "height": facts.height,
        "format": facts.format,
        "status": OK,
        "reason": "",
    }


def _publish(table: Table, rows: Mapping[str, dict[str, Any]]) -> None:
    if rows:
        shard = Shard.of(list(rows))
        ordered = [rows[key] for key in shard.members]  # as the part has them: no copy is sorted
        columns = {name: [row[name] for row in ordered] for name in table.schema.columns}
        table.publish(shard, table.rows(**columns))
