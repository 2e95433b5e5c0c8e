"""Receipts: a plan with nothing missing costs one listing.

A receipt says: with exactly these parts (names and sizes), none of these keys is missing, so many
have an ok row and so many only failed ones. The sentence is the name of an empty file: finding it
in a listing is enough, and there is no content to be damaged::

    complete-{keys}-{parts}-{ok}-{failed}-{check}

A part that is added, put aside or truncated makes all earlier receipts say something about another
listing. The check is a hash of the table's folder and all the rest: a receipt of another table, or
of other counts, is not believed. Receipts of earlier versions (``complete-*.json``, and
``complete-{hash}-{ok}-{failed}``) had none; nobody reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from storage.locations.location import Entry, Location
from storage.tables.key_columns import KeyColumn
from storage.tables.keys import content_key
from storage.tables.plans import Coverage
from storage.words import agreed


@dataclass(frozen=True)
class Survey:
    """One listing of a table's folder: its parts by name, and the paths of all its files."""

    folder: str
    parts: tuple[Entry, ...]
    files: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(entry.path.rsplit("/", 1)[-1] for entry in self.parts)

    @property
    def parts_by_name(self) -> list[list[str | int]]:
        """Name and size of every part: a published part of a name and size never changes."""
        return [[entry.path.rsplit("/", 1)[-1], entry.size] for entry in self.parts]


def receipts_of(survey: Survey) -> dict[str, Receipt]:
    """The receipts that were left for exactly these parts, by the hash of their keys."""
    now = parts_hash(survey)
    found = (read_receipt(path) for path in survey.files if f"-{now}-" in path)
    return {receipt.keys: receipt for receipt in found if receipt and receipt.parts == now}


def find_receipt(receipts: Mapping[str, Receipt], planned: KeyColumn | str) -> Coverage | None:
    """Return the coverage of some keys if one of the receipts states it.

    Args:
        receipts: Those of the table's folder now.
        planned: The keys, or the identity of derived ones. Where a table has no receipt, their
            hash is not asked for.
    """
    receipt = receipts.get(_hash(planned)) if receipts else None
    if receipt is None or (isinstance(planned, KeyColumn) and len(planned) != receipt.planned):
        return None
    return receipt.coverage


def leave_receipt(
    location: Location, survey: Survey, planned: KeyColumn | str, coverage: Coverage
) -> None:
    """Remember that none of the keys is missing; a reader without the right to write does not."""
    if coverage.missing:
        keys = agreed(coverage.missing, "key is", "keys are")
        raise ValueError(f"{coverage.missing} {keys} missing; a receipt says that none is")
    receipt = Receipt(_hash(planned), parts_hash(survey), coverage.ok, coverage.failed)
    location.leave(receipt.path_in(survey.folder), b"")


@dataclass(frozen=True)
class Receipt:
    """What the name of a receipt says.

    Attributes:
        keys: hash of the planned keys.
        parts: hash of the parts that it was established for.
        ok: rows that are ok.
        failed: rows that failed.
    """

    keys: str
    parts: str
    ok: int
    failed: int

    @property
    def coverage(self) -> Coverage:
        """The coverage that it states."""
        return Coverage(planned=self.planned, ok=self.ok, failed=self.failed, missing=0)

    @property
    def planned(self) -> int:
        """How many keys there are."""
        return self.ok + self.failed

    def path_in(self, folder: str) -> str:
        """The path of this receipt of a table."""
        said = f"{self.keys}-{self.parts}-{self.ok}-{self.failed}"
        return f"{folder}/complete-{said}-{content_key([folder, said])}"


RECEIPT = re.compile(r"complete-([0-9a-f]{20})-([0-9a-f]{20})-(\d+)-(\d+)-[0-9a-f]{20}")
"""The name of a receipt."""
EARLIER = re.compile(r"complete-[0-9a-f]{20}(\.json|-\d+-\d+)")
"""The names of receipts of earlier versions."""


def read_receipt(path: str) -> Receipt | None:
    """What a receipt says; None for another file, and for one whose check is wrong."""
    folder, _, name = path.rpartition("/")
    match = RECEIPT.fullmatch(name)
    if match is None:
        return None
    receipt = Receipt(match[1], match[2], int(match[3]), int(match[4]))
    return receipt if receipt.path_in(folder) == path else None


def parts_hash(survey: Survey) -> str:
    """A hash of the names and sizes of all parts."""
    return content_key(survey.parts_by_name)


def _hash(planned: KeyColumn | str) -> str:
    return content_key(planned) if isinstance(planned, str) else planned.content_key
