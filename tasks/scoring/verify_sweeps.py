"""Orders of verified candidates under many rules, weights and K, from margins made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from models.retrieval.verified import RULES
from storage.benchmarks.registry import benchmark_facts
from tasks.query_sets import load_query_set
from tasks.scoring.scores import metrics_of, ranking_of
from tasks.scoring.sweeps import sorted_rows
from tasks.stages.verified import VerifiedStage, reordered
from tasks.verify_settings import FusingSettings

DEPTHS: Final = (3, 5, 10, 15, 25, 50, 100)
"""K that are tried, as far as candidates were verified."""
UNWEIGHTED: Final = ("replace",)


@dataclass(frozen=True)
class Tried:
    """One setting: how many candidates are ordered again, and by which rule; none: K = 0."""

    count: int
    fusing: FusingSettings


def verify_grid(most: int, points: Sequence[float], in_lists: bool = False) -> list[Tried]:
    """The first stage alone, then every K, rule, and weight or threshold.

    Args:
        most: Candidates of each query that are verified.
        points: Weights and thresholds to try.
        in_lists: Whether candidates were judged as lists, whose verdicts say nothing of shorter
            lists: K is then not tried.
    """
    counts = [most] if in_lists else [*(each for each in DEPTHS if each < most), most]
    return [
        Tried(0, FusingSettings()),
        *(Tried(count, fusing) for count in counts for fusing in _rules(points)),
    ]


def sweep_verified(stage: VerifiedStage, grid: Sequence[Tried]) -> list[dict[str, Any]]:
    """Each setting with its metrics, best first by the benchmark's main one.

    Args:
        stage: Its first stage and its verifications are made, to the largest K of the grid.
        grid: The settings to try.
    """
    first, verdicts = stage.verifications.first, stage.verifications.read()
    benchmark = load_query_set(stage.root, stage.benchmark).benchmark
    table = first.table().read(keys=first.planned()).to_dicts()
    rows = {row["query_id"]: row for row in table}
    found = []
    for tried in grid:
        fusing = tried.fusing.fusing
        made = reordered(stage, rows, verdicts, tried.count, fusing) if tried.count else rows
        said = {"candidates": tried.count, **(tried.fusing.identity if tried.count else {})}
        found.append((said, metrics_of(ranking_of(made, benchmark), benchmark)))
    return sorted_rows(found, benchmark_facts(benchmark.name).metrics.main)


def _rules(points: Sequence[float]) -> list[FusingSettings]:
    made = []
    for rule in RULES:
        name = "threshold" if rule == "veto" else "weight"
        inner = [point for point in points if 0 < point < 1 or (point and rule == "sum")]
        values = [0.5] if rule in UNWEIGHTED else inner
        made += [FusingSettings.given({"rule": rule, name: each}, "fusing") for each in values]
    return made
