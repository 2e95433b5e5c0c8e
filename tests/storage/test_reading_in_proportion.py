"""Opens, requests and bytes of reading pictures grow with the pictures that are read alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from storage.collections.places import places_of
from storage.collections.reading import read_pictures
from storage.locations.location import Location
from storage.tables import parts as part_encoding
from storage.tables.plans import IncompleteTable, Plan
from storage.tables.table import Shard, Table, open_table
from tests.fakes.stored_pictures import counted_reads, store_pictures

EACH = 24


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
