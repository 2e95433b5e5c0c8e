"""How planned keys stand against the rows of a table: known from a receipt, or counted."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from storage.locations.location import Location
from storage.tables.index import Index
from storage.tables.key_columns import KeyColumn
from storage.tables.plans import Coverage, DerivedKeys, Keys
from storage.tables.receipts import Survey, find_receipt, leave_receipt, receipts_of


@dataclass(frozen=True)
class Standing:
    """Coverage of planned keys, those without a row, and those with failed rows alone."""

    coverage: Coverage
    missing: KeyColumn
    failed: KeyColumn


def settled(location: Location, survey: Survey, keys: Keys) -> Coverage | None:
    """The coverage of some keys, if a receipt says that none is missing; else None."""
    receipts = receipts_of(survey)
    if not receipts:
        return None  # so the keys need not be computed, nor their hash
    if not isinstance(keys, DerivedKeys):
        return find_receipt(receipts, KeyColumn.of(keys))
    seen = find_receipt(receipts, keys.identity)
    if seen is None:
        seen = find_receipt(receipts, KeyColumn.of(keys.make()))
        if seen is not None:
            leave_receipt(location, survey, keys.identity, seen)
    return seen


def standing_of(location: Location, survey: Survey, index: Index, keys: Keys) -> Standing:
    """Compare planned keys with all rows; leave a receipt where none is missing."""
    planned = KeyColumn.of(keys.make() if isinstance(keys, DerivedKeys) else keys)
    rows = index.find(planned.series)
    absent, ok = rows < 0, index.is_ok(rows)
    missing = planned.only(pl.Series(absent))
    failed = planned.only(pl.Series(~absent & ~ok))
    coverage = Coverage(
        planned=len(planned),
        ok=len(planned) - len(missing) - len(failed),
        failed=len(failed),
        missing=len(missing),
    )
    if not missing:
        named = keys.identity if isinstance(keys, DerivedKeys) else planned
        leave_receipt(location, survey, named, coverage)
    return Standing(coverage, missing, failed)
