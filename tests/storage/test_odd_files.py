"""What has the name of a file and is something else is found, put aside and never waited for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.checks.cleaning import clean
from storage.checks.root import check_root, repair_root
from storage.collections.collection import Collection, ingest
from storage.locations.damage import DamagedFile
from storage.locations.local_files import OddFile
from storage.locations.location import Location
from storage.tables.footers import Footer, footer_metadata
from storage.tables.listing import list_tables
from storage.tables.plans import SpecConflict
from storage.tables.table import CorruptPart, Shard, Table, load_table
from tests.storage.test_checks import KEYS, fill

TYPED = (CorruptPart, SpecConflict, DamagedFile, OddFile)


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_link_to_nothing(file: Path) -> None:
    file.symlink_to("/nowhere/at/all")


def a_loop(file: Path) -> None:
    file.symlink_to(file.name)


def a_folder(file: Path) -> None:
    file.mkdir()


def a_full_folder(file: Path) -> None:
    file.mkdir()
    (file / "something").write_bytes(b"of somebody")


ODD = (a_pipe, a_link_to_nothing, a_loop, a_folder, a_full_folder)
PLACES = (
    "captions/*/part-*.parquet",
    "captions/*/spec.json",
    "images/*/part-*.parquet",
    "collections/pets.json",
    "collections/listings/*.parquet",
    "collections/places/*.json",
    "checkpoints/mapping/0123456789abcdef0123/config.json",
)


@pytest.fixture
def root(tmp_path: Path, source: Path) -> Path:
    """A filled local root."""
    location = Location(str(tmp_path / "root"))
    ingest(location, source, "pets")
    fill(location)
    location.create("checkpoints/mapping/0123456789abcdef0123/config.json", b"{}")
    return tmp_path / "root"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_a_file_is_put_aside_and_everything_comes_back(
    root: Path, source: Path, place: str, odd: Callable[[Path], None]
) -> None:
    location = Location(str(root))
    before = fill(location).read(), Collection.open(location, "pets").rows()
    file = sorted(root.glob(place))[0]
    path = file.relative_to(root).as_posix()
    file.unlink()
    odd(file)
    # Every way of reading it ends at once, with its name.
    with pytest.raises(OddFile, match="it is not a file but"):
        location.read_bytes(path)
    assert not location.create(path, b"a writer does not take its name")
    list_tables(location)
    with contextlib.suppress(*TYPED):
        after = fill(location).read(), Collection.open(location, "pets").rows()
        assert all(one.equals(two) for one, two in zip(before, after, strict=True))

    found = {fault.path: fault.what for fault in check_root(location).faults}
    assert "it is not a file but" in found[path]
    repair_root(location)
    assert "it is not a file but" not in str(check_root(location).faults)
    ingest(location, source, "pets")
    after = fill(location).read(), Collection.open(location, "pets").rows()
    assert all(one.equals(two) for one, two in zip(before, after, strict=True))
    assert check_root(location).faults == []
    clean(location, older_than_s=-60.0)


@pytest.mark.parametrize("place", ["captions", "captions/{key}", "manifest", ".staging", "begun"])
def test_a_file_where_a_folder_belongs(root: Path, place: str) -> None:
    location = Location(str(root))
    table = fill(location)
    before, path = table.read(), place.format(key=table.spec_key)
    (root / path).rename(root.parent / "moved") if (root / path).exists() else None
    (root / path).write_bytes(b"x")
    found = {fault.path: fault.what for fault in check_root(location).faults}
    assert found[path] == "it is a file where a folder belongs"
    repair_root(location)
    assert fill(location).read().equals(before)
    assert check_root(location).faults == []


def test_a_linked_folder_is_checked_and_a_link_upwards_ends(root: Path, tmp_path: Path) -> None:
    location = Location(str(root))
    table = fill(location)
    (root / "captions").rename(tmp_path / "another disk")
    (root / "captions").symlink_to(tmp_path / "another disk")
    (root / table.folder / "loop").symlink_to(root)
    assert check_root(location).faults == []
    assert table.spec_key in {info.spec_key for info in list_tables(location, ["captions"])}
    part = root / table.parts()[0].path
    part.write_bytes(part.read_bytes()[:-1])
    assert [fault.path for fault in check_root(location).faults] == [table.parts()[0].path]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(str(root))
    table = fill(location)
    listdir = os.listdir

    def refusing(folder: Path) -> list[str]:
        if folder == root / table.folder:
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refusing)  # root may list every folder
    with pytest.raises(PermissionError, match=table.spec_key):
        table.plan(KEYS, 4)
    (fault,) = check_root(location).faults
    assert (fault.path, fault.mend()) == (table.folder, "left as it is")


def rewrite(table: Table, path: str, rows: pa.Table, **footer: object) -> None:
    """Write a part that is whole by its own footer, as nothing of ours would."""
    local = Path(table.location.join(path))
    key = path.rpartition("-")[2].removesuffix(".parquet")
    said = Footer(table.name, table.spec_key, key, 0, rows.num_rows)
    said = replace(said, **footer)  # type: ignore[arg-type]
    metadata = footer_metadata(said, None, table.spec)
    pq.write_table(rows.replace_schema_metadata(metadata), local, write_page_checksum=True)


@pytest.mark.parametrize("what", ["two rows", "no key", "another's name", "words"])
def test_a_part_that_lies_in_a_valid_footer_is_named(tmp_path: Path, what: str) -> None:
    location = Location(str(tmp_path))
    table = fill(location)
    before = table.read()
    first, second = (entry.path for entry in table.parts()[:2])
    rows = pq.read_table(location.join(first), partitioning=None)
    if what == "two rows":
        rewrite(table, first, pa.concat_tables([rows, rows.slice(0, 1)]))
    elif what == "no key":
        nothing = pa.array([None] * rows.num_rows, pa.string())
        rewrite(table, first, rows.set_column(0, rows.schema.field(0), nothing))
    elif what == "words":
        rewrite(table, first, rows, attempt="one")
    else:
        location.replace(first, location.read_bytes(second))
    for receipt in location.list(table.folder):
        if "complete-" in receipt:
            location.remove(receipt)
    reading = (lambda: table.plan(KEYS, 4), lambda: list(table.iter_parts()))
    for read in reading:
        with pytest.raises(CorruptPart, match=Path(first).name):
            read()
    shard = next(s for s in (Shard.of(KEYS[i : i + 4]) for i in (0, 4, 8)) if s.key in first)
    texts = [["other"] for _ in shard.members]
    columns = {"n": [1] * 4, "status": ["ok"] * 4, "reason": [""] * 4}
    with pytest.raises(CorruptPart):  # the rows that were made are not dropped in silence
        table.publish(
            shard, table.rows(image_id=shard.members, captions=texts, raw=texts, **columns)
        )
    repair_root(location)
    assert fill(location).read().equals(before)


def test_a_receipt_of_another_number_of_rows_is_not_believed(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    table = fill(location)
    (receipt,) = [path for path in location.list(table.folder) if "complete-" in path]
    location.rename(receipt, receipt.rsplit("-", 2)[0] + "-9-7")
    assert table.plan(KEYS, 4).before.ok == len(KEYS)


@pytest.mark.parametrize("place", ["captions/*/spec.json", "collections/pets.json", "begun/x"])
def test_brackets_that_are_nested_too_deep(root: Path, place: str) -> None:
    location = Location(str(root))
    if "begun" in place:
        location.create(f"begun/{fill(location).folder}/0123456789", b"[")
        place = "begun/*/*/*"
    file = sorted(root.glob(place))[0]
    file.write_bytes(b"[" * 200_000)
    path = file.relative_to(root).as_posix()
    assert path in {fault.path for fault in check_root(location).faults}
    repair_root(location)
    assert len(fill(location).read()) == len(KEYS)
    assert check_root(location).faults == []
    assert load_table(location, "captions", fill(location).spec_key)
