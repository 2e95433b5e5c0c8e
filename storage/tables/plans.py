"""The records of tables: shards, plans, parts, coverage; and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

import polars as pl

from storage.tables.costs import TableCost
from storage.tables.key_columns import key_series
from storage.tables.keys import content_key


class IncompleteTable(ValueError):
    """A table lacks rows that its reader needs."""


class SpecConflict(ValueError):
    """The content of a spec.json does not have the key that its folder is named by."""


@dataclass(frozen=True)
class Shard:
    """Keys whose rows are made and published together.

    Attributes:
        key: names the part; made of the members and the attempt.
        members: sorted, unique row keys.
        attempt: 0 the first time, then one more for each time its rows failed and are retried.
    """

    key: str
    members: tuple[str, ...]
    attempt: int = 0

    @classmethod
    def of(cls, members: Sequence[str], attempt: int = 0) -> Shard:
        """Make the shard of some keys."""
        ordered = tuple(sorted(set(members)))
        return cls(content_key([attempt, *ordered]), ordered, attempt)


class Shards(Sequence[Shard]):
    """The shards of a plan: runs of columns of keys, each cut when it is asked for."""

    def __init__(self, size: int, *runs: tuple[Sequence[str] | pl.Series, int]) -> None:
        """Cut keys in their order into shards of a size; each run has its attempt."""
        self._size = size
        self._runs = [(key_series(keys), attempt) for keys, attempt in runs]

    @property
    def rows(self) -> int:
        """How many members all shards have."""
        return sum(len(keys) for keys, _ in self._runs)

    def __len__(self) -> int:
        """How many shards there are."""
        return sum(self._count(keys) for keys, _ in self._runs)

    @overload
    def __getitem__(self, place: int) -> Shard: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Shard, ...]: ...
    def __getitem__(self, place: int | slice) -> Shard | tuple[Shard, ...]:
        """One shard, or some of them."""
        places = range(len(self))[place]
        return self._cut(places) if isinstance(places, int) else tuple(map(self._cut, places))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has equal shards in the same order."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def _cut(self, place: int) -> Shard:
        for keys, attempt in self._runs:
            if place < self._count(keys):
                return Shard.of(keys.slice(place * self._size, self._size).to_list(), attempt)
            place -= self._count(keys)
        raise IndexError(place)

    def _count(self, keys: pl.Series) -> int:
        return -(-len(keys) // self._size)


@dataclass(frozen=True)
class DerivedKeys:
    """Planned keys that follow from something smaller than themselves.

    Attributes:
        identity: hash of everything that the keys follow from; two sets with one identity are
            equal.
        make: computes the keys; called only where the identity alone does not settle a plan.
    """

    identity: str
    make: Callable[[], Sequence[str]]


Keys: TypeAlias = Sequence[str] | DerivedKeys
"""The keys that a table should hold."""


@dataclass(frozen=True)
class Plan:
    """The shards to make, and the coverage of the planned keys before.

    `parts` are the names of the parts that were there, `cost` is what the table had cost by then.
    """

    shards: Shards
    before: Coverage
    parts: tuple[str, ...] = field(default=(), compare=False, repr=False)
    cost: TableCost = field(default_factory=TableCost, compare=False, repr=False)

    @property
    def planned(self) -> int:
        """How many keys the table should hold."""
        return self.before.planned

    @property
    def todo(self) -> int:
        """How many rows the shards will make."""
        return self.shards.rows

    @property
    def present(self) -> int:
        """How many keys are left as they are."""
        return self.planned - self.todo


@dataclass(frozen=True)
class Part:
    """A part as published; `published` is false if another worker's part was there first."""

    name: str
    rows: int
    bytes: int
    published: bool


@dataclass(frozen=True)
class Problem:
    """A fault of a published part, with the next step in words."""

    part: str
    what: str


@dataclass(frozen=True)
class Coverage:
    """How many of the planned keys have an ok row, only failed rows, or no row."""

    planned: int
    ok: int
    failed: int
    missing: int

    @property
    def gaps(self) -> float:
        """Fraction of planned keys without an ok row."""
        return (self.failed + self.missing) / self.planned if self.planned else 0.0


@dataclass(frozen=True)
class TableInfo:
    """One table as found: parts that cannot be read are counted, their rows are not.

    `fault` says what is wrong with the spec, which is empty then.
    """

    name: str
    spec_key: str
    parts: int
    rows: int
    bytes: int
    unreadable: int
    spec: Mapping[str, Any]
    fault: str = ""
