"""Opens, requests and bytes of reading pictures grow with the pictures that are read alone."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from storage.checks.root import check_root, repair_root
from storage.collections import places, reading
from storage.collections.place_files import PLACES
from storage.collections.places import places_of
from storage.collections.reading import read_pictures
from storage.locations.location import Location
from storage.tables import parts as part_encoding
from storage.tables.plans import IncompleteTable, Plan
from storage.tables.table import Shard, Table, open_table
from tests.fakes.stored_pictures import counted_reads, store_pictures

EACH = 24


def forbidden(*given: object) -> None:
    raise PermissionError(13, "read-only")


def captions(location: Location) -> Table:
    return open_table(location, "captions", {"producer": "test"})


def plan_of(location: Location, ids: list[str], size: int) -> Plan:
    return captions(location).plan(ids, size, order=places_of(location).in_order)


@pytest.mark.parametrize("count", [3, 12])
def test_a_stage_opens_each_part_about_once_and_reads_its_pictures_alone(
    location: Location, count: int
) -> None:
    stored = store_pictures(location, count, EACH)
    plan = plan_of(location, sorted(stored), 16)
    assert sorted(key for shard in plan.shards for key in shard.members) == sorted(stored)
    with counted_reads() as asked:
        read = {
            key: data
            for shard in plan.shards
            for key, data in read_pictures(Location(location.root), shard.members)
        }
    assert read == stored
    assert asked.opens <= count + len(plan.shards)
    size = sum(map(len, stored.values()))
    assert asked.bytes < 1.15 * size  # what lies between two pictures is a few bytes
    if not location.is_local:
        assert set(asked.requests) == {"get_object"}  # neither a listing nor a HEAD a shard
        assert asked.requests["get_object"] <= count + len(plan.shards)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_set_of_pictures_is_read_in_proportion(location: Location, seed: int) -> None:
    stored = store_pictures(location, 5, EACH, size=40_000, seed=seed)
    chance = random.Random(seed)
    chosen = chance.sample(sorted(stored), chance.randint(1, len(stored)))
    places_of(location).find(chosen)
    with counted_reads() as asked:
        read = dict(read_pictures(location, chosen))
    assert read == {key: stored[key] for key in chosen}
    own = sum(len(data) for data in read.values())
    assert own <= asked.bytes <= 1.5 * own
    assert asked.opens <= 5


def test_what_a_process_does_not_know_yet_is_found_and_what_is_not_stored_is_named(
    location: Location,
) -> None:
    first = store_pictures(location, 2, 3)
    assert dict(read_pictures(location, list(first))) == first
    later = store_pictures(location, 2, 3, seed=1)
    assert dict(read_pictures(location, [*first, *later])) == first | later
    with pytest.raises(IncompleteTable, match="2 images are not stored, first ab"):
        list(read_pictures(location, [*later, "ab" * 32, "no hash"]))


@pytest.mark.parametrize("kind", ["earlier", "wrong"])
def test_parts_without_spans_or_with_wrong_ones_give_the_same_pictures(
    location: Location, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "earlier":
        monkeypatch.setattr(part_encoding, "SPANS", b"unknown")
    else:
        wrong = np.array([[7, 2_000]] * EACH, "<i8")
        monkeypatch.setattr(part_encoding, "_spans", lambda *given: wrong)
    stored = store_pictures(location, 2, EACH)
    monkeypatch.undo()
    stored |= store_pictures(location, 1, EACH, seed=1)
    plan = plan_of(location, sorted(stored), 10)
    assert sorted(key for shard in plan.shards for key in shard.members) == sorted(stored)
    for shard in plan.shards:
        assert dict(read_pictures(location, shard.members)) == {
            key: stored[key] for key in shard.members
        }


def test_a_part_that_is_put_aside_and_stored_again_is_found(location: Location) -> None:
    stored = store_pictures(location, 2, EACH)
    images = places_of(location).table
    assert dict(read_pictures(location, list(stored))) == stored
    path = images.parts()[0].path
    lost = images.keys_of(path.rpartition("/")[2])
    images.quarantine(path.rpartition("/")[2])
    kept = {key: data for key, data in stored.items() if key not in set(lost)}
    assert dict(read_pictures(location, list(kept))) == kept
    with pytest.raises(IncompleteTable, match=f"{EACH} images are not stored"):
        list(read_pictures(location, list(stored)))
    store_pictures(location, 2, EACH)
    assert dict(read_pictures(location, list(stored))) == stored


def test_rows_are_the_same_in_any_order_and_a_filled_table_is_left_as_it_is(
    location: Location,
) -> None:
    stored = store_pictures(location, 3, EACH)
    table = captions(location)

    def publish(shard: Shard) -> None:
        size = len(shard.members)
        texts = [[f"of {key}"] for key in shard.members]
        columns = {"n": [1] * size, "status": ["ok"] * size, "reason": [""] * size}
        table.publish(
            shard, table.rows(image_id=shard.members, captions=texts, raw=texts, **columns)
        )

    before = table.plan(sorted(stored), 10)
    after = plan_of(location, sorted(stored), 10)
    assert before.shards != after.shards
    for shard in after.shards[:4]:
        publish(shard)
    for shard in table.plan(sorted(stored), 10).shards:  # an earlier version goes on
        publish(shard)
    assert table.read()["image_id"].to_list() == sorted(stored)
    assert plan_of(location, sorted(stored), 10).shards == ()


def fresh(location: Location) -> Location:
    """What a new process knows: nothing."""
    places_of.cache_clear()
    return Location(location.root)


def place_files(location: Location) -> list[str]:
    folder = places_of(location).table.folder
    return [each for each in location.list(folder) if PLACES.fullmatch(each.rpartition("/")[2])]


@pytest.mark.parametrize("count", [12, 30])
def test_one_picture_costs_a_new_process_about_its_own_bytes(
    location: Location, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    stored = store_pictures(location, count, 6)
    assert dict(read_pictures(location, list(stored))) == stored
    assert len(place_files(location)) == 1
    monkeypatch.setattr(places, "open_part", None)  # no footer is asked
    monkeypatch.setattr(reading, "open_part", None)
    for key in random.Random(0).sample(sorted(stored), 3):
        new = fresh(location)
        with counted_reads() as asked:
            assert dict(read_pictures(new, [key])) == {key: stored[key]}
        assert asked.bytes < len(stored[key]) + 24 * len(stored) + 100 * count
        assert location.is_local or sum(asked.requests.values()) <= 8


DAMAGES = ["cut", "flipped", "other places", "other groups", "one bit", "the last byte"]
EXTREMES = {"other groups": -9, "the last byte": 2**63 - 1}


@pytest.mark.parametrize("damage", [*DAMAGES, "lost", "of parts that are gone", "closed"])
def test_a_file_of_places_is_a_shortcut_and_never_the_truth(
    location: Location, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    if damage == "closed":
        monkeypatch.setattr(places, "write_places", forbidden)
    stored = store_pictures(location, 12, 3)
    assert dict(read_pictures(location, list(stored))) == stored
    for path in place_files(location):
        data = location.read_bytes(path)
        if damage == "cut":
            location.replace(path, data[: len(data) // 2])
        if damage == "flipped":
            rows = 24 * len(stored)
            location.replace(path, bytes(255 - byte for byte in data[:rows]) + data[rows:])
        if damage == "other places":
            rows = 8 * len(stored)  # the digests are right
            location.replace(path, data[:rows] + b"\x7f" * 2 * rows + data[3 * rows :])
        if damage in EXTREMES:
            rows = 8 * len(stored)
            starts = np.full(len(stored), EXTREMES[damage], "<i8").tobytes()
            location.replace(path, data[:rows] + starts + data[2 * rows :])
        if damage == "one bit":
            sign = 8 * len(stored) + 7  # of the first start
            flipped = bytes([data[sign] ^ 128])
            location.replace(path, data[:sign] + flipped + data[sign + 1 :])
        if damage == "lost":
            places_of.cache_clear()
            assert dict(read_pictures(location, list(stored)[:1])) == dict([*stored.items()][:1])
            location.remove(path)
    if damage == "of parts that are gone":
        images = places_of(location).table
        for part in images.parts()[:2]:
            images.quarantine(part.path.rpartition("/")[2])
        stored |= store_pictures(location, 12, 3)
    new = location if damage == "lost" else fresh(location)
    assert dict(read_pictures(new, list(stored))) == stored
    assert plan_of(new, list(stored), 7).todo == len(stored)
    assert check_root(location).faults == [] or damage in DAMAGES


def test_many_files_of_places_become_one(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "root"))
    stored: dict[str, bytes] = {}
    most = 0
    for seed in range(12):
        stored |= store_pictures(location, 9, 1, size=50, seed=seed)
        assert dict(read_pictures(fresh(location), list(stored))) == stored
        most = max(most, len(place_files(location)))
    assert most == 8
    assert 1 < len(place_files(location)) < 8


def test_damaged_files_of_places_are_found_and_mended(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "root"))
    stored = store_pictures(location, 12, 2)
    assert dict(read_pictures(location, list(stored))) == stored
    (path,) = place_files(location)
    location.replace(path, location.read_bytes(path)[:-1] + b"x")
    assert [fault.path for fault in check_root(location).faults] == [path]
    mended, left = repair_root(location)
    assert [each.fault.path for each in mended] == [path]
    assert left.faults == [] == place_files(location)
    assert dict(read_pictures(fresh(location), list(stored))) == stored
    assert len(place_files(location)) == 1
