"""Read the file of a part: every fault of its content is named, and no thread outlives the reader.

pyarrow reads in threads of its own. A thread that holds a Python file needs the interpreter, also
to let go of it, and kills a process that is just ending ("terminate called without an active
exception"). So local files are opened by pyarrow itself. Objects on S3 are fetched by byte ranges
first and then decoded in the calling thread.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.locations.damage import MALFORMED, TRIES_ON_S3
from storage.locations.local_files import OddFile, require_regular
from storage.locations.location import Location
from storage.tables.footers import FOOTER, KEYS, SPANS, SPEC, Footer, footer_check
from storage.words import agreed

T = TypeVar("T")
logger = logging.getLogger(__name__)

_TAIL = 2**16
_HOLE = 2**18
_NOT_CORRUPTION = (FileNotFoundError, PermissionError, TimeoutError, ConnectionError)


class CorruptPart(ValueError):
    """A published part cannot be read; the message names it and says how to put it aside."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path} is broken: {what}. Put it aside with `cirflow cache repair` (nothing is"
            " deleted) and run the same flow again: it makes only the rows that are lost"
        )
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type[CorruptPart], tuple[str, str]]:
        return type(self), (self.path, self.what)


class PartReader:
    """A part that is open for reading. Make it with `open_part`.

    Every method raises CorruptPart where the content is damaged, on S3 after it was fetched again.
    """

    def __init__(self, path: str, tries: int, open_file: Callable[[], _Source]) -> None:
        self._path = path
        self._tries = tries
        self._open_file = open_file
        self._source: _Source | None = None
        self._file: pq.ParquetFile | None = None

    def footer(self) -> Footer:
        """The part's provenance, which must agree with the number of rows in the file."""
        return self._ask(self._footer_of)

    def spec(self) -> dict[str, Any] | None:
        """The spec that the footer keeps, whatever it says; None in parts of earlier versions."""

        def read(file: pq.ParquetFile, source: _Source) -> dict[str, Any] | None:
            held = (file.metadata.metadata or {}).get(SPEC)
            try:
                return None if held is None else dict(json.loads(held))
            except MALFORMED as error:
                raise CorruptPart(self._path, f"its footer holds no spec: {error}") from error

        return self._ask(read)

    def schema(self) -> pa.Schema:
        """The columns and their types."""
        return self._ask(lambda file, source: file.schema_arrow)

    def keys(self) -> list[str]:
        """The keys of all rows from the footer alone (where the table keeps them there)."""
        return self._ask(self._keys_of)

    def keys_by_group(self) -> tuple[frozenset[str], ...]:
        """The keys of each row group from the footer alone (where the table keeps them there)."""

        def read(file: pq.ParquetFile, source: _Source) -> tuple[frozenset[str], ...]:
            rest, metadata = iter(self._keys_of(file, source)), file.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            return tuple(frozenset(itertools.islice(rest, size)) for size in sizes)

        return self._ask(read)

    def spans(self) -> np.ndarray:
        """(rows, 2) int64: start and size of each row's `data` in the file, from the footer alone.

        Where the footer does not say them (parts of earlier versions): -1 - row group, and 0.
        """

        def read(file: pq.ParquetFile, source: _Source) -> np.ndarray:
            metadata = file.metadata
            held = (metadata.metadata or {}).get(SPANS)
            if held is not None:
                with contextlib.suppress(ValueError):
                    return np.frombuffer(base64.b64decode(held), "<i8").reshape(-1, 2)
            groups = np.arange(metadata.num_row_groups)
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            starts = np.repeat(-1 - groups, sizes)
            return np.stack([starts, np.zeros_like(starts)], axis=1)

        return self._ask(read)

    def table(self, columns: Sequence[str], groups: Sequence[int] | None = None) -> pa.Table:
        """Some columns, of some row groups or all."""

        def read(file: pq.ParquetFile, source: _Source) -> pa.Table:
            every = range(file.metadata.num_row_groups) if groups is None else groups
            source.prepare(_chunks(file.metadata, set(columns), every))
            rows = file.read_row_groups(
                list(every), columns=list(columns), use_threads=source.threads
            )
            rows.validate()
            return rows.replace_schema_metadata(None)

        return self._ask(read)

    def close(self) -> None:
        """Let go of the file."""
        if self._source is not None:
            self._source.close()
        self._source = self._file = None

    def _ask(self, read: Callable[[pq.ParquetFile, _Source], T]) -> T:
        for attempt in range(1, self._tries + 1):
            try:
                with _named(self._path):
                    if self._file is None or self._source is None:
                        self._source = self._open_file()
                        self._file = pq.ParquetFile(
                            self._source.file, pre_buffer=False, page_checksum_verification=True
                        )
                    return read(self._file, self._source)
            except CorruptPart as error:
                self.close()
                if attempt == self._tries:
                    raise
                logger.warning("%s: %s; it is fetched again", self._path, error.what)
        raise AssertionError("a loop of at least one attempt returns or raises")

    def _footer_of(self, file: pq.ParquetFile, source: _Source) -> Footer:
        metadata = file.metadata.metadata or {}
        try:
            said = json.loads(metadata[FOOTER])
            check = said.pop("check", None)
            footer = Footer(**said)
        except (*MALFORMED, KeyError) as error:
            what = f"its footer has no provenance of ours ({error!r})"
            raise CorruptPart(self._path, what) from error
        if check is not None and check != footer_check(footer, metadata.get(KEYS, b"")):
            raise CorruptPart(self._path, "its footer was changed")
        if not (isinstance(footer.attempt, int) and isinstance(footer.seconds, int | float)):
            raise CorruptPart(self._path, "its footer holds words where numbers belong")
        if footer.rows != file.metadata.num_rows:
            rows = file.metadata.num_rows
            what = f"{rows} {agreed(rows, 'row')}, its footer says {footer.rows}"
            raise CorruptPart(self._path, what)
        return footer

    def _keys_of(self, file: pq.ParquetFile, source: _Source) -> list[str]:
        self._footer_of(file, source)
        metadata = file.metadata
        keys = (metadata.metadata or {}).get(KEYS, b"").decode().split("\n")
        if len(keys) != metadata.num_rows:
            held = f"{len(keys)} {agreed(len(keys), 'key')}"
            rows = f"{metadata.num_rows} {agreed(metadata.num_rows, 'row')}"
            raise CorruptPart(self._path, f"its footer has {held} for {rows}")
        return keys


@contextlib.contextmanager
def open_part(location: Location, path: str, size: int | None = None) -> Iterator[PartReader]:
    """Open a part; where its size is known from a listing, S3 is not asked for it.

    Raises:
        FileNotFoundError: when it is read, if there is no such part.
    """
    local = location.local_path(path)
    if local is not None:
        part = PartReader(str(local), 1, lambda: _opened(local))
    else:
        part = PartReader(location.join(path), TRIES_ON_S3, lambda: _Fetched(location, path, size))
    try:
        yield part
    finally:
        part.close()


@contextlib.contextmanager
def open_bytes(data: bytes, path: str) -> Iterator[PartReader]:
    """Open the content of a part that was read already; `path` is its name in messages."""
    part = PartReader(path, 1, lambda: _LocalSource(pa.BufferReader(data)))
    try:
        yield part
    finally:
        part.close()


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn pyarrow's complaints about content into a CorruptPart."""
    try:
        yield
    except _NOT_CORRUPTION:
        raise
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, OSError) as error:
        # Parquet's own complaints are OSErrors without a number; a disk's have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptPart(path, str(error) or type(error).__name__) from error


def _chunks(
    metadata: pq.FileMetaData, columns: set[str], groups: Iterable[int]
) -> list[tuple[int, int]]:
    """Start and end of every column chunk that is about to be read."""
    found = []
    for number in groups:
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            chunk = group.column(index)
            if chunk.path_in_schema.partition(".")[0] in columns:
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
                    start = chunk.dictionary_page_offset
                found.append((start, start + chunk.total_compressed_size))
    return found


def _opened(file: Path) -> _LocalSource:
    try:
        require_regular(file)
    except OddFile as error:
        raise CorruptPart(str(file), str(error.strerror)) from error
    return _LocalSource(pa.OSFile(str(file)))


class _LocalSource:
    """A file that pyarrow reads itself, in any thread."""

    threads = True

    def __init__(self, file: pa.NativeFile) -> None:
        self.file = file

    def prepare(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class _Fetched(io.RawIOBase):
    """An object on S3 of which ranges are fetched, several at a time, before they are decoded."""

    threads = False

    def __init__(self, location: Location, path: str, size: int | None) -> None:
        super().__init__()
        self._location, self._path = location, path
        self._size = location.size(path) if size is None else size
        self._at = 0
        self._held: list[tuple[int, bytes]] = []
        self.prepare([(max(0, self._size - _TAIL), self._size)])

    @property
    def file(self) -> _Fetched:
        """What pyarrow reads."""
        return self

    def prepare(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch ranges that are not held; neighbours are one request."""
        wanted: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            start, end = max(0, start), min(end, self._size)
            if end <= start or self._find(start, end) is not None:
                continue
            if wanted and start - wanted[-1][1] <= _HOLE:
                wanted[-1] = (wanted[-1][0], max(end, wanted[-1][1]))
            else:
                wanted.append((start, end))
        if wanted:
            self._held = self._held[:1]  # the tail; earlier row groups are decoded
            found = self._location.read_ranges(self._path, wanted)
            self._held += [(start, data) for (start, _), data in zip(wanted, found, strict=True)]

    def read(self, size: int = -1) -> bytes:
        """Bytes from the present position on."""
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        found = self._find(self._at, end)
        if found is None:
            found = self._location.read_ranges(self._path, [(self._at, end)])[0]
        self._at = end
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def _find(self, start: int, end: int) -> bytes | None:
        for first, data in self._held:
            if first <= start and end <= first + len(data):
                return data[start - first : end - first]
        return None


_Source = _LocalSource | _Fetched
