"""Which queries are shown: a frame of six queries, worked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import polars as pl

A = [1, 12, None, 4, 2, 60]
B = [3, 1, None, 20, None, 9]


def frame() -> pl.DataFrame:
    import polars as pl

    texts = ["Add a star", "=make it red", "no dog", "a star more", "bigger", "two"]
    return pl.DataFrame(
        {
            "query": list("uvwxyz"),
            "category": ["dress", "dress", "shirt", "shirt", "shirt", "toptee"],
            "text": texts,
            "reference": [f"r{i}" for i in range(6)],
            "targets": [["t"], ["t", "s"], ["t"], ["t"], ["t"], ["t"]],
            "aspects": [["addition"], ["negation", "addition"], [], ["addition"], [], []],
            "group": ["g", "", "g", "", "", ""],
            "lacks": [""] * 6,
            "rank/a": A,
            "rank/b": B,
        },
        schema_overrides={"aspects": pl.List(pl.String)},
    )


def selected(**given: Any) -> str:
    from tasks.explorer.selection import Selection, chosen

    selection = Selection.model_validate(given).of_methods(["a", "b"])
    return "".join(chosen(frame(), selection)["query"])


@pytest.mark.parametrize(
    ("given", "queries"),
    [
        ({"method": "a"}, "wzvxyu"),  # failures first: not found, 60, 12, 4, 2, 1
        ({"method": "a", "order": "best"}, "uyxvzw"),
        ({"method": "a", "order": "query"}, "uvwxyz"),
        ({"method": "a", "against": "b", "outcome": "won"}, "xy"),
        ({"method": "a", "against": "b", "outcome": "lost"}, "zv"),
        ({"method": "b", "against": "a", "outcome": "won"}, "zv"),
        ({"method": "a", "against": "b", "outcome": "both"}, "u"),
        ({"method": "a", "against": "b", "outcome": "neither"}, "w"),
        ({"method": "a", "against": "b", "outcome": "won", "k": 2}, "yu"),
        ({"method": "a", "outcome": "right"}, "xyu"),
        ({"method": "a", "outcome": "wrong"}, "wzv"),
        ({"method": "a", "low": 2, "high": 12}, "vxy"),
        ({"method": "a", "low": 13}, "wz"),
        ({"method": "a", "category": "shirt"}, "wxy"),
        ({"method": "a", "aspect": "addition"}, "vxu"),
        ({"method": "a", "group": "g"}, "wu"),
        ({"method": "a", "text": "STAR"}, "xu"),
        ({"method": "a", "text": "."}, ""),  # words, no pattern
        ({"method": "a", "against": "b", "order": "gain", "low": 1, "high": 12}, "yxuv"),
        ({"method": "a", "against": "b", "order": "loss", "low": 1, "high": 12}, "vuxy"),
    ],
)
def test_queries_are_filtered_and_sorted(given: dict[str, Any], queries: str) -> None:
    assert selected(**given) == queries


def test_outcomes_count_every_query_once() -> None:
    from tasks.explorer.selection import Selection, compared, recall

    selection = Selection(method="a", against="b")
    assert compared(frame(), selection) == {"won": 2, "lost": 2, "both": 1, "neither": 1}
    assert recall(frame(), "a", 10) == pytest.approx(50)
    assert recall(frame(), "b", 1) == pytest.approx(100 / 6)


def test_the_histogram_holds_every_query_once() -> None:
    from tasks.explorer.selection import histogram

    counts = {step.words: step.queries for step in histogram(frame(), "a")}
    own = {"1": 1, "2": 1, "3\N{EN DASH}5": 1, "6\N{EN DASH}10": 0, "11\N{EN DASH}20": 1}
    assert counts == {
        **own, "21\N{EN DASH}50": 0, "51\N{EN DASH}60": 1, "not found": 1
    }  # fmt: skip
    assert [s.words for s in histogram(frame(), "b")] == list(counts)
    last = histogram(frame(), "a")[-1]
    assert selected(method="a", low=last.low) == "w"


def test_facets_count_categories_and_aspects() -> None:
    from tasks.explorer.selection import facets

    assert facets(frame()) == {
        "category": {"dress": 2, "shirt": 3, "toptee": 1},
        "aspect": {"addition": 3, "negation": 1},
    }


def test_csv_reads_back_and_holds_no_formula() -> None:
    import csv
    import io

    from tasks.explorer.selection import as_csv

    rows = list(csv.DictReader(io.StringIO(as_csv(frame()))))
    assert [row["rank/a"] for row in rows] == ["1", "12", "", "4", "2", "60"]
    assert rows[1]["text"] == "'=make it red"
    assert rows[1]["targets"] == "t s"


def test_what_was_not_evaluated_is_refused() -> None:
    from tasks.explorer.selection import Selection

    with pytest.raises(ValueError, match="unknown method 'c'"):
        Selection(method="c").of_methods(["a", "b"])
    with pytest.raises(ValueError, match="give against=a"):
        Selection(method="b", outcome="won").of_methods(["a", "b"])
    with pytest.raises(ValueError, match="k"):
        Selection(k=51)
