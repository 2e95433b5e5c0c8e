"""From a published ranking to metrics with intervals, and from metrics to ledger rows."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.retrieval.metrics import Ints
from storage.benchmarks.indexing import IndexedCategory, index_category
from storage.benchmarks.records import Benchmark
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import Shard, open_table
from tasks.query_sets import load_query_set
from tasks.scoring.ledger import RESULTS_SPEC
from tasks.scoring.metrics import metrics_from_lists
from tasks.stages.rankings import DEPTH, RankingStage, backbone_of, query_id, ranking_protocol

RESAMPLES = 400


@dataclass(frozen=True)
class RankedLists:
    """A benchmark's ranking as integers, read back from its table.

    Attributes:
        views: category -> queries and galleries of the whole benchmark.
        lists: category -> (Q, DEPTH) gallery indices, -1 where there is none.
        subset_lists: category -> (Q, S) group members best first; empty without groups.
        scores: category -> (Q, DEPTH) similarities, NaN where there is none.
        failed: queries without a ranking.
    """

    views: Mapping[str, IndexedCategory]
    lists: Mapping[str, Ints]
    subset_lists: Mapping[str, Ints]
    scores: Mapping[str, np.ndarray[Any, Any]]
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
        protocol: everything that the numbers are subject to.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    draws: Mapping[str, np.ndarray[Any, Any]]
    queries: int
    coverage: float
    protocol: Mapping[str, Any]


def read_ranking(stage: RankingStage) -> RankedLists:
    """The ranking of a stage whose table is complete."""
    benchmark = stage.benchmark.load()
    rows = {row["query_id"]: row for row in stage.table().read(keys=stage.planned()).to_dicts()}
    views, lists, subsets, scores = {}, {}, {}, {}
    for category in benchmark.galleries:
        view = index_category(benchmark, category)
        own = [rows[query_id(category, query.query_id)] for query in view.queries]
        codes = {name: place for place, name in enumerate(view.gallery)}
        views[category] = view
        lists[category] = _padded([row["names"] or [] for row in own], codes, DEPTH)
        scores[category] = _padded_scores([row["scores"] or [] for row in own])
        if view.subsets.shape[1]:
            width = view.subsets.shape[1]
            subsets[category] = _padded([row["subset_names"] or [] for row in own], codes, width)
    failed = tuple(key for key, row in rows.items() if row["status"] != OK)
    return RankedLists(views, lists, subsets, scores, failed)


def _padded(rows: list[list[str]], codes: Mapping[str, int], width: int) -> Ints:
    table = np.full((len(rows), width), -1, np.int64)
    for place, names in enumerate(rows):
        table[place, : len(names)] = [codes[name] for name in names]
    return table


def _padded_scores(rows: list[list[float]]) -> np.ndarray[Any, Any]:
    table = np.full((len(rows), DEPTH), np.nan, np.float32)
    for place, values in enumerate(rows):
        table[place, : len(values)] = values
    return table


def score_ranking(stage: RankingStage, resamples: int = RESAMPLES) -> MethodScores:
    """Metrics of a ranking whose benchmark's targets are public, with bootstrap intervals.

    Queries are drawn with replacement within each category, with a fixed seed: the same ranking
    has the same interval, and two methods on one benchmark are compared on the same draws.
    """
    benchmark = stage.benchmark.load()
    ranked = read_ranking(stage)
    metrics = metrics_from_lists(
        benchmark, ranked.views, ranked.lists, dict(ranked.subset_lists) or None
    )
    draws = _bootstrap(benchmark, ranked, resamples)
    intervals = {
        name: (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)))
        for name, values in draws.items()
    }
    query_set = load_query_set(stage.root, stage.benchmark)
    found = len(query_set.image_ids)
    return MethodScores(
        metrics=metrics,
        intervals={name: intervals[name] for name in metrics},
        draws=draws,
        queries=len(benchmark.queries),
        coverage=found / max(1, found + len(benchmark.missing)),
        protocol={**ranking_protocol(stage), "failed_queries": len(ranked.failed)},
    )


def _bootstrap(
    benchmark: Benchmark, ranked: RankedLists, resamples: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Metric -> its value in each draw.

    Every metric is a mean over queries (and then over categories), so that a draw is a weighted
    mean of what single queries score.
    """
    rng = np.random.default_rng(0)
    parts: dict[str, list[np.ndarray[Any, Any]]] = {}
    for category, view in ranked.views.items():
        count = len(view.queries)
        times = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        single = [_one_query(benchmark, ranked, category, row) for row in range(count)]
        for name in dict.fromkeys(name for values in single for name in values):
            having = np.array([name in values for values in single])
            values = np.array([values.get(name, 0.0) for values in single])
            weights = times[:, having]
            drawn = weights @ values[having] / np.maximum(weights.sum(axis=1), 1)
            parts.setdefault(name, []).append(drawn)
    return {name: np.mean(drawn, axis=0) for name, drawn in parts.items()}


def _one_query(
    benchmark: Benchmark, ranked: RankedLists, category: str, row: int
) -> dict[str, float]:
    """The metrics of a single query."""
    view, pick = ranked.views[category], slice(row, row + 1)
    alone = replace(
        view,
        queries=view.queries[pick],
        references=view.references[pick],
        targets=view.targets[pick],
        target_counts=view.target_counts[pick],
        subsets=view.subsets[pick],
    )
    subsets = {key: lists[pick] for key, lists in ranked.subset_lists.items() if key == category}
    lists = {category: ranked.lists[category][pick]}
    return metrics_from_lists(benchmark, {category: alone}, lists, subsets or None)


def record_scores(stage: RankingStage, scores: MethodScores) -> int:
    """Write a method's metrics to the ledger, once; returns how many rows were new.

    A row's identity is what was ranked and which metric: scoring the same ranking again adds
    nothing.
    """
    ledger = open_table(Location(stage.root), "results", RESULTS_SPEC)
    run = stage.spec_key
    keys = {content_key({"ranking": run, "metric": name}): name for name in scores.metrics}
    plan = ledger.plan(list(keys), max(1, len(keys)))
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    provenance = json.dumps(stage.table().spec, sort_keys=True)
    protocol = json.dumps(scores.protocol, sort_keys=True, default=list)
    for planned in plan.shards:
        shard = Shard(planned.key, planned.members, planned.attempt)
        names = [keys[member] for member in shard.members]
        same = {
            "run": run,
            "method": stage.method,
            "backbone": backbone_of(stage),
            "benchmark": stage.benchmark.name,
            "split": stage.benchmark.split,
            "queries": scores.queries,
            "coverage": scores.coverage,
            "protocol": protocol,
            "provenance": provenance,
            "created": created,
        }
        rows = ledger.rows(
            result_key=list(shard.members),
            category=[name.partition("/")[2] for name in names],
            metric=names,
            value=[scores.metrics[name] for name in names],
            low=[scores.intervals[name][0] for name in names],
            high=[scores.intervals[name][1] for name in names],
            **{column: [value] * len(names) for column, value in same.items()},
        )
        ledger.publish(shard, rows)
    return sum(len(shard.members) for shard in plan.shards)
