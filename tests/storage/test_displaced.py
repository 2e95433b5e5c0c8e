"""A table's folder that was moved or renamed: one round of repair, and no row is made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage.checks.root import check_root, repair_root
from storage.collections.collection import Collection, ingest
from storage.locations import manifest
from storage.locations.location import Location
from storage.tables.table import Table
from tests.storage.test_checks import KEYS, fill

KEY = "ab" * 10
PLACES = {
    "another key": "captions/" + KEY,
    "another kind": "rewrites/{key}",
    "a kind whose spec says more": "image_features/{key}",
    "another kind and key": "triplets/" + KEY,
    "a name": "captions/old",
    "a folder in its own": "captions/{key}/copy",
}


def moved(table: Table, place: str) -> str:
    """Rename all files of a table; returns their new folder."""
    folder = place.format(key=table.spec_key)
    for path in table.location.list(table.folder):
        table.location.rename(path, path.replace(table.folder, folder, 1))
    return folder


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_one_round_brings_the_rows_back(tmp_path: Path, place: str, recorded: bool) -> None:
    location = Location(str(tmp_path))
    table, other = fill(location), fill(location, "two")
    before, neighbours = table.read(), other.read()
    if not recorded:  # a root of an earlier version
        shutil.rmtree(tmp_path / "manifest")
    moved(table, place)
    assert check_root(location).faults
    _, left = repair_root(location)
    assert left.faults == []
    assert (check_root(location).faults, check_root(location).unrecorded) == ([], [])
    assert table.plan(KEYS, 4).todo == 0
    assert table.read().equals(before)
    assert other.read().equals(neighbours)
    assert repair_root(location)[0] == []


def test_one_round_on_any_store(location: Location) -> None:
    table = fill(location)
    before = table.read()
    moved(table, PLACES["another key"])
    _, left = repair_root(location)
    assert left.faults == []
    assert table.read().equals(before)


def test_a_copy_is_put_aside_where_its_own_place_is_taken(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    table = fill(location)
    before = table.read()
    shutil.copytree(tmp_path / table.folder, tmp_path / "captions" / KEY)
    done, left = repair_root(location)
    assert left.faults == []
    assert all("put" in mended.done for mended in done)
    assert table.read().equals(before)


def test_of_two_displaced_copies_one_comes_back(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    table = fill(location)
    before = table.read()
    shutil.copytree(tmp_path / table.folder, tmp_path / "captions" / KEY)
    moved(table, PLACES["another kind"])
    _, left = repair_root(location)
    assert left.faults == []
    assert table.read().equals(before)
    assert repair_root(location)[0] == []


def test_a_damaged_part_does_not_come_back(tmp_path: Path) -> None:
    """Its footer is right, and its rows are not those that were published."""
    location = Location(str(tmp_path))
    table = fill(location)
    lost = table.parts()[0].path
    folder = moved(table, PLACES["another key"])
    data = bytearray(location.read_bytes(lost.replace(table.folder, folder)))
    data[20] ^= 1
    location.replace(lost.replace(table.folder, folder), bytes(data))
    _, left = repair_root(location)
    assert left.faults == []
    assert not location.exists(lost)
    assert lost not in manifest.read_records(location.list("manifest"))
    assert table.plan(KEYS, 4).todo == 4


ONTO = (
    ("captions/{key}/spec.json", "manifest/captions"),
    ("captions/{key}/spec.json", "manifest/captions/{key}"),
    ("captions/{key}", "manifest/captions/{key}/{record}"),
    ("captions/{key}/{part}", "collections/listings"),
    ("captions/{key}/{part}", "collections/places"),
    ("captions/{key}/{part}", "collections/copies"),
    ("captions/{key}/{part}", "collections/listings/{part}"),
    ("captions/{key}/{part}", "begun/captions"),
    ("captions/{key}/{part}", "captions/{key}/spec.json"),
    ("collections/listings/{listing}", "sources/{sources}/spec.json"),
)


@pytest.mark.parametrize(("one", "other"), ONTO)
def test_a_path_moved_onto_another_needs_one_round(
    tmp_path: Path, source: Path, one: str, other: str
) -> None:
    root = tmp_path / "root"
    location = Location(str(root))
    ingest(location, source, "pets")
    table = fill(location)
    pets = Collection.open(location, "pets")
    before = table.read(), pets.rows()
    part = table.parts()[0].path
    names = {
        "key": table.spec_key,
        "part": Path(part).name,
        "record": Path(manifest.Record.of(part, location.read_bytes(part)).place).name,
        "listing": f"{pets.listing}.parquet",
        "sources": next((root / "sources").iterdir()).name,
    }
    here, there = root / one.format(**names), root / other.format(**names)
    if there.is_dir():
        shutil.rmtree(there)
    there.unlink(missing_ok=True)
    there.parent.mkdir(parents=True, exist_ok=True)
    here.rename(there)
    assert check_root(location).faults
    _, left = repair_root(location)
    assert left.faults == []
    found = check_root(location)
    assert (found.faults, found.unrecorded) == ([], [])
    assert repair_root(location)[0] == []
    assert fill(location).read().equals(before[0])
    assert Collection.open(location, "pets").rows().equals(before[1])
