"""Matrices of vector tables: the same vectors as the table, right or not believed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from storage.checks.cleaning import clean
from storage.checks.root import check_root, repair_root
from storage.locations.location import Location
from storage.tables.matrices import (
    Changed,
    build_halves,
    build_matrix,
    fault_of,
    halves_path,
    key_column,
    map_halves,
    map_matrix,
    matrix_path,
    places_of,
    shared_keys,
)
from storage.tables.table import Table, open_table

DIM = 6


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def filled(
    root: Path, numbers: range, dtype: str = "float32", size: int = 7, scale: float = 1.0
) -> Table:
    """A table in parts whose every fifth row failed; row n holds n and its digits' halves."""
    spec = {"producer": "cirflow/image_features/1", "dim": DIM, "dtype": dtype}
    table = open_table(Location(str(root)), "image_features", spec)
    number = {key(n): n for n in numbers}
    for shard in table.plan(list(number), size).shards:
        own = [number[member] for member in shard.members]
        vectors = np.array([[n, n / 2, 0, 1, -n, n % 3] for n in own]).astype(dtype)
        vectors *= scale
        status = ["made_to_fail" if n % 5 == 0 else "ok" for n in own]
        rows = table.rows(
            image_id=list(shard.members),
            vector=vectors,
            status=status,
            reason=["" if each == "ok" else "a reason" for each in status],
        )
        table.publish(shard, rows)
    return table


def built(table: Table) -> str:
    path = matrix_path(table)
    build_matrix(table, table.location, path)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_matrix_holds_the_good_rows_sorted_by_key(tmp_path: Path, dtype: str) -> None:
    table = filled(tmp_path, range(40), dtype)
    path = built(table)
    assert fault_of(table.location, path) == ""
    matrix = map_matrix(table.location, path)
    good = sorted(key(n) for n in range(40) if n % 5)
    assert [each.decode() for each in matrix.keys] == good
    assert matrix.vectors.dtype == dtype
    assert (matrix.vectors == table.vectors(good)).all()
    with open(table.location.join(path), "rb") as file:  # numpy alone reads it
        assert (np.load(file) == matrix.vectors).all()
        assert (np.load(file) == matrix.keys).all()


def test_a_new_part_makes_another_matrix_and_removes_the_old(tmp_path: Path) -> None:
    table = filled(tmp_path, range(20))
    old = built(table)
    held = map_matrix(table.location, old)
    before = held.vectors.copy()
    table = filled(tmp_path, range(33))
    new = built(table)
    assert new != old
    assert not table.location.exists(old)
    assert len(map_matrix(table.location, new).keys) == 26
    assert (held.vectors == before).all()  # a process that maps the old one keeps it


def halved(table: Table) -> str:
    matrix = map_matrix(table.location, built(table))
    path = halves_path(matrix)
    build_halves(matrix, table.location, path)
    return path


def test_halves_are_the_vectors_rounded(tmp_path: Path) -> None:
    table = filled(tmp_path, range(70_000, 70_040))  # no number of them has a half
    path = halved(table)
    vectors = map_matrix(table.location, matrix_path(table)).vectors
    with np.errstate(over="ignore"):
        expected = vectors.astype(np.float16)
    assert np.isinf(expected).any()
    with open(table.location.join(path), "rb") as file:  # numpy alone reads it
        assert (np.load(file) == expected).all()
        squares = np.load(file)
    halves, mapped = map_halves(table.location, path)
    assert (squares == mapped).all()
    np.testing.assert_allclose(squares, (vectors.astype(float) ** 2).sum(1))
    assert halves.dtype == np.float16
    assert (halves == expected).all()
    assert halves.flags.writeable  # torch warns otherwise
    assert fault_of(table.location, path) == ""
    assert check_root(table.location).others == check_root(table.location).faults == []


def test_halves_of_an_earlier_state_go_with_its_matrix(tmp_path: Path) -> None:
    table = filled(tmp_path, range(20))
    old = halved(table)
    table = filled(tmp_path, range(33))
    built(table)
    assert not table.location.exists(old)
    new = halved(table)
    built(table)
    assert table.location.exists(new)


def test_halves_are_of_one_matrix_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost part that another machine made again differs, and may have its name and size."""
    monkeypatch.setattr(Table, "state", lambda table: "0" * 20)
    table = filled(tmp_path, range(20))
    old = halved(table)
    for entry in table.location.entries(table.folder):
        if "/part-" in entry.path or "/matrix-" in entry.path:
            table.location.remove(entry.path)
    table = filled(tmp_path, range(20), scale=-1.0)
    matrix = map_matrix(table.location, built(table))
    assert halves_path(matrix) != old
    assert not table.location.exists(old)
    table.location.create(old, b"of a process that held the earlier matrix")
    new = halved(table)
    assert not table.location.exists(old)
    assert (map_halves(table.location, new)[0] == matrix.vectors.astype(np.float16)).all()


def test_a_part_that_comes_while_the_matrix_is_made_stops_it(tmp_path: Path) -> None:
    table = filled(tmp_path, range(20))
    path = matrix_path(table)
    filled(tmp_path, range(33))
    with pytest.raises(Changed):
        build_matrix(table, table.location, path)
    assert not table.location.exists(path)
    assert table.location.staged() == []


@pytest.mark.parametrize("rows", [0, 5])
def test_tables_of_failures_have_a_matrix_without_rows(tmp_path: Path, rows: int) -> None:
    table = filled(tmp_path, range(0, rows * 5, 5))
    matrix = map_matrix(table.location, built(table))
    assert matrix.vectors.shape == (0, DIM)
    assert places_of([key(1)], matrix.keys).tolist() == [-1]


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = bytearray()
    elif how == "vectors":
        data[200] ^= 1
    elif how == "keys":
        data[-70] ^= 1
    elif how == "longer":
        data += b"0"
    file.write_bytes(data)


@pytest.mark.parametrize("make", [built, halved])
@pytest.mark.parametrize("how", ["cut", "empty", "vectors", "keys", "longer"])
def test_verify_names_a_damaged_file_and_repair_removes_it(
    tmp_path: Path, how: str, make: Callable[[Table], str]
) -> None:
    table = filled(tmp_path, range(40))
    path = make(table)
    assert check_root(table.location).faults == []
    assert check_root(table.location).others == []
    damage(tmp_path / path, how)
    (fault,) = check_root(table.location).faults
    assert (fault.path, fault.what) == (path, "its content is not what was written")
    repair_root(table.location)
    assert not table.location.exists(path)
    assert check_root(table.location).faults == []


def test_a_matrix_under_the_name_of_another_is_not_believed(tmp_path: Path) -> None:
    table = filled(tmp_path, range(40))
    path = built(table)
    other = f"{table.folder}/matrix-{'0' * 20}.npy"
    (tmp_path / path).rename(tmp_path / other)
    assert fault_of(table.location, other) != ""


def test_racing_builders_leave_one_whole_matrix(tmp_path: Path) -> None:
    table = filled(tmp_path, range(60))
    path, start = matrix_path(table), threading.Barrier(4)

    def build() -> None:
        start.wait()
        build_matrix(table, table.location, path)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fault_of(table.location, path) == ""
    assert table.location.staged() == []


KILLED = """
import os, signal, sys
from storage.locations.location import Location
from storage.tables.matrices import build_matrix, matrix_path
from storage.tables.table import Table, load_table

table = load_table(Location(sys.argv[1]), "image_features", sys.argv[2])
read = Table.iter_parts

def killed(self, *columns):
    for number, part in enumerate(read(self, *columns)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield part

path = matrix_path(table)
Table.iter_parts = killed
build_matrix(table, table.location, path)
"""


def test_a_matrix_has_its_room_before_it_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, a page without a block would kill the process that writes to it."""
    mapped, held = np.memmap, []

    def memmap(file: BinaryIO, *given: Any) -> Any:
        status = os.fstat(file.fileno())
        held.append((512 * status.st_blocks, status.st_size))
        return mapped(file, *given)

    table = filled(tmp_path, range(4000), size=4000)
    monkeypatch.setattr(np, "memmap", memmap)
    built(table)
    ((room, size),) = held
    assert room >= size > 3000 * 4 * DIM


def test_halves_have_their_room_before_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk refuses them at once, and not when other writers have no room left."""
    product, held = np.vecdot, []

    def vecdot(*given: Any) -> Any:
        (staged,) = table.location.staged()
        held.append(512 * os.stat(table.location.join(staged.path)).st_blocks)
        return product(*given)

    table = filled(tmp_path, range(4000), size=4000)
    monkeypatch.setattr(np, "vecdot", vecdot)
    path = halved(table)
    assert held[0] >= table.location.size(path) - 64


def test_a_killed_builder_leaves_a_staged_file_that_nobody_reads(tmp_path: Path) -> None:
    table = filled(tmp_path, range(40))
    command = [sys.executable, "-c", KILLED, str(tmp_path), table.spec_key]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    path = matrix_path(table)
    assert not table.location.exists(path)
    assert len(table.location.staged()) == 1
    assert check_root(table.location).faults == []
    assert fault_of(table.location, built(table)) == ""
    clean(table.location, older_than_s=-60)
    assert table.location.staged() == []


def test_clean_removes_matrices_and_nothing_else_of_a_table(tmp_path: Path) -> None:
    table = filled(tmp_path, range(20))
    paths = {halved(table), matrix_path(table)}
    assert {entry.path for _, entry in clean(table.location, older_than_s=-60)} == paths
    assert table.completeness([key(n) for n in range(20)]).ok == 16


def test_keys_are_found_as_a_dictionary_finds_them() -> None:
    rng = np.random.default_rng(0)
    there = sorted({f"{n:x}" for n in rng.integers(0, 5000, 900)} | {"ü", "zoë"})
    column = key_column(there)
    asked = [f"{n:x}" for n in rng.integers(0, 6000, 500)] + ["ü", "", "zoë", "z" * 40]
    place = {name: i for i, name in enumerate(there)}
    assert places_of(asked, column).tolist() == [place.get(name, -1) for name in asked]
    assert places_of(there, column).tolist() == list(range(len(there)))
    assert places_of([], column).tolist() == []


def test_keys_of_several_columns_are_their_intersection() -> None:
    columns = [key_column(["a", "b", "c", "e"]), key_column(["b", "c", "dd", "e"])]
    keys, places = shared_keys(["e", "x", "b", "b"], columns)
    assert keys.tolist() == [b"b", b"e"]
    assert [own.tolist() for own in places] == [[1, 3], [0, 3]]
