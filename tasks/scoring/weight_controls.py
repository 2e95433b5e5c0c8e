"""What weights for each query are compared with: fixed ones, those of others, and an oracle's."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Final

from models.retrieval.bootstrap import RESAMPLES, bootstrap, interval
from models.retrieval.metrics import Values
from models.retrieval.ranked_lists import lists_of_all
from storage.benchmarks.registry import benchmark_facts
from tasks.query_sets import load_query_set
from tasks.scoring.metrics import list_ranks, query_metrics, require_targets, summed_up
from tasks.scoring.scores import MethodScores
from tasks.stages.weighted import WeightedStage

if TYPE_CHECKING:
    from models.retrieval.gate import Floats
    from models.retrieval.query_weights import Parts
    from tasks.stages.weighted import Weigh

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
    from models.retrieval.query_weights import best_of_grid, shuffled, weight_grid

    require_targets(stage.benchmark.load())
    gate = stage.weigher
    grid = weight_grid(len(gate.parts), step)
    main = benchmark_facts(stage.benchmark.name).metrics.main
    tried = [_by_category(stage, functools.partial(_all_alike, row)) for row in grid]
    values = {
        category: [by_category[category][main] for by_category in tried] for category in tried[0]
    }
    controls: dict[str, Weigh] = {
        "best fixed": functools.partial(_all_alike, gate.fixed),
        "of other queries": lambda category, parts, weights: shuffled(weights),
        "oracle, from labels": lambda category, parts, weights: best_of_grid(
            grid, values[category], weights
        ),
    }
    found = {}
    for name, weigh in controls.items():
        single = list(_by_category(stage, weigh).values())
        metrics = summed_up(benchmark_facts(stage.benchmark.name).metrics, single)
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


def _all_alike(row: Floats, category: str, parts: Parts, weights: Floats) -> Floats:
    from models.retrieval.query_weights import same_for_all

    return same_for_all(row, weights)


def _by_category(stage: WeightedStage, weigh: Weigh) -> dict[str, dict[str, Values]]:
    """Category -> metric -> (Q,) the score of each query."""
    query_set = load_query_set(stage.root, stage.benchmark)
    chosen = benchmark_facts(stage.benchmark.name).metrics
    found = {}
    for category in query_set.benchmark.galleries:
        ranked = stage.rank_under(query_set, category, weigh)
        view = ranked.made.view
        lists = lists_of_all(len(view.queries), ranked.made.rows, ranked.indices)
        ranks, _ = list_ranks({category: view}, {category: lists}, None)
        (found[category],) = query_metrics(chosen, {category: view}, ranks, None)
    return found
