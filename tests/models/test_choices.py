"""Answers about a grid as margins, each worked out by hand; malformed ones by their kind."""

from __future__ import annotations

import math

import pytest

from models.verifiers.choices import log_odds, read_listed, read_order
from models.verifiers.protocol import sigmoid

MARKS = ("1", "2", "3", "4")


def test_margins_are_log_odds_of_the_softmax() -> None:
    logits = [math.log(w) + 7 for w in (6, 3, 1)]  # shares .6, .3, .1
    assert log_odds(logits) == pytest.approx([math.log(w) for w in (1.5, 3 / 7, 1 / 9)])
    assert [sigmoid(m) for m in log_odds(logits)] == pytest.approx([0.6, 0.3, 0.1])
    assert log_odds([3.0]) == (0.0,)
    far = log_odds([900.0, 0.0, -900.0])
    assert all(map(math.isfinite, far))
    assert far[0] > far[1] > far[2]


def test_a_list_with_all_marks() -> None:
    listed = {"1": math.log(0.3), " 1": math.log(0.1), "2": math.log(0.2), "3": math.log(0.2)}
    (margins, status, reason), mass = read_listed({**listed, "4": -5.0, "The": -1.0}, MARKS)
    assert (status, reason) == ("ok", "")
    whole = 0.8 + math.exp(-5)
    assert mass == pytest.approx(whole)
    assert sigmoid(margins[0]) == pytest.approx(0.4 / whole)  # both spellings of the mark
    assert margins[1] == pytest.approx(margins[2])


def test_marks_that_are_not_listed_share_the_least() -> None:
    listed = {"2": -0.5, "x": -3.0, "4": -1.0}
    (margins, status, reason), _ = read_listed(listed, MARKS)
    assert (status, reason) == ("ok", "")  # half of them are listed
    shares = [math.exp(v) for v in (-3.0, -0.5, -3.0, -1.0)]
    assert [sigmoid(m) for m in margins] == pytest.approx([s / sum(shares) for s in shares])
    (margins, status, reason), _ = read_listed({"2": -0.5, "x": -3.0}, MARKS)
    assert (status, reason) == (
        "censored",
        "3 of 4 marks are not among the 2 likeliest tokens",
    )
    assert margins[1] > margins[0] == margins[2] == margins[3]
    (margins, status, _), mass = read_listed({"12": -0.5, "one": -1.0}, MARKS)
    assert (margins, status, mass) == ((), "off_format", 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "3 > 1 > 4 > 2",
        "[3] > [1] > [4] > [2]",
        "3, 1, 4 and 2.",
        "I look closely.\n\nAnswer: 3>1>4>2\n",
        "**Ranking:** 3 1 4 2",
    ],
)
def test_whole_orders(text: str) -> None:
    margins, status, reason = read_order(text, MARKS)
    assert (status, reason) == ("ok", "")
    # Mark 3 is first of four: P = (4 - 0 - 1/2) / 4.
    assert [sigmoid(m) for m in margins] == pytest.approx([0.625, 0.125, 0.875, 0.375])


def test_an_order_that_lacks_marks() -> None:
    margins, status, reason = read_order("3", MARKS)
    assert (status, reason) == ("incomplete", "3 of 4 marks are missing in the answer")
    # The others share places 1, 2 and 3: their mean is 2.
    assert [sigmoid(m) for m in margins] == pytest.approx([0.375, 0.375, 0.875, 0.375])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no mark"),
        (" \n ", "no mark"),
        ("Answer:", "no mark"),
        ("3 > 5", "'5' is not a mark"),
        ("3 > 31", "'31' is not a mark"),
        ("3 < 1", "'<' is not a mark"),
        ("picture 3 is the best", "'picture' is not a mark"),
        ("none of them", "'none' is not a mark"),
        ("3 > 1 > 3", "mark 3 stands in the answer twice"),
    ],
)
def test_malformed_orders_have_no_margins(text: str, said: str) -> None:
    margins, status, reason = read_order(text, MARKS)
    assert (margins, status) == ((), "off_format")
    assert said in reason
