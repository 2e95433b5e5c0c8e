"""Columns of keys against plain lists, sets and JSON."""

from __future__ import annotations

import random

import polars as pl
import pytest

from storage.tables import key_columns
from storage.tables.key_columns import KeyColumn
from storage.tables.keys import content_key
from storage.tables.plans import Shard, Shards

ODD = ['a"b', "back\\slash", "tab\there", "null\0", "ä", "日本", "😀", "", " ", "\x7f", "/", "a,b"]


@pytest.mark.parametrize("seed", range(5))
def test_a_column_is_the_sorted_set(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_columns, "_BLOCK", 3)
    chosen = random.Random(seed)
    keys = [chosen.choice([*ODD, *map(str, range(20))]) for _ in range(chosen.randrange(40))]
    expected = sorted(set(keys))
    for given in (keys, set(keys), pl.Series(keys, dtype=pl.String), KeyColumn.of(keys)):
        column = KeyColumn.of(given)
        assert column == expected
        assert list(column) == expected
        assert column.content_key == content_key(expected)
    assert all((key in column) == (key in expected) for key in [*ODD, "5", "no", "zz"])
    assert column[1:4] == expected[1:4]
    assert column != [*expected, "one more"]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_shards_are_cut_as_lists_are(size: int) -> None:
    first, again = [f"k{n:02d}" for n in range(10)], ["z2", "z1", "z3"]
    shards = Shards(size, (first, 0), (again, 2))
    expected = [Shard.of(first[i : i + size], 0) for i in range(0, 10, size)]
    expected += [Shard.of(again[i : i + size], 2) for i in range(0, 3, size)]
    assert shards == expected
    assert [shards[i] for i in range(-len(shards), 0)] == expected
    assert shards[1:3] == tuple(expected[1:3])
    assert (len(shards), shards.rows) == (len(expected), 13)
    assert not Shards(size)
    with pytest.raises(IndexError):
        shards[len(expected)]
