"""Which queries a page shows, in which order, and how two methods compare on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
from pydantic import Field

from models.settings import Settings
from models.spelling import unknown
from tasks.explorer.ranks import column
from tasks.stages.rankings import DEPTH

Outcome = Literal["", "won", "lost", "both", "neither", "right", "wrong"]
"""Empty: any. won: the method is right and the other wrong. right, wrong: of the method alone."""
Order = Literal["failures", "best", "gain", "loss", "query"]

OUTCOMES: Final[Mapping[str, str]] = {
    "won": "{a} right, {b} wrong",
    "lost": "{a} wrong, {b} right",
    "both": "both right",
    "neither": "both wrong",
}
"""Outcome of a comparison -> its words."""
ORDERS: Final[Mapping[Order, str]] = {
    "failures": "failures first",
    "best": "best rank first",
    "gain": "largest gain over the other first",
    "loss": "largest loss to the other first",
    "query": "as in the benchmark",
}
EDGES: Final = (1, 2, 3, 6, 11, 21, 51, 101, 201, 501, 1001)
"""Least ranks of the steps of a histogram."""
UNRANKED: Final = 1_000_000_000
"""Stands for the rank of an answer behind the end of a list, where ranks are compared."""


class Selection(Settings):
    """What is looked for, as an address holds it."""

    method: str = ""
    """The method that is looked at; empty: the evaluation's cvsi, or its last one."""
    against: str = ""
    """The method that it is compared with; empty: none."""
    outcome: Outcome = ""
    """Which answered rightly."""
    k: int = Field(10, ge=1, le=50)
    """An answer is right when the rank of a right image is at most this."""
    category: str = ""
    """One of the benchmark's galleries."""
    aspect: str = ""
    """One semantic aspect of the change."""
    group: str = ""
    """One hard-negative group."""
    low: int = Field(0, ge=0, le=UNRANKED)
    """Least rank by the method; 0: any."""
    high: int = Field(0, ge=0, le=UNRANKED)
    """Greatest rank by the method; 0: any, unranked ones as well."""
    text: str = Field("", max_length=200)
    """Words that the modification text contains, in any case."""
    order: Order = "failures"
    """Order of the queries."""
    page: int = Field(1, ge=1)
    """Page, from 1."""

    def of_methods(self, methods: Sequence[str]) -> Selection:
        """The same with a method that was evaluated, where none is named.

        Raises:
            ValueError: a method was not evaluated, or a comparison lacks its second method.
        """
        for name in filter(None, (self.method, self.against)):
            if name not in methods:
                raise ValueError(unknown("method", name, methods))
        if self.outcome in OUTCOMES and not self.against:
            raise ValueError(
                f"outcome={self.outcome} compares two methods, and one is named: "
                f"give against={methods[0]}, or outcome=right or outcome=wrong"
            )
        usual = "cvsi" if "cvsi" in methods else methods[-1]
        return self.changed(method=self.method or usual)


def chosen(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """The queries that are asked for, in order; those behind the end of a list count as last.

    Args:
        frame: Queries with their ranks, as `tasks.explorer.ranks` makes them.
        selection: With a method that was evaluated.
    """
    rank = _rank(selection.method)
    found = subset(frame, selection)
    if selection.outcome:
        found = found.filter(_outcome(selection))
    if selection.low:
        found = found.filter(rank >= selection.low)
    if selection.high:
        found = found.filter(rank <= selection.high)
    if selection.order == "query":
        return found
    return found.sort(_order(selection), maintain_order=True)


def subset(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """The queries of the category, aspect, group and words that are asked for, by any rank."""
    if selection.category:
        frame = frame.filter(pl.col("category") == selection.category)
    if selection.aspect:
        frame = frame.filter(pl.col("aspects").list.contains(selection.aspect))
    if selection.group:
        frame = frame.filter(pl.col("group") == selection.group)
    if selection.text:
        words = selection.text.lower()
        frame = frame.filter(pl.col("text").str.to_lowercase().str.contains(words, literal=True))
    return frame


def compared(frame: pl.DataFrame, selection: Selection) -> dict[str, int]:
    """Outcome -> number of the queries with it: won, lost, both, neither."""
    return {
        name: frame.filter(_outcome(selection.changed(outcome=name))).height for name in OUTCOMES
    }


def recall(frame: pl.DataFrame, method: str, k: int) -> float:
    """Percent of the queries with a right answer among the method's first k."""
    return 100 * frame.filter(_rank(method) <= k).height / max(1, frame.height)


@dataclass(frozen=True)
class Step:
    """Queries whose rank lies in a range.

    Attributes:
        words: The range for people.
        low: Least rank.
        high: Greatest rank; 0 for those that are not in the list.
        queries: Their number.
    """

    words: str
    low: int
    high: int
    queries: int


def histogram(frame: pl.DataFrame, method: str) -> list[Step]:
    """How many queries have which rank, in steps that grow; the last are not in the list.

    All methods of a frame have the same steps.
    """
    rank, every = _rank(method), pl.selectors.starts_with(column("rank", ""))
    deepest = frame.select(pl.max_horizontal(every.max())).item() if frame.height else None
    last = max(DEPTH, deepest or 0)
    edges = [edge for edge in EDGES if edge <= last]
    ends = [*(edge - 1 for edge in edges[1:]), last]
    return [
        Step(
            f"{low}" if low == high else f"{low}\N{EN DASH}{high}",
            low,
            high,
            frame.filter(rank.is_between(low, high)).height,
        )
        for low, high in zip(edges, ends, strict=True)
    ] + [Step("not found", last + 1, 0, frame.filter(rank > last).height)]


def facets(frame: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Facet -> value -> number of queries: categories and semantic aspects, where there are."""
    counts = {
        "category": frame["category"].value_counts(sort=True),
        "aspect": frame["aspects"].explode().drop_nulls().value_counts(sort=True),
    }
    return {
        name: {value: number for value, number in own.sort(own.columns[0]).iter_rows() if value}
        for name, own in counts.items()
    }


def as_csv(frame: pl.DataFrame) -> str:
    """The queries as CSV; lists are joined by spaces, an answer not in the list has no rank.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    joined = frame.with_columns(pl.col("targets", "aspects").list.join(" "))
    texts = [name for name, kind in joined.schema.items() if kind == pl.String]
    formula = r"^([=+\-@\t\r])"
    return joined.with_columns(
        pl.col(name).str.replace(formula, "'${1}") for name in texts
    ).write_csv()


def _rank(method: str) -> pl.Expr:
    return pl.col(column("rank", method)).fill_null(UNRANKED)


def _outcome(selection: Selection) -> pl.Expr:
    right = _rank(selection.method) <= selection.k
    if selection.outcome in ("right", "wrong"):
        return right if selection.outcome == "right" else ~right
    other = _rank(selection.against) <= selection.k
    return {
        "won": right & ~other,
        "lost": ~right & other,
        "both": right & other,
        "neither": ~right & ~other,
    }[selection.outcome]


def _order(selection: Selection) -> pl.Expr:
    rank = _rank(selection.method)
    if selection.order == "best":
        return rank
    if selection.order == "failures" or not selection.against:
        return -rank
    # A step from rank 1 to 10 counts as much as one from 10 to 100.
    gain = rank.log() - _rank(selection.against).log()
    return gain if selection.order == "gain" else -gain
