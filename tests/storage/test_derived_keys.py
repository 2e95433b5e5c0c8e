"""Planned keys that follow from something smaller are computed only where that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.locations.location import Location
from storage.tables.plans import Coverage, DerivedKeys
from storage.tables.table import Table, open_table
from tests.storage.test_tables import KEYS, captions

SPEC = {"producer": "tests/derived/1"}


class Counted:
    """Derived keys that count how often they were computed."""

    def __init__(self, identity: str, keys: Sequence[str]) -> None:
        self.calls = 0
        self.keys = DerivedKeys(identity, lambda: self._made(keys))

    def _made(self, keys: Sequence[str]) -> Sequence[str]:
        self.calls += 1
        return keys


@pytest.fixture
def table(location: Location) -> Table:
    return open_table(location, "captions", SPEC)


def publish_all(table: Table, keys: Sequence[str]) -> None:
    for shard in table.plan(keys, 4).shards:
        table.publish(shard, captions(table, shard.members))


def test_a_complete_table_is_known_by_the_identity_alone(table: Table) -> None:
    publish_all(table, KEYS)
    first = Counted("one", KEYS)
    whole = Coverage(planned=10, ok=10, failed=0, missing=0)
    assert table.plan(first.keys, 4).before == whole
    assert first.calls > 0
    again = Counted("one", ["never asked for"])
    assert table.plan(again.keys, 4).before == whole
    assert table.completeness(again.keys) == whole
    assert again.calls == 0


def test_a_receipt_for_the_keys_themselves_serves_too(table: Table) -> None:
    """So does a root of a version that knew no derived keys."""
    publish_all(table, KEYS)
    table.completeness(KEYS)
    parts = table.parts()
    derived = Counted("one", KEYS)
    assert table.plan(derived.keys, 4).shards == ()
    assert derived.calls == 1
    assert table.plan(derived.keys, 4).shards == ()
    assert derived.calls == 1
    assert table.parts() == parts


def test_another_identity_and_a_new_part_settle_nothing(table: Table) -> None:
    publish_all(table, KEYS)
    table.plan(Counted("one", KEYS).keys, 4)
    more = Counted("two", [*KEYS, "k99"])
    assert [shard.members for shard in table.plan(more.keys, 4).shards] == [("k99",)]
    publish_all(table, ["k99"])
    same = Counted("one", KEYS)
    assert table.plan(same.keys, 4).shards == ()
    assert same.calls > 0  # the table changed: what was known of it counts no longer


def test_missing_rows_leave_no_receipt(table: Table) -> None:
    few = Counted("one", KEYS)
    assert table.plan(few.keys, 4).todo == 10
    assert table.plan(few.keys, 4).todo == 10
    assert few.calls >= 2


def test_a_receipt_of_an_earlier_version_is_not_read(tmp_path: Path) -> None:
    """It kept its counts in the file, where they can be damaged: the rows are counted once more."""
    table = open_table(Location(str(tmp_path)), "captions", SPEC)
    publish_all(table, KEYS)
    table.plan(Counted("one", KEYS).keys, 4)
    folder = Path(table.location.join(table.folder))
    (receipt,) = folder.glob("complete-*")
    receipt.rename(folder / f"{receipt.name[:29]}.json")
    asked = Counted("one", KEYS)
    assert table.plan(asked.keys, 4).before == Coverage(planned=10, ok=10, failed=0, missing=0)
    assert asked.calls > 0
    again = Counted("one", KEYS)
    assert table.plan(again.keys, 4).before.ok == 10
    assert again.calls == 0
