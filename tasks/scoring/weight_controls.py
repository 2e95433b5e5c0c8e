"""What weights for each query are compared with: fixed ones, those of others, and an oracle's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from models.retrieval.bootstrap import RESAMPLES, bootstrap, interval
from models.retrieval.metrics import Values
from models.retrieval.ranked_lists import lists_of_all
from storage.benchmarks.registry import benchmark_facts
from tasks.query_sets import load_query_set
from tasks.scoring.metrics import list_ranks, query_metrics, require_targets, summed_up
from tasks.scoring.scores import MethodScores
from tasks.stages.weighted import WeightedStage

if TYPE_CHECKING:
    from models.retrieval.gallery import Gallery
    from models.retrieval.gate import Floats
    from models.retrieval.query_weights import Parts
    from tasks.stages.rankings import CategoryFeatures

    Searched: TypeAlias = tuple[CategoryFeatures, Parts, Gallery, Floats]
    """A category's features, its queries' parts, its gallery, and the gate's (R, A) weights."""

STEP: Final = 0.1
"""Grid step of the oracle."""


def weight_controls(
    stage: WeightedStage, scores: MethodScores, step: float = STEP, resamples: int = RESAMPLES
) -> dict[str, MethodScores]:
    """Rows next to those of a method with weights for each query, on the same bootstrap draws.

    - best fixed: the weights that are best for all training triplets alike.
    - of other queries: the gate's weights, each given to another query.
    - oracle: for each query the weights of a grid that score best. It reads the targets, and is an
      upper bound and not a method.

    Args:
        stage: Its features are made.
        scores: Of the method itself.
        step: Grid step of the oracle.
        resamples: Bootstrap draws.

    Returns:
        Name of the row -> its metrics, those of groups left out.
    """
    from models.retrieval.query_weights import (
        best_of_grid,
        same_for_all,
        shuffled,
        weight_grid,
    )

    require_targets(stage.benchmark.load())
    gate, query_set = stage.weigher, load_query_set(stage.root, stage.benchmark)
    grid = weight_grid(len(gate.parts), step)
    chosen = benchmark_facts(stage.benchmark.name).metrics
    searched: dict[str, Searched] = {}
    for category in query_set.benchmark.galleries:
        made = stage.features(query_set, category)
        searched[category] = (made, *stage.weighed(made))

    def alike(row: Floats) -> dict[str, Floats]:
        return {category: same_for_all(row, own[3]) for category, own in searched.items()}

    tried = [_by_category(stage, searched, alike(row)) for row in grid]
    oracle = {
        category: best_of_grid(grid, _values(tried, searched, category, chosen.main), own[3])
        for category, own in searched.items()
    }
    others = {category: shuffled(own[3]) for category, own in searched.items()}
    controls = {
        "best fixed": alike(gate.fixed),
        "of other queries": others,
        "oracle, from labels": oracle,
    }
    found = {}
    for name, weights in controls.items():
        single = list(_by_category(stage, searched, weights).values())
        metrics = summed_up(chosen, single)
        draws = bootstrap(single, resamples)
        found[f"{stage.method}: {name}"] = dataclasses.replace(
            scores,
            metrics=metrics,
            draws=draws,
            intervals={each: interval(draws[each]) for each in metrics},
            single=single,
            first_hits=(),
        )
    return found


def _by_category(
    stage: WeightedStage, searched: Mapping[str, Searched], weights: Mapping[str, Floats]
) -> dict[str, dict[str, Values]]:
    """Category -> metric -> (Q,) the score of each query under (R, A) weights."""
    chosen = benchmark_facts(stage.benchmark.name).metrics
    found = {}
    for category, (made, parts, images, _) in searched.items():
        ranked = stage.rank_under(made, parts, images, weights[category])
        lists = lists_of_all(len(made.view.queries), made.rows, ranked.indices)
        ranks, _ = list_ranks({category: made.view}, {category: lists}, None)
        (found[category],) = query_metrics(chosen, {category: made.view}, ranks, None)
    return found


def _values(
    tried: Sequence[Mapping[str, Mapping[str, Values]]],
    searched: Mapping[str, Searched],
    category: str,
    metric: str,
) -> list[Values]:
    """Each setting's scores of the queries that have a ranking."""
    rows = list(searched[category][0].rows)
    return [own[category][metric][rows] for own in tried]
