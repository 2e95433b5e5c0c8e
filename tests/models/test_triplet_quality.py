"""Quality of triplets: every measure by hand, and notes only where something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from models.instructcir.triplet_quality import (
    Example,
    Failure,
    TripletQuality,
    attention,
    measure,
    words_of,
)
from models.triplets import TripletRow, triplet_id


def row(number: int, text: str | None = "now red", **other: Any) -> TripletRow:
    """A row; without a text it is a rejected one."""
    values: dict[str, Any] = {
        "triplet_id": f"t{number}",
        "position": number,
        "reference": f"a{number}",
        "target": f"b{number}",
        "source": "shop",
        "meta_class": "dress",
        "reference_caption": "a blue dress",
        "target_caption": "a red dress",
        "text": text,
        "attempts": 1,
        "raw": text or "?",
        "status": "ok" if text else "rejected",
        "reason": "" if text else "special characters: ?",
    }
    return TripletRow(**(values | other))


def by_hand() -> TripletQuality:
    return measure(
        [
            row(0, "Red, not blue."),
            row(1, "a red dress", attempts=3),
            row(2, "red  NOT blue", source="zoo", meta_class="", reference="a0"),
            row(3, None, raw="$"),
            row(4, None, raw="", reason="no words: ''"),
            row(5, None, source="zoo", status="timeout", reason="too late", raw=None),
            row(6, None, raw="*", reason="special characters: *"),
            row(7, "the dress's hem", reference_caption="a dress", target_caption="A dress."),
        ]
    )


def test_every_count_by_hand() -> None:
    quality = by_hand()
    assert (quality.rows, quality.ok) == (8, 4)
    assert quality.by_status == {"ok": 4, "rejected": 3, "timeout": 1}
    assert quality.by_source == {
        "shop": {"ok": 3, "rejected": 3},
        "zoo": {"ok": 1, "timeout": 1},
    }
    assert quality.by_class == {"shop/dress": 6, "zoo": 1, "zoo/dress": 1}
    assert quality.images == 3 + 4  # a0 is the reference of two
    assert quality.lengths == {3: 4}
    assert quality.attempts == {1: 3, 3: 1}


def test_failures_are_grouped_by_what_stands_before_the_colon() -> None:
    assert by_hand().failures == (
        Failure(
            "rejected",
            "special characters",
            2,
            (
                Example("t3", "special characters: ?", "$"),
                Example("t6", "special characters: *", "*"),
            ),
        ),
        Failure("rejected", "no words", 1, (Example("t4", "no words: ''", ""),)),
        Failure("timeout", "too late", 1, (Example("t5", "too late", ""),)),
    )


def test_texts_words_and_openings() -> None:
    quality = by_hand()
    # "Red, not blue." and "red  NOT blue" differ in punctuation, so they are two texts.
    assert (quality.distinct_texts, quality.repeated, quality.frequent_texts) == (4, 0.0, ())
    assert quality.vocabulary == 8  # red not blue a dress the dress's hem
    assert quality.frequent_words[0] == ("red", 3)
    assert quality.openings == (("red not", 2), ("a red", 1), ("the dress's", 1))
    twice = measure([row(0, "now red"), row(1, "Now  red"), row(2, "now blue")])
    assert (twice.distinct_texts, twice.repeated) == (2, pytest.approx(2 / 3))
    assert twice.frequent_texts == (("now red", 2),)


def test_where_words_come_from() -> None:
    quality = by_hand()
    # Of 12 words: "red" 3 times in B only; "blue" twice in A only; "a", "dress" in both.
    assert quality.from_target == pytest.approx(3 / 12)
    assert quality.from_reference == pytest.approx(2 / 12)
    assert quality.from_both == pytest.approx(2 / 12)
    assert (quality.copies, quality.near_copies) == (1, 1)
    assert quality.equal_captions == 1
    # "a blue dress", "a red dress": 2 of 4 words, three times; "a dress", "A dress.": all.
    assert quality.captions_alike == pytest.approx((3 * 0.5 + 1) / 4)
    part = measure([row(0, "red dress"), row(1, "dress red")])
    assert (part.copies, part.near_copies) == (1, 2)


def test_words() -> None:
    assert words_of("The T-shirt's 2 caf\u00e9s, -no 'quotes'.") == [
        *("the", "t-shirt's", "2", "caf\u00e9s", "no", "quotes")
    ]


def test_nothing_generated_and_nothing_usable() -> None:
    assert measure([]).ok == 0
    assert attention(measure([row(0, None)]), {"shop": 1.0}) == [
        "None of the 1 pair has a text: there is nothing to train on."
    ]


def varied(count: int = 300) -> list[TripletRow]:
    """Rows in which nothing stands out: every text has a word of its own."""
    return [row(n, f"word{n} instead of other{n}") for n in range(count)]


def test_notes_appear_only_where_they_apply() -> None:
    rows = varied()
    assert attention(measure(rows), {"shop": 1.0}) == []
    spoilt = {
        "6.2% of the pairs have no text, mostly rejected (special characters): 20.": [
            row(1000 + n, None) for n in range(20)
        ],
        "begin with": [row(1000 + n, f"now with{n}") for n in range(0)]
        + [row(2000 + n, f"make it thing{n}") for n in range(300)],
        "The captions of a pair have 10.9% of their words in common": [
            row(n, f"word{n} x{n}", reference_caption="two cats", target_caption=f"the {n} hills")
            for n in range(1000, 2070)
        ],
        "took more than one attempt": [row(n, f"w{n} x{n}", attempts=2) for n in range(100)],
        "occur more than once; the most frequent is \u201cnow green\u201d": [
            row(n, "now green") for n in range(40)
        ],
        "word for word": [row(n, "a red dress") for n in range(10)],
        "the same caption twice": [
            row(n, f"x{n} y{n}", reference_caption="a red dress") for n in range(10)
        ],
    }
    for part, more in spoilt.items():
        notes = attention(measure(rows + more), {"shop": 1.0})
        assert len(notes) == 1, notes
        assert part in notes[0]
    assert attention(measure(varied(20)), {"shop": 1.0}) == [
        "The texts use 42 different words only."
    ]


def test_a_mix_that_was_not_kept_is_told() -> None:
    rows = [*varied(), row(5000, "zebra zoo", source="zoo")]
    notes = attention(measure(rows), {"shop": 1.0, "zoo": 1.0})
    assert [note.split(",")[0] for note in notes] == [
        "shop gives 99.7% of the pairs",
        "zoo gives 0.3% of the pairs",
    ]


def test_ids_tell_direction_and_images() -> None:
    pairs = [("a", "b"), ("b", "a"), ("a", "c"), ("ab", ""), ("", "ab")]
    ids = {triplet_id(*pair) for pair in pairs}
    assert len(ids) == 5
    assert all(len(each) == 20 and int(each, 16) >= 0 for each in ids)
