"""Numbers agree with what they count, in each of the two rooms that have words for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.spelling import agreed, counted
from storage import words

CASES = [
    ((1, "image"), "image"),
    ((0, "image"), "images"),
    ((2, "image"), "images"),
    ((1.0, "GPU"), "GPU"),
    ((0.5, "GPU"), "GPUs"),
    ((1, "query"), "query"),
    ((3, "query"), "queries"),
    ((3, "scored query"), "scored queries"),
    ((3, "key"), "keys"),
    ((1, "class", "classes"), "class"),
    ((2, "class", "classes"), "classes"),
    ((1, "image lacks", "images lack"), "image lacks"),
    ((0, "image lacks", "images lack"), "images lack"),
    ((1, "is", "are"), "is"),
    ((20, "is", "are"), "are"),
]


@pytest.mark.parametrize("own", [agreed, words.agreed])
@pytest.mark.parametrize(("given", "expected"), CASES)
def test_words_agree_with_the_number(
    given: tuple[float, str], expected: str, own: Callable[..., str]
) -> None:
    assert own(*given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, "image"), "1 image"),
        ((0, "image"), "0 images"),
        ((1565, "image"), "1,565 images"),
        ((4181, "query"), "4,181 queries"),
        ((1, "class", "classes"), "1 class"),
        ((1_000_000, "image has", "images have"), "1,000,000 images have"),
    ],
)
def test_a_number_comes_with_what_it_counts(given: tuple[int, str], expected: str) -> None:
    assert counted(*given) == expected
