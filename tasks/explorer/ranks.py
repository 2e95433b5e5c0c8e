"""Every query of an evaluation with its rank by each method, from the published rankings.

The ranks are those that the ledger's metrics are made of: the same lists, read by the same code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from models.retrieval.metrics import NOT_RANKED
from storage.benchmarks.records import Benchmark, Query
from storage.benchmarks.registry import benchmark_facts
from storage.locations.location import Location
from storage.tables.table import load_table
from tasks.explorer.evaluations import Evaluation, evaluation_of
from tasks.query_sets import QuerySet, load_query_set
from tasks.scoring.metrics import list_ranks, query_hits, query_metrics
from tasks.scoring.scores import RankedLists, ranking_of
from tasks.stages.rankings import query_id

QUERY_COLUMNS: Final = (
    "query", "category", "text", "reference", "targets", "aspects", "group", "lacks"
)  # fmt: skip
"""What a query is; the columns of each method follow, see `column`."""


@dataclass(frozen=True)
class Ranked:
    """An evaluation with its queries.

    Attributes:
        evaluation: What was evaluated.
        query_set: Its queries joined to image ids.
        lists: Method -> its ranking.
        frame: One row for each query in the benchmark's order: `QUERY_COLUMNS`, and for each method
            `rank/METHOD` (from 1, null where no right answer is in the list) and `score/METHOD`
            (0 to 1, in the benchmark's main metric); `place/METHOD` is the rank in the query's
            group, where the benchmark has groups.
    """

    evaluation: Evaluation
    query_set: QuerySet
    lists: Mapping[str, RankedLists]
    frame: pl.DataFrame

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of the evaluation."""
        return tuple(self.lists)

    @functools.cached_property
    def rows(self) -> Mapping[str, tuple[int, Query, int]]:
        """Query -> its row in the frame, its record, and its row in its category."""
        found: dict[str, tuple[int, Query, int]] = {}
        for category in self.query_set.benchmark.galleries:
            for row, query in enumerate(self.query_set.benchmark.queries_of(category)):
                found[query_id(category, query.query_id)] = (len(found), query, row)
        return found


def column(what: str, method: str) -> str:
    """Name of a method's column: `rank`, `score` or `place` of it."""
    return f"{what}/{method}"


@functools.lru_cache(maxsize=4)
def ranked_queries(root: str, key: str) -> Ranked:
    """The queries of an evaluation; a few evaluations are kept in memory.

    Args:
        root: Root of the tables.
        key: The evaluation's.

    Raises:
        UnknownEvaluation: the root knows no such evaluation.
        FileNotFoundError: the benchmark's annotations or a ranking are gone.
    """
    evaluation = evaluation_of(root, key)
    query_set = load_query_set(evaluation.root, evaluation.ref)
    lists = {
        method: ranking_of(_rows(evaluation.root, run), query_set.benchmark)
        for method, run in evaluation.runs.items()
    }
    return Ranked(evaluation, query_set, lists, rank_frame(query_set, lists))


def rank_frame(query_set: QuerySet, lists: Mapping[str, RankedLists]) -> pl.DataFrame:
    """The frame of `Ranked`.

    Args:
        query_set: The benchmark's queries.
        lists: Method -> its ranking of them.
    """
    benchmark = query_set.benchmark
    queries = [
        query for category in benchmark.galleries for query in benchmark.queries_of(category)
    ]
    columns: dict[str, Any] = {
        "query": [query_id(query.category, query.query_id) for query in queries],
        "category": [query.category for query in queries],
        "text": [query.text for query in queries],
        "reference": [query.reference for query in queries],
        "targets": [list(query.targets) for query in queries],
        "aspects": [list(query.aspects) for query in queries],
        "group": [_group(query) for query in queries],
        "lacks": [query_set.why_not_asked(query) for query in queries],
    }
    for method, ranked in lists.items():
        columns |= {column(w, method): v for w, v in _measures(benchmark, ranked).items()}
    texts = pl.List(pl.String)
    return pl.DataFrame(columns, schema_overrides={"targets": texts, "aspects": texts})


def _measures(benchmark: Benchmark, ranked: RankedLists) -> dict[str, Sequence[Any]]:
    """Rank, score in the main metric and rank in the group of each query, by one method."""
    chosen = benchmark_facts(benchmark.name).metrics
    ranks, places = list_ranks(ranked.views, ranked.lists, ranked.subset_lists or None)
    hits = query_hits(chosen, ranks, places)
    scores = query_metrics(chosen, ranked.views, ranks, places)
    found: dict[str, Sequence[Any]] = {
        "rank": [_from_one(rank) for own in hits for rank in own.tolist()],
        "score": [value for own in scores for value in own[chosen.main].tolist()],
    }
    if places is not None:
        found["place"] = [_from_one(rank) for rank in places.tolist()]
    return found


def _from_one(rank: int) -> int | None:
    return None if rank == NOT_RANKED else rank + 1


def _group(query: Query) -> str:
    """The name of a query's hard-negative group: that of its first member; empty without one."""
    return min((query.reference, *query.subset)) if query.subset else ""


def _rows(root: str, run: str) -> dict[str, dict[str, Any]]:
    table = load_table(Location(root), "rankings", run)
    return {row["query_id"]: row for row in table.read().to_dicts()}
