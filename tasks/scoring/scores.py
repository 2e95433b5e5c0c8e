"""From a published ranking to metrics with intervals, and from metrics to ledger rows."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.retrieval.bootstrap import RESAMPLES, Draws, bootstrap, interval
from models.retrieval.metrics import Ints, Ranks, Values
from models.retrieval.ranked_lists import Similarities, padded_lists, padded_similarities
from storage.benchmarks.indexing import IndexedCategory, index_category
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import benchmark_facts
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import open_table
from tasks.query_sets import load_query_set
from tasks.scoring.ledger import RESULTS_SPEC
from tasks.scoring.making import made_by, names_of
from tasks.scoring.metrics import (
    list_ranks,
    negative_ranks,
    query_hits,
    query_metrics,
    require_targets,
    summed_up,
)
from tasks.stages.rankings import DEPTH, RankingStage, backbone_of, query_id, ranking_protocol


@dataclass(frozen=True)
class RankedLists:
    """A benchmark's ranking as integers, read back from its table.

    Attributes:
        views: category -> queries and galleries of the whole benchmark.
        lists: category -> (Q, DEPTH or more) gallery indices, -1 where there is none.
        subset_lists: category -> (Q, S) group members best first; empty without groups.
        scores: category -> (Q, as many) similarities, NaN where there is none.
        failed: queries without a ranking.
    """

    views: Mapping[str, IndexedCategory]
    lists: Mapping[str, Ints]
    subset_lists: Mapping[str, Ints]
    scores: Mapping[str, Similarities]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class MethodScores:
    """Metrics of one method on one benchmark in percent.

    Attributes:
        metrics: metric -> value.
        intervals: metric -> 95 % bootstrap interval over queries.
        draws: metric -> its value in each bootstrap draw; draws of two methods are paired.
        queries: number of queries, failed ones included.
        coverage: fraction of the benchmark's images that were found.
        protocol: the choices that the numbers depend on.
        single: for each category, metric -> (Q,) the score of each query, from 0 to 1.
        first_hits: for each category, (Q,) the rank of each query's best-ranked right answer, in
            the gallery, or in its group where the benchmark looks only there.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    draws: Mapping[str, Draws]
    queries: int
    coverage: float
    protocol: Mapping[str, Any]
    single: Sequence[Mapping[str, Values]] = ()
    first_hits: Sequence[Ranks] = ()


def read_ranking(stage: RankingStage) -> RankedLists:
    """The ranking of a stage whose table is complete."""
    benchmark = load_query_set(stage.root, stage.benchmark).benchmark
    rows = stage.table().read(keys=stage.planned()).to_dicts()
    return ranking_of({row["query_id"]: row for row in rows}, benchmark)


def ranking_of(rows: Mapping[str, Mapping[str, Any]], benchmark: Benchmark) -> RankedLists:
    """The ranking that some rows hold, by query id."""
    views, lists, subsets, scores = {}, {}, {}, {}
    for category in benchmark.galleries:
        view = index_category(benchmark, category)
        own = [rows[query_id(category, query.query_id)] for query in view.queries]
        codes = {name: place for place, name in enumerate(view.gallery)}
        views[category] = view
        depth = max([DEPTH, *(len(row["names"] or ()) for row in own)])
        lists[category] = padded_lists(_places(own, "names", codes), depth)
        scores[category] = padded_similarities([row["scores"] or [] for row in own], depth)
        if view.subsets.shape[1]:
            found = _places(own, "subset_names", codes)
            subsets[category] = padded_lists(found, view.subsets.shape[1])
    failed = tuple(key for key, row in rows.items() if row["status"] != OK)
    return RankedLists(views, lists, subsets, scores, failed)


def _places(
    rows: Sequence[Mapping[str, Any]], column: str, codes: Mapping[str, int]
) -> list[list[int]]:
    """Gallery indices of the names in a column, row by row."""
    return [[codes[name] for name in row[column] or ()] for row in rows]


def metrics_of(ranked: RankedLists, benchmark: Benchmark) -> dict[str, float]:
    """Metrics of a ranking in percent, without intervals."""
    chosen = benchmark_facts(benchmark.name).metrics
    ranks = list_ranks(ranked.views, ranked.lists, ranked.subset_lists or None)
    negatives = negative_ranks(ranked.views, ranked.lists)
    return summed_up(chosen, query_metrics(chosen, ranked.views, *ranks, negatives))


def score_ranking(stage: RankingStage, resamples: int = RESAMPLES) -> MethodScores:
    """Metrics of a ranking whose benchmark's targets are public, with bootstrap intervals.

    Queries are drawn with replacement within each category, with a fixed seed: the same ranking
    has the same interval, and two methods on one benchmark are compared on the same draws.

    Raises:
        HiddenTargets: the benchmark's targets are not public.
    """
    benchmark = stage.benchmark.load()
    require_targets(benchmark)
    ranked = read_ranking(stage)
    chosen = benchmark_facts(benchmark.name).metrics
    ranks = list_ranks(ranked.views, ranked.lists, ranked.subset_lists or None)
    negatives = negative_ranks(ranked.views, ranked.lists)
    single = query_metrics(chosen, ranked.views, *ranks, negatives)
    metrics, draws = summed_up(chosen, single), bootstrap(single, resamples)
    query_set = load_query_set(stage.root, stage.benchmark)
    found = len(query_set.image_ids)
    return MethodScores(
        metrics=metrics,
        intervals={name: interval(draws[name]) for name in metrics},
        draws=draws,
        queries=len(benchmark.queries),
        coverage=found / max(1, found + len(benchmark.missing)),
        protocol={
            **ranking_protocol(stage),
            "gallery_without_features": stage.without_features(),
            "failed_queries": len(ranked.failed),
            "made": made_by(stage),
            "names": names_of(stage),
        },
        single=single,
        first_hits=query_hits(chosen, *ranks),
    )


@dataclass(frozen=True)
class Scored:
    """What was scored: a ranking made here, or predictions of others.

    Attributes:
        run: Its identity.
        method: Name of the method.
        backbone: Name of the backbone.
        benchmark: Name of the benchmark.
        split: Its split.
        provenance: What it was made from.
    """

    run: str
    method: str
    backbone: str
    benchmark: str
    split: str
    provenance: Mapping[str, Any]


def record_scores(scored: Sequence[tuple[RankingStage, MethodScores]]) -> int:
    """Write the metrics of some rankings to the ledger, once; returns how many rows were new."""
    if not scored:
        return 0
    return record(scored[0][0].root, [(_scored(stage), scores) for stage, scores in scored])


def record(root: str, scored: Sequence[tuple[Scored, MethodScores]]) -> int:
    """Write metrics to a root's ledger, once; returns how many rows were new.

    A row's identity is the run and the metric: scoring the same again adds nothing.
    """
    ledger = open_table(Location(root), "results", RESULTS_SPEC)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    places = {
        content_key({"ranking": what.run, "metric": name}): (number, name)
        for number, (what, scores) in enumerate(scored)
        for name in scores.metrics
    }
    plan = ledger.plan(list(places), max(1, len(places)))
    for shard in plan.shards:
        same = {n: _columns(*scored[n], created) for n in {places[m][0] for m in shard.members}}
        rows = [
            same[number] | _measured(key, name, scored[number][1])
            for key in shard.members
            for number, name in [places[key]]
        ]
        ledger.publish(shard, ledger.rows(**{c: [row[c] for row in rows] for c in rows[0]}))
    return plan.todo


def _scored(stage: RankingStage) -> Scored:
    return Scored(
        run=stage.spec_key,
        method=stage.method,
        backbone=backbone_of(stage),
        benchmark=stage.benchmark.name,
        split=stage.benchmark.split,
        provenance=stage.table().spec,
    )


def _columns(what: Scored, scores: MethodScores, created: str) -> dict[str, Any]:
    """The columns in which all rows of a run agree."""
    return {
        "run": what.run,
        "method": what.method,
        "backbone": what.backbone,
        "benchmark": what.benchmark,
        "split": what.split,
        "queries": scores.queries,
        "coverage": scores.coverage,
        "protocol": json.dumps(scores.protocol, sort_keys=True, default=list),
        "provenance": json.dumps(what.provenance, sort_keys=True),
        "created": created,
    }


def _measured(key: str, name: str, scores: MethodScores) -> dict[str, Any]:
    """The columns of one metric."""
    low, high = scores.intervals[name]
    return {
        "result_key": key,
        "category": name.partition("/")[2],
        "metric": name,
        "value": scores.metrics[name],
        "low": low,
        "high": high,
    }
