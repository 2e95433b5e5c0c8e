"""Compare methods on several embedded worlds: means over seeds, with paired intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from embedded_world.benchmarks import WorldSize, write_world
from embedded_world.harder import HARDER, write_harder_world, write_pointing_world
from flows import run_names
from flows.drawn_training import train_comparison_systems
from flows.profiles import resolve_profile
from flows.requests import evaluate_world as requests
from flows.requests.evaluate_world import WorldKind, WorldsRequest
from flows.requests.prepared import prepared_by
from flows.running import watching
from flows.score_benchmark import evaluate
from flows.summaries import summed_up
from models.retrieval.bootstrap import Draws, interval, mean, mean_draws
from models.spelling import agreed
from storage.benchmarks.registry import benchmark_facts
from storage.locations.location import Location
from tasks.query_sets import BenchmarkRef
from tasks.redacted import redacting
from tasks.report.build import EvaluatedBenchmark
from tasks.scoring.ledger import not_zero_shot
from tasks.scoring.scores import MethodScores
from tasks.scoring.weight_controls import weight_controls
from tasks.stages.weighted import WeightedStage
from tasks.unrecorded import run_task

USUAL: Final = WorldSize(subsets=250, circo_queries=300, fashion_queries=100)
"""Size of the drawn worlds that are compared over several seeds."""
_WRITERS: Final = {
    "usual": write_world,
    "harder": write_harder_world,
    "pointing": write_pointing_world,
}


@task(cache_policy=NO_CACHE)
@redacting
def draw_world(
    folder: Path, size: WorldSize, seed: int, kind: WorldKind = "usual", names: Sequence[str] = ()
) -> dict[str, str]:
    """Draw embedded benchmarks, all or those named, unless they are there; benchmark -> folder."""
    drawn = _WRITERS[kind](
        folder, size, seed, names, lambda name: watching(f"draw {folder.name}/{name}", 0, 0)
    )
    return {name: str(path) for name, path in drawn.items()}


def demo_world(folder: Path, seed: int) -> dict[str, str]:
    """The world of `cirflow demo`, drawn unless it is there; benchmark -> folder.

    Args:
        folder: The demo's folder.
        seed: Seed of the world.
    """
    drawn: dict[str, str] = run_task(draw_world, folder / "world", WorldSize(), seed)
    return drawn


def drawn_benchmarks(
    folder: Path,
    seed: int,
    subsets: int | None = None,
    circo_queries: int | None = None,
    fashion_queries: int | None = None,
    kind: WorldKind = "usual",
    names: Sequence[str] = (),
) -> list[BenchmarkRef]:
    """The embedded benchmarks of a seed with public targets, drawn unless they are there.

    Args:
        folder: Holds one world for each seed, and nothing of another size.
        seed: Seed of the world.
        subsets: CIRR-like groups of six, each with two queries; None: as many as usual.
        circo_queries: CIRCO-like queries.
        fashion_queries: FashionIQ-like queries per category.
        kind: Other kinds than the usual one are those of `embedded_world.harder`.
        names: Benchmarks that are wanted; none: all.
    """
    asked = {
        "subsets": subsets,
        "circo_queries": circo_queries,
        "fashion_queries": fashion_queries,
    }
    given = {name: count for name, count in asked.items() if count is not None}
    size = replace(_usual_size(kind), **given)
    place = folder / f"{_opening(kind)}world-{seed}"
    roots = run_task(draw_world, place, size, seed, kind, names)
    return [
        BenchmarkRef(
            name=name, root=root, split="val", collection=drawn_name(name, seed, size, kind)
        )
        for name, root in roots.items()
    ]


def drawn_name(benchmark: str, seed: int, size: WorldSize, kind: WorldKind = "usual") -> str:
    """Name of the collection of a drawn benchmark; one of another size has another name."""
    count = {"cirr": "subsets", "circo": "circo_queries", "fashioniq": "fashion_queries"}[benchmark]
    own, usual = vars(size)[count], vars(_usual_size(kind))[count]
    name = f"{benchmark}-val-{_opening(kind)}seed-{seed}"
    return name if own == usual else f"{name}-of-{own}"


def _usual_size(kind: WorldKind) -> WorldSize:
    return USUAL if kind == "usual" else HARDER


def _opening(kind: WorldKind) -> str:
    """Beginning of names, so that worlds of all kinds may lie in one folder."""
    return "" if kind == "usual" else f"{kind}-"


@flow(
    name="evaluate-world",
    flow_run_name=run_names.worlds,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.evaluate_world)
def evaluate_world(asked: WorldsRequest) -> State[Any]:
    """Draw and evaluate world by world, then sum up."""
    folder, profile, opening = asked.folder, asked.profile, _opening(asked.kind)
    if asked.trained:
        changes = asked.changes | train_comparison_systems(
            folder / "systems", asked.profile_name, asked.changes, asked.trained
        )
        profile = resolve_profile(asked.profile_name, changes)
    scores: dict[str, dict[str, list[MethodScores]]] = {}
    for seed in asked.seeds:
        refs = drawn_benchmarks(
            folder,
            seed,
            asked.subsets,
            asked.circo_queries,
            asked.fashion_queries,
            kind=asked.kind,
            names=asked.benchmarks,
        )
        place = folder / f"{opening}seed-{seed}"
        title = f"{opening.replace('-', ' ')}embedded world, seed {seed}"
        outcome = evaluate(profile, refs, asked.methods, place, title)
        for item in outcome.benchmarks:
            for name, own in {**item.scores, **_controls(item)}.items():
                scores.setdefault(item.ref.name, {}).setdefault(name, []).append(own)
    tables = {
        benchmark: sum_up(own, benchmark_facts(benchmark).metrics.main, asked.against)
        for benchmark, own in scores.items()
    }
    Location(str(folder)).replace(f"{opening}summary.json", json.dumps(tables, indent=1).encode())
    Location(str(folder)).replace(
        f"{opening}summary.md", as_markdown(tables, asked.seeds, asked.against, asked.kind).encode()
    )
    return summed_up({"summary": str(folder / f"{opening}summary.md")})


def _controls(item: EvaluatedBenchmark) -> dict[str, MethodScores]:
    """Rows next to those of methods with weights for each query."""
    found: dict[str, MethodScores] = {}
    for stage in item.rankings:
        if isinstance(stage, WeightedStage):
            found |= weight_controls(stage, item.scores[stage.method])
    return found


def sum_up(
    scores: Mapping[str, Sequence[MethodScores]], main: str, against: str = "cvsi"
) -> list[dict[str, Any]]:
    """One row per method, best first.

    The intervals are 95 % bootstrap intervals over queries of the mean over seeds. `behind` is the
    mean of `against` minus the method's, where `against` is among the scores; its interval is that
    of the differences on the same draws.
    """
    whole = _mean_draws(scores[against], main) if against in scores else None
    rows = []
    for name, own in scores.items():
        draws = _mean_draws(own, main)
        values = [each.metrics[main] for each in own]
        row: dict[str, Any] = {
            "method": name,
            "label": not_zero_shot(own[0].protocol),
            "metric": main,
            "mean": round(mean(values), 2),
            "interval": _interval(draws),
            "seeds": [round(value, 2) for value in values],
            "queries": sum(each.queries for each in own),
        }
        if whole is not None and name != against:
            first = mean([each.metrics[main] for each in scores[against]])
            row["behind"] = round(first - mean(values), 2)
            row["behind_interval"] = _interval(whole - draws)
        rows.append(row)
    return sorted(rows, key=lambda row: -row["mean"])


def _mean_draws(scores: Sequence[MethodScores], main: str) -> Draws:
    return mean_draws([each.draws[main] for each in scores])


def _interval(draws: Draws) -> list[float]:
    return [round(bound, 2) for bound in interval(draws)]


def as_markdown(
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    seeds: Sequence[int],
    against: str = "cvsi",
    kind: WorldKind = "usual",
) -> str:
    """The summary as Markdown tables."""
    world = f"{_opening(kind).replace('-', ' ')}embedded world".capitalize()
    lines = [f"{world}, seeds {', '.join(map(str, seeds))}. Percent."]
    for benchmark, rows in tables.items():
        queries = rows[0]["queries"]
        lines += [
            "",
            f"**{benchmark}-like**, {rows[0]['metric']}, {queries} {agreed(queries, 'query')}",
            "",
            f"| method | mean | 95 % interval | per seed | {against} minus it |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            seeds_said = " / ".join(f"{value:.2f}" for value in row["seeds"])
            behind = ""
            if "behind" in row:
                low, high = row["behind_interval"]
                behind = f"{row['behind']:+.2f} [{low:+.2f}, {high:+.2f}]"
            low, high = row["interval"]
            label = f" ({row['label']})" if row["label"] else ""
            lines.append(
                f"| {row['method']}{label} | {row['mean']:.2f} | {low:.2f} to {high:.2f} | "
                f"{seeds_said} | {behind} |"
            )
    return "\n".join(lines) + "\n"
