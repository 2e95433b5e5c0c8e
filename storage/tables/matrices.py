"""Matrices: the vectors of a table as one file to map, derived from its parts and never the truth.

``matrix-{state}.npy`` holds the vectors of all keys with an ok row, sorted by key, then these keys,
each as numpy saves an array, then a hash of the file's place and content. Its name holds the state
of the table (`Table.state`): a table with another part has another matrix, which is made when it is
first asked for. Parquet decodes a gallery of a million vectors in seconds; a map costs nothing, and
all processes of a machine share its pages.

``halves-{hash}.npy`` holds the same vectors as float16, half the bytes, in which a search of one
query finds its candidates, then the square of each vector's length before it was rounded. Its name
is the matrix's hash: it is believed of no other.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from storage.locations.location import Location
from storage.tables.schemas import OK
from storage.tables.table import Table

DERIVED = re.compile(r"(matrix|halves)-[0-9a-f]{20}\.npy|index-[0-9a-f]{20}\.faiss")
"""The names of files that end with a hash of themselves and are made again when they are missing;
an index holds candidates for approximate search (`tasks.approximate`)."""

Keys = npt.NDArray[np.bytes_]
Places = npt.NDArray[np.int64]

_CHECK: Final = 64
_HALVED: Final = 16384
_READ: Final = 2**23


class Changed(Exception):
    """The table gained a part while its matrix was made."""


@dataclass(frozen=True)
class Matrix:
    """Vectors with their keys.

    Attributes:
        keys: (N,) UTF-8, sorted and unique.
        vectors: (N, d) in the table's type, mapped; what is written to it stays in this process.
        path: Where it lies below its home; "" where it is held in memory.
        hash: The hash at the end of its file.
    """

    keys: Keys
    vectors: npt.NDArray[Any]
    path: str = ""
    hash: str = ""


def places_of(keys: Any, among: Keys) -> Places:
    """(n,) the place of each key in a sorted column, -1 for keys that are not there.

    Args:
        keys: Texts: a list, a column of Arrow or of polars, or an array as in `Matrix.keys`.
        among: (N,) the column.
    """
    wanted = key_column(keys)
    if wanted.dtype == among.dtype and np.array_equal(wanted, among):
        return np.arange(len(wanted))
    if not len(among):
        return np.full(len(wanted), -1)
    found = np.searchsorted(among, wanted)
    found[found == len(among)] = -1
    return np.where(among[found] == wanted, found, -1).astype(np.int64)


def shared_keys(keys: Any, columns: Sequence[Keys]) -> tuple[Keys, list[Places]]:
    """Those of some keys that are in every column, sorted, and their places in each."""
    wanted = key_column(keys)
    if not (wanted[1:] > wanted[:-1]).all():
        wanted = np.unique(wanted)
    places = [places_of(wanted, column) for column in columns]
    there = np.logical_and.reduce([found >= 0 for found in places])
    if there.all():
        return wanted, places
    return wanted[there], [found[there] for found in places]


def matrix_path(table: Table) -> str:
    """Where the matrix of a table's parts lies below a root (one listing)."""
    return f"{table.folder}/matrix-{table.state()}.npy"


def build_matrix(table: Table, home: Location, path: str) -> None:
    """Make the matrix of a table below a local root, unless another process did meanwhile.

    Reads part by part; memory is one part and the keys. Files of earlier states are removed.

    Raises:
        Changed: the table is not in the state that `path` names.
        OSError: the root cannot be written to.
    """
    create_derived(home, path, lambda file: _write(table, file, path))
    with home.open_read(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _CHECK))
        said = file.read().decode(errors="replace")
    _remove_others(home, path, _halves_path(path, said))


def _remove_others(home: Location, *kept: str) -> None:
    """Remove files of the same kinds that are of other states of the table."""
    kinds = tuple(path[: path.rindex("-") + 1] for path in kept)
    for other in home.list(kept[0].rpartition("/")[0]):
        derived = other.startswith(kinds) and DERIVED.fullmatch(other.rpartition("/")[2])
        if derived and other not in kept:
            home.remove(other)


def halves_path(matrix: Matrix) -> str:
    """Where the halves of a mapped matrix lie below a home."""
    return _halves_path(matrix.path, matrix.hash)


def _halves_path(path: str, digits: str) -> str:
    return f"{path.rpartition('/')[0]}/halves-{digits[:20]}.npy"


def build_halves(matrix: Matrix, home: Location, path: str) -> None:
    """Round a matrix to float16, unless another process did meanwhile; memory is 8 bytes a row.

    Those of other matrices are removed.

    Raises:
        OSError: the home cannot be written to.
    """

    def write(file: BinaryIO) -> None:
        squares = np.empty(len(matrix.vectors))
        heads = (
            _head(np.dtype(np.float16), matrix.vectors.shape),
            _head(squares.dtype, squares.shape),
        )
        # A full disk refuses it at once.
        _reserve(file, sum(map(len, heads)) + 2 * matrix.vectors.size + squares.nbytes)
        file.seek(0)
        file.write(heads[0])
        for start in range(0, len(squares), _HALVED):
            rows = matrix.vectors[start : start + _HALVED]
            with np.errstate(over="ignore"):  # infinity says that a number has no half
                file.write(rows.astype(np.float16).tobytes())
            exact = rows.astype(np.float64)
            squares[start : start + len(rows)] = np.vecdot(exact, exact)
        file.write(heads[1])
        file.write(squares.tobytes())

    create_derived(home, path, write)
    _remove_others(home, path)


def map_halves(
    home: Location, path: str
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float64]]:
    """Map halves that are known to be whole (see `fault_of`).

    Returns:
        (N, d) the rounded vectors, and (N,) the squares of the exact ones' lengths.

    Raises:
        FileNotFoundError: there are none.
    """
    held = _held(home, path)
    vectors, end = _array(held, 0)
    return vectors, _array(held, end)[0]


def create_derived(home: Location, path: str, write: Callable[[BinaryIO], None]) -> None:
    """Publish a file with its hash at the end, unless another process did meanwhile."""

    def with_hash(file: BinaryIO) -> None:
        write(file)
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        file.write(_hash(file, path, end))

    home.create_large(path, with_hash)


def map_matrix(home: Location, path: str) -> Matrix:
    """Map a matrix that is known to be whole (see `fault_of`).

    Raises:
        FileNotFoundError: there is none.
    """
    held = _held(home, path)
    vectors, end = _array(held, 0)
    return Matrix(_array(held, end)[0], vectors, path, held[-_CHECK:].decode())


def held_matrix(table: Table) -> Matrix:
    """The matrix of a table in memory."""
    good = table.read(["status"]).filter(pl.col("status") == OK)[table.schema.key]
    return Matrix(key_column(good), table.vectors(good.to_list()))


def fault_of(home: Location, path: str) -> str:
    """What is wrong with a derived file, or "" if it is what was written there; reads all of it.

    Raises:
        FileNotFoundError: there is none.
    """
    with home.open_read(path, sequential=True) as file:
        size = file.seek(0, os.SEEK_END) - _CHECK
        file.seek(0)
        said = _hash(file, path, size)
        return "" if size > 0 and said == file.read() else "its content is not what was written"


def read_tail(home: Location, path: str, size: int) -> bytes:
    """The last bytes before the hash of a derived file."""
    with home.open_read(path) as file:
        file.seek(-size - _CHECK, os.SEEK_END)
        return file.read(size)


def _write(table: Table, file: BinaryIO, path: str) -> None:
    kind = table.schema.arrow.field("vector").type
    good = table.read(["status"]).filter(pl.col("status") == OK)[table.schema.key]
    keys, dtype = key_column(good), np.dtype(kind.value_type.to_pandas_dtype())
    shape = (len(keys), kind.list_size)
    vectors_head, keys_head = _head(dtype, shape), _head(keys.dtype, keys.shape)
    size = dtype.itemsize * shape[0] * shape[1]
    file.write(vectors_head)
    if size:
        _reserve(file, len(vectors_head) + size)
        out = np.memmap(file, dtype, "r+", len(vectors_head), shape)
        _fill(table, keys, out)
        out.flush()
    file.seek(len(vectors_head) + size)
    file.write(keys_head)
    file.write(keys.tobytes())
    if matrix_path(table) != path:
        raise Changed


def _reserve(file: BinaryIO, size: int) -> None:
    """Let a file have a size and all its blocks.

    On a full disk a process dies that writes to a mapped page without a block.

    Raises:
        OSError: the disk has no room for it.
    """
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), 0, size)
        return
    file.seek(0, os.SEEK_END)
    while (left := size - file.tell()) > 0:
        file.write(bytes(min(left, _READ)))
    file.flush()


def _fill(table: Table, keys: Keys, out: npt.NDArray[Any]) -> None:
    left = len(out)
    for part in table.iter_parts(["vector", "status"]):
        rows = part.filter(pl.col("status") == OK)
        places = places_of(rows[table.schema.key], keys)
        if (places < 0).any():
            raise Changed
        out[places] = rows["vector"].to_numpy().reshape(-1, out.shape[1])
        left -= len(places)
    if left:
        raise Changed


def _hash(file: IO[bytes], path: str, size: int) -> bytes:
    """A hash of the next bytes of a file and of its place, as _CHECK hexadecimal digits."""
    digest = hashlib.sha256(f"{path}\n".encode())
    while size > 0 and (data := file.read(min(size, _READ))):
        digest.update(data)
        size -= len(data)
    return digest.hexdigest().encode()


def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What numpy writes before an array; its length is a multiple of 64."""
    head = io.BytesIO()
    said = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, said)
    return head.getvalue()


def _held(home: Location, path: str) -> mmap.mmap:
    with open(home.join(path), "rb") as file:
        # Copy-on-write: torch warns of memory that it may not write to.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _array(held: mmap.mmap, start: int) -> tuple[npt.NDArray[Any], int]:
    """The array that begins at a byte, and where it ends."""
    held.seek(start)
    np.lib.format.read_magic(held)
    shape, _, dtype = np.lib.format.read_array_header_1_0(held)
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, dtype), held.tell()
    array = np.frombuffer(held, dtype, count, held.tell()).reshape(shape)
    return array, held.tell() + array.nbytes


def key_column(keys: Any) -> Keys:
    """Texts as an array of bytes of one width, without an object for each."""
    if isinstance(keys, np.ndarray):
        return keys
    column = keys.to_arrow() if isinstance(keys, pl.Series) else keys
    texts = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
    texts = texts.cast(pa.large_string())
    width = max(1, pc.max(pc.binary_length(texts)).as_py() or 1)
    padded = pc.ascii_rpad(texts, width, padding="\0")
    if isinstance(padded, pa.ChunkedArray):
        padded = padded.combine_chunks()
    if not len(padded):
        return np.empty(0, f"S{width}")
    _, _, data = padded.buffers()
    return np.frombuffer(data, f"S{width}", len(padded), padded.offset * width)
