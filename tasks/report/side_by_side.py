"""The same queries by two methods, one above the other (as CVSI's Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from models.spelling import unknown
from storage.tables.table import require_complete
from tasks.query_sets import load_query_set
from tasks.report import text
from tasks.report.example_queries import Place, strips_of, target_rank
from tasks.report.pictures import evenly
from tasks.report.records import Strip
from tasks.report.render import render_page
from tasks.scoring.scores import RankedLists, read_ranking
from tasks.stages.rankings import RankingStage

SHOWN: Final = 5
"""Ranked images shown per query, as in the paper."""
Pair: TypeAlias = tuple[Strip, Strip]
"""One query by the first and by the second method."""


def side_by_side(
    first: RankingStage,
    second: RankingStage,
    queries: Sequence[str] = (),
    top: int = SHOWN,
    count: int = 6,
) -> tuple[Pair, ...]:
    """Queries as two methods answered them.

    Args:
        first: A ranking that is made.
        second: Another ranking of the same benchmark, made as well.
        queries: Ids of the queries to show. None: those that the first
            method answers rightly and the second wrongly, a target being among the top ones or not.
        top: Ranked images shown per query, and looked at for right and wrong.
        count: Queries shown where none are named, evenly drawn.

    Raises:
        IncompleteTable: a ranking was not made yet.
        ValueError: the benchmarks differ, a query is unknown, or no target is public and no query
            is named.
    """
    if first.benchmark != second.benchmark:
        raise ValueError(
            f"{first.title} and {second.title} are two benchmarks; name two methods on one"
        )
    for stage in (first, second):
        require_complete(stage.existing_table(), stage.planned())
    query_set = load_query_set(first.root, first.benchmark)
    left, right = read_ranking(first), read_ranking(second)
    places = _named(left, queries) if queries else _differing(left, right, top, count)
    return tuple(
        zip(
            strips_of(first, left, query_set, places, top),
            strips_of(second, right, query_set, places, top),
            strict=True,
        )
    )


def _named(ranked: RankedLists, queries: Sequence[str]) -> list[Place]:
    known = {
        query.query_id: (category, row)
        for category, view in ranked.views.items()
        for row, query in enumerate(view.queries)
    }
    for name in queries:
        if name not in known:
            raise ValueError(unknown("query", name, evenly(list(known), 6), also=known))
    return [known[name] for name in queries]


def _differing(first: RankedLists, second: RankedLists, top: int, count: int) -> list[Place]:
    """Queries with a target in the first method's top, and none in the second's."""
    places: list[Place] = []
    judged = False
    for category, view in first.views.items():
        for row, query in enumerate(view.queries):
            judged |= bool(query.targets)
            right, wrong = (target_rank(each, category, row) for each in (first, second))
            if right is not None and right <= top and (wrong is None or wrong > top):
                places.append((category, row))
    if not judged:
        raise ValueError("this split's targets are not public: name the queries to show")
    return evenly(places, count)


def side_by_side_page(pairs: Sequence[Pair], title: str, embedded: bool) -> str:
    """A complete HTML page that loads nothing."""
    return render_page(
        "side_by_side.html.j2",
        title=title,
        subtitle="The same queries by two methods, the top of each ranking; targets are framed.",
        created=text.now(),
        pairs=pairs,
        embedded=embedded,
    )
