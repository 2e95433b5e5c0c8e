"""Damages that were met, one by one: each is found, the others too, and repaired as far as can be.

Random ones are in tests/tasks/test_damaged_root.py.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from deployments.cli import main
from storage.checks.root import check_root, repair_root
from storage.collections.collection import Collection, ingest
from storage.locations.damage import DamagedFile
from storage.locations.location import Location
from storage.tables.listing import list_tables
from storage.tables.part_files import open_part
from storage.tables.table import CorruptPart, Shard, Table, load_table, open_table
from tests.fakes.pictures import jpeg

KEYS = [f"k{number}" for number in range(12)]


def fill(location: Location, producer: str = "one") -> Table:
    table = open_table(location, "captions", {"producer": producer})
    for start in range(0, 12, 4):
        members = KEYS[start : start + 4]
        texts = [[f"of {member}"] for member in members]
        columns = {"n": [1] * 4, "status": ["ok"] * 4, "reason": [""] * 4}
        rows = table.rows(image_id=members, captions=texts, raw=texts, **columns)
        table.publish(Shard.of(members), rows)
    table.plan(KEYS, 4)
    return table


@pytest.fixture
def filled(location: Location, source: Path) -> Location:
    ingest(location, source, "pets")
    fill(location)
    return location


def faults(location: Location) -> dict[str, str]:
    return {fault.path: fault.what for fault in check_root(location).faults}


def test_a_root_without_damage_has_no_fault(filled: Location) -> None:
    found = check_root(filled)
    assert (found.faults, found.unrecorded, found.others) == ([], [], [])
    assert found.tables == 3


def test_every_fault_is_named_and_none_hides_another(filled: Location, source: Path) -> None:
    other = fill(filled, "two")
    table = load_table(filled, "captions", fill(filled).spec_key)
    collection = Collection.open(filled, "pets")
    before = collection.rows(), table.read(), other.read()
    lost, cut = (entry.path for entry in table.parts()[:2])
    flipped = other.parts()[0].path
    data = bytearray(filled.read_bytes(flipped))
    data[len(data) // 2] ^= 1
    receipt = next(path for path in filled.list(table.folder) if "complete-" in path)
    damages = {
        cut: filled.read_bytes(cut)[:-9],
        flipped: bytes(data),
        f"{other.folder}/spec.json": b'{"producer": "three"}\n',
        receipt: b"{",
        "collections/pets.json": filled.read_bytes("collections/pets.json")[:70],
        f"collections/listings/{collection.listing}.parquet": os.urandom(300),
        filled.list("collections/places")[0]: b"",
        "collections/copies/pets.json": filled.read_bytes("collections/copies/pets.json"),
    }
    for path, content in damages.items():
        filled.replace(path, content)
    filled.remove(lost)
    filled.remove(f"{table.folder}/spec.json")
    damages.pop("collections/copies/pets.json")
    assert set(faults(filled)) == {*damages, lost, f"{table.folder}/spec.json"}
    assert {info.spec_key: bool(info.fault) for info in list_tables(filled)}[table.spec_key]

    done, left = repair_root(filled)
    assert left.faults == []
    assert len(done) == len(damages) + 2
    assert faults(filled) == {}
    fill(filled), fill(filled, "two")
    after = Collection.open(filled, "pets").rows(), table.read(), other.read()
    assert all(one.equals(two) for one, two in zip(before, after, strict=True))


def test_ingest_does_not_believe_a_damaged_listing(filled: Location, source: Path) -> None:
    path = f"collections/listings/{Collection.open(filled, 'pets').listing}.parquet"
    whole = filled.read_bytes(path)
    filled.replace(path, os.urandom(300))
    assert len(Collection.open(filled, "pets").rows()) == 3  # from the rows of sources
    ingest(filled, source, "pets")
    assert filled.read_bytes(path) == whole


def test_a_writer_killed_between_part_and_record_is_no_fault(location: Location) -> None:
    table = fill(location)
    part = table.parts()[0].path
    (record,) = [path for path in location.list("manifest") if part in path]
    location.remove(record)
    found = check_root(location)
    assert (found.faults, found.unrecorded) == ([], [part])
    repair_root(location)
    assert location.exists(record)
    assert check_root(location).unrecorded == []


def test_a_part_that_was_put_aside_or_whose_loss_was_settled_is_not_missed(
    location: Location,
) -> None:
    table = fill(location)
    first, second = (entry.path for entry in table.parts()[:2])
    table.quarantine(first.rpartition("/")[2])
    assert faults(location) == {}
    location.remove(second)
    assert set(faults(location)) == {second}
    repair_root(location)
    assert faults(location) == {}
    assert table.plan(KEYS, 4).todo == 8


def test_a_pointer_is_written_again_only_where_it_is_certain(
    location: Location, source: Path, tmp_path: Path
) -> None:
    ingest(location, source, "pets")
    more = tmp_path / "more"
    more.mkdir()
    (more / "9.jpg").write_bytes(jpeg(9))
    ingest(location, more, "pets", if_taken="replace")
    for path in ("collections/pets.json", "collections/copies/pets.json"):
        location.replace(path, b"{")
    with pytest.raises(DamagedFile, match=r"collections/pets\.json is damaged.*cache repair"):
        Collection.open(location, "pets")
    done, _ = repair_root(location)
    # Two places had the name, and nothing says which of them it stands for.
    assert "ingest its source again" in done[0].done
    assert not location.exists("collections/pets.json")


def test_every_bit_of_a_footer_is_checked(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    table = fill(location)
    whole = table.read()
    path = table.parts()[0].path
    data = location.read_bytes(path)
    footer = len(data) - int.from_bytes(data[-8:-4], "little") - 8
    for place in range(footer, len(data), 11):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        location.replace(path, bytes(damaged))
        assert path in faults(location)
        # A reader is stopped, or reads what was written.
        with contextlib.suppress(CorruptPart), open_part(location, path) as part:
            part.footer()
            assert table.read().equals(whole)


def test_the_command_checks_repairs_and_cleans(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    location = Location(str(root))
    ingest(location, source, "pets")
    part = next(root.glob("images/*/part-*.parquet"))
    part.unlink()
    arguments = ["--root", str(root)]
    assert main(["cache", "verify", *arguments]) == 1
    page = capsys.readouterr().out
    assert part.name in page
    assert "is not there any more" in page
    assert "costs:  its images are stored again by ingesting their source" in page
    assert main(["cache", "repair", *arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["repairs"]) == 1
    assert main(["cache", "verify", *arguments]) == 0
    ingest(location, source, "pets")
    assert part.exists()

    staged = root / ".staging" / "0123"
    staged.write_bytes(b"half")
    location.create("begun/captions/0123456789/0123456789", b"")
    aside = root / "captions" / "0123456789" / "part-0123456789.parquet.quarantined-1"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"old")
    mark = root / "begun/captions/0123456789/0123456789"
    capsys.readouterr()
    assert main(["cache", "clean", *arguments]) == 0
    assert "0 files" in capsys.readouterr().out  # they are young
    for file in (staged, mark, aside):
        os.utime(file, (0, 0))
    assert main(["cache", "clean", "--dry-run", *arguments]) == 0
    assert "3 files older than a day would be removed" in capsys.readouterr().out
    assert staged.exists()
    assert main(["cache", "clean", *arguments]) == 0
    assert not any(file.exists() for file in (staged, mark, aside))
    assert main(["cache", "verify", *arguments]) == 0
