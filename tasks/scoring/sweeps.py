"""Fusion weights on a grid: base similarities once, every weighting from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.retrieval.cvsi_settings import CvsiWeights
from models.retrieval.fusion import gallery_weights, query_weights, unit
from models.retrieval.method_records import LateFusion
from models.retrieval.metrics import Ints
from models.retrieval.ranked_lists import lists_of_all
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import benchmark_facts
from tasks.query_sets import load_query_set
from tasks.scoring.metrics import metrics_from_lists
from tasks.stages.rankings import CategoryFeatures, RankingStage

QUERY_PARTS = ("edited_captions", "fine_grained", "reference_image")
GALLERY_PARTS = ("captions", "image")


def weight_grid(step: float) -> list[CvsiWeights]:
    """All alpha, beta (alpha + beta <= 1) and gamma on a grid."""
    count = _count(step)
    points = [i / count for i in range(count + 1)]
    return [
        CvsiWeights(alpha=alpha, beta=beta, gamma=gamma)
        for i, alpha in enumerate(points)
        for beta in points[: count + 1 - i]
        for gamma in points
    ]


def sweep_weights(stage: RankingStage, grid: Sequence[CvsiWeights]) -> list[dict[str, Any]]:
    """Metrics of CVSI under each weighting, best first by the benchmark's main metric.

    Args:
        stage: A ranking of CVSI in which every part has a weight, its features made.
        grid: The weightings to try.
    """
    from models.retrieval.search import FusionWeights, sweep_top_k

    query_set = load_query_set(stage.root, stage.benchmark)
    benchmark = query_set.benchmark
    sweep = [
        FusionWeights(
            tuple(query_weights(w.alpha, w.beta)[part] for part in QUERY_PARTS),
            tuple(gallery_weights(w.gamma)[part] for part in GALLERY_PARTS),
        )
        for w in grid
    ]
    views: dict[str, IndexedCategory] = {}
    lists: dict[str, list[Ints]] = {}
    for category in benchmark.galleries:
        made = stage.features(query_set, category)
        found = sweep_top_k(
            [unit(made.queries[part]) for part in QUERY_PARTS],
            [unit(made.gallery[part]) for part in GALLERY_PARTS],
            sweep,
            made.depth,
            excluded=made.excluded,
        )
        views[category] = made.view
        lists[category] = [_all_rows(made, top.indices) for top in found]
    settings = [{"alpha": w.alpha, "beta": w.beta, "gamma": w.gamma} for w in grid]
    return _best_first(benchmark, views, lists, settings)


def share_grid(step: float) -> list[float]:
    """Weights of the second method of a late fusion, 0 and 1 included."""
    count = _count(step)
    return [i / count for i in range(count + 1)]


def sweep_shares(stage: RankingStage, grid: Sequence[float]) -> list[dict[str, Any]]:
    """Metrics of a late fusion of two methods under each weight of the second, best first.

    Args:
        stage: A ranking of the fusion in which both methods have a weight, its features made.
        grid: The weights to try.

    Raises:
        ValueError: the method is not a late fusion of two methods.
    """
    from models.retrieval.search import blended_top_k

    query_set = load_query_set(stage.root, stage.benchmark)
    recipe = stage.recipe
    if not isinstance(recipe, LateFusion) or len(recipe.parts) != 2:
        raise ValueError(
            f"{stage.method} is not a late fusion of two methods that both have a weight"
        )
    views: dict[str, IndexedCategory] = {}
    lists: dict[str, list[Ints]] = {}
    for category in query_set.benchmark.galleries:
        made = stage.features(query_set, category)
        spaces = [
            (
                unit(part.query_vectors(made.queries, made.gallery)),
                part.gallery_vectors(made.gallery),
            )
            for _, part in recipe.parts
        ]
        found = blended_top_k(
            spaces, [(1 - w, w) for w in grid], made.depth, excluded=made.excluded
        )
        views[category] = made.view
        lists[category] = [_all_rows(made, top.indices) for top in found]
    settings = [{"weight": weight} for weight in grid]
    return _best_first(query_set.benchmark, views, lists, settings)


def _best_first(
    benchmark: Benchmark,
    views: Mapping[str, IndexedCategory],
    lists: Mapping[str, Sequence[Ints]],
    settings: Sequence[Mapping[str, float]],
) -> list[dict[str, Any]]:
    """One row for each setting tried, with the metrics of its lists by category."""
    main = benchmark_facts(benchmark.name).metrics.main
    results = []
    for i, tried in enumerate(settings):
        own = {category: found[i] for category, found in lists.items()}
        metrics = metrics_from_lists(benchmark, views, own)
        kept = {name: round(value, 3) for name, value in metrics.items() if "/" not in name}
        results.append({**tried, main: round(metrics[main], 3), **kept})
    return sorted(results, key=lambda row: -row[main])


def _count(step: float) -> int:
    count = round(1 / step) if step > 0 else 0
    if count < 1 or abs(count * step - 1) > 1e-9:
        raise ValueError(f"step must divide 1, such as 0.1 or 0.25, not {step}")
    return count


def _all_rows(made: CategoryFeatures, indices: Ints) -> Ints:
    """Lists of all queries of a category; queries without features get an empty one."""
    return lists_of_all(len(made.view.queries), made.rows, indices)
