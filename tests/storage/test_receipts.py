"""Receipts that were forged, renamed, copied or outlived: found, and no run is misled by them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storage.checks.root import check_root, repair_root
from storage.locations.location import Location
from storage.tables.plans import Coverage, DerivedKeys
from storage.tables.receipts import leave_receipt
from storage.tables.table import Shard, Table
from tests.storage.test_checks import KEYS, fill

DERIVED = DerivedKeys("all of them", lambda: KEYS)


def receipts(table: Table) -> list[str]:
    return [path for path in table.location.list(table.folder) if "/complete-" in path]


def with_derived(location: Location, producer: str = "one") -> tuple[Table, str]:
    """A whole table with one receipt, that of derived keys."""
    table = fill(location, producer)
    for path in receipts(table):
        location.remove(path)
    table.plan(DERIVED, 4)
    (receipt,) = receipts(table)
    return table, receipt


def is_found_and_mended(location: Location, path: str) -> None:
    assert [fault.path for fault in check_root(location).faults] == [path]
    done, left = repair_root(location)
    assert (len(done), left.faults) == (1, [])
    assert "put aside" in done[0].done
    assert not location.exists(path)


def never_asked() -> Sequence[str]:
    raise AssertionError("the keys were computed")


def test_a_true_receipt_is_believed_and_has_no_fault(location: Location) -> None:
    table, _ = with_derived(location)
    assert table.plan(DerivedKeys(DERIVED.identity, never_asked), 4).before.ok == len(KEYS)
    assert check_root(location).faults == []


@pytest.mark.parametrize("place", range(3, 6))
def test_a_renamed_receipt(location: Location, place: int) -> None:
    """Its rows that are ok, those that failed, or its check."""
    table, receipt = with_derived(location)
    words = receipt.split("-")
    words[place] = str((int(words[place], 16) + 1) % 10).rjust(len(words[place]), "0")
    forged = "-".join(words)
    location.rename(receipt, forged)
    assert table.completeness(DERIVED) == Coverage(len(KEYS), len(KEYS), 0, 0)
    location.remove(receipt)
    is_found_and_mended(location, forged)


def test_a_receipt_of_another_table(location: Location) -> None:
    """The same keys, part names and sizes."""
    one, receipt = with_derived(location, "one")
    two = fill(location, "two")
    assert one.parts()[0].size == two.parts()[0].size
    for path in receipts(two):
        location.remove(path)
    copied = receipt.replace(one.folder, two.folder)
    location.create(copied, b"")
    with pytest.raises(AssertionError, match="were computed"):  # so it was not believed
        two.plan(DerivedKeys(DERIVED.identity, never_asked), 4)
    is_found_and_mended(location, copied)


@pytest.mark.parametrize(("ok", "failed"), [(13, 0), (12, 1), (9, 3), (0, 12), (10**9, 0)])
def test_a_receipt_of_more_rows_than_there_are(location: Location, ok: int, failed: int) -> None:
    """Whoever made it knew how."""
    table, receipt = with_derived(location)
    location.remove(receipt)
    leave_receipt(location, table._survey(), DERIVED.identity, Coverage(ok + failed, ok, failed, 0))
    (forged,) = receipts(table)
    is_found_and_mended(location, forged)
    assert table.completeness(DERIVED) == Coverage(len(KEYS), len(KEYS), 0, 0)


def test_rows_that_are_missing_are_made_after_a_repair(location: Location) -> None:
    table = fill(location)
    for path in receipts(table):
        location.remove(path)
    table.quarantine(table.parts()[0].path.rpartition("/")[2])
    leave_receipt(location, table._survey(), DERIVED.identity, Coverage(12, 12, 0, 0))
    (forged,) = receipts(table)
    is_found_and_mended(location, forged)
    assert table.plan(DERIVED, 4).todo == 4
    fill(location)
    assert len(table.read()) == len(KEYS)


def test_a_receipt_of_an_earlier_listing_says_nothing_and_is_no_fault(location: Location) -> None:
    table, receipt = with_derived(location)
    texts = [["more"]]
    rows = table.rows(image_id=["more"], captions=texts, raw=texts, n=[1])
    lost = table.parts()[0].path.rpartition("/")[2]
    table.publish(Shard.of(["more"]), rows)
    assert check_root(location).faults == []
    table.quarantine(lost)
    assert check_root(location).faults == []
    assert location.exists(receipt)
    assert table.plan(DERIVED, 4).todo > 0


@pytest.mark.parametrize("name", ["complete-{}-12-0", "complete-{}.json", "complete-{}-99-0"])
def test_a_receipt_of_an_earlier_version_is_counted_and_not_read(
    location: Location, name: str
) -> None:
    table, receipt = with_derived(location)
    location.rename(receipt, f"{table.folder}/{name.format('0123456789' * 2)}")
    found = check_root(location)
    assert found.faults == []
    assert found.left_over["receipts of an earlier version"] == 1
    assert table.completeness(DERIVED).ok == len(KEYS)
