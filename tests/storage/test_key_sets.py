"""A set of keys against Python's own, with keys that begin alike and texts that are none."""

from __future__ import annotations

import hashlib
import random

import pytest

from storage.tables.key_sets import KeySet


def keys_of(count: int, digits: int, same: int = 0) -> list[str]:
    """Random keys, of which the first digits are the same."""
    made = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(count))
    return ["0" * same + key[: digits - same] for key in made]


@pytest.mark.parametrize("digits", [20, 64])
@pytest.mark.parametrize("given", [0, 1, 3000])
def test_a_set_of_keys_is_one_of_texts(digits: int, given: int) -> None:
    every = keys_of(5000, digits)
    mine, expected = KeySet(digits, every[:given]), dict.fromkeys(every[:given])
    chosen = random.Random(0)
    for key in chosen.choices(every, k=6000):
        assert (key in mine) == (key in expected)
        mine.add(key)
        expected[key] = None
    assert list(mine) == list(expected)
    assert mine.column() == sorted(expected)
    assert [key for key in every if key in mine] == [key for key in every if key in expected]
    assert len(mine) == len(expected)


def test_keys_that_begin_alike_are_told_apart() -> None:
    every = keys_of(600, 64, same=20)
    mine = KeySet(64, every[:300])
    for key in every[300:500]:
        mine.add(key)
    assert [key in mine for key in every] == [True] * 500 + [False] * 100


@pytest.mark.parametrize("text", ["", "k", "ab" * 9, "AB" * 10, "a b" * 10, "zz" * 10, None, 3])
def test_other_texts_are_never_in_it(text: object) -> None:
    mine = KeySet(20, ["ab" * 10])
    assert text not in mine
    if isinstance(text, str):
        with pytest.raises(ValueError, match="20 hexadecimal digits"):
            mine.add(text)


@pytest.mark.parametrize("text", ["ab" * 32, "zz" * 10, ""])
def test_other_texts_are_not_taken_at_first(text: str) -> None:
    with pytest.raises(ValueError, match="20 hexadecimal digits"):
        KeySet(20, ["ab" * 10, text])
