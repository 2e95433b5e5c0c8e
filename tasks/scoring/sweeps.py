"""Fusion weights on a grid: base similarities once, every weighting from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import pyarrow as pa

from models.retrieval.cvsi_settings import CvsiWeights
from models.retrieval.fusion import gallery_weights, query_weights, unit
from models.retrieval.method_records import LateFusion, Recipe
from models.retrieval.metrics import Ints
from models.retrieval.ranked_lists import lists_of_all
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import benchmark_facts
from storage.tables.keys import content_key
from storage.tables.table import require_complete
from tasks.query_sets import load_query_set
from tasks.scoring.metrics import metrics_from_lists
from tasks.stages.rankings import CategoryFeatures, RankingStage, without_row
from tasks.stages.stage import Stage, Tick

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Floats: TypeAlias = "npt.NDArray[np.float32]"

QUERY_PARTS = ("edited_captions", "fine_grained", "reference_image")
GALLERY_PARTS = ("captions", "image")


def grid_points(step: float) -> list[float]:
    """Values from 0 to 1, both included.

    Raises:
        ValueError: `step` does not divide 1.
    """
    count = round(1 / step) if step > 0 else 0
    if count < 1 or abs(count * step - 1) > 1e-9:
        raise ValueError(f"step must divide 1, such as 0.1 or 0.25, not {step}")
    return [i / count for i in range(count + 1)]


def weight_grid(step: float) -> list[CvsiWeights]:
    """All alpha, beta (alpha + beta <= 1) and gamma on a grid."""
    points = grid_points(step)
    count = len(points) - 1
    return [
        CvsiWeights(alpha=alpha, beta=beta, gamma=gamma)
        for i, alpha in enumerate(points)
        for beta in points[: count + 1 - i]
        for gamma in points
    ]


class SweepStage(Stage):
    """Metrics of CVSI under some fusion weights, from cached features: nothing is encoded."""

    table_name: ClassVar[str] = "sweeps"
    producer: ClassVar[str] = "cirflow/sweeps/1"

    ranking: RankingStage
    """A ranking of CVSI in which every part has a weight; only what it reads is made."""
    grid: tuple[CvsiWeights, ...]
    """The weights to try."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"fusion weights of {self.ranking.title}"

    @property
    def inputs(self) -> Mapping[str, Stage]:
        """What the ranking reads."""
        return self.ranking.inputs

    def identity(self) -> dict[str, Any]:
        """The ranking's own: features, queries and galleries; and queries that count as misses."""
        recipe = self.ranking.recipe
        items = load_query_set(self.root, self.ranking.benchmark).items.values()
        lacking = without_row(
            [self.ranking.query_features[name] for name in recipe.query],
            [item.key for item in items],
        )
        without = {"without": content_key(lacking)} if lacking else {}
        return {"ranking": self.ranking.spec_key, **without}

    def planned(self) -> list[str]:
        """Each setting by name."""
        return sorted({setting(weights) for weights in self.grid})

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Rank and score under each setting; base similarities are computed once."""
        known = {setting(weights): weights for weights in self.grid}
        tried = [known[member] for member in members]
        scored = _metrics_of(self.ranking, tried)
        tick(len(members))
        return self.table().rows(
            setting=list(members),
            alpha=[weights.alpha for weights in tried],
            beta=[weights.beta for weights in tried],
            gamma=[weights.gamma for weights in tried],
            metrics=[list(metrics) for metrics in scored],
            values=[list(metrics.values()) for metrics in scored],
        )

    def read(self) -> dict[str, dict[str, float]]:
        """Setting -> metric -> percent, of a table that is complete.

        Raises:
            IncompleteTable: some settings were not tried yet.
        """
        table = self.existing_table()
        require_complete(table, self.planned())
        rows = table.read(["metrics", "values"], self.planned())
        return {
            key: dict(zip(names, values, strict=True)) for key, names, values in rows.iter_rows()
        }


def setting(weights: CvsiWeights) -> str:
    """The name of fusion weights in the table of sweeps."""
    return f"alpha={weights.alpha:g} beta={weights.beta:g} gamma={weights.gamma:g}"


def best_first(stage: SweepStage) -> list[dict[str, Any]]:
    """One row for each setting tried, with its metrics, best first by the benchmark's main one."""
    main, found = benchmark_facts(stage.ranking.benchmark.name).metrics.main, stage.read()
    rows = [(weights.model_dump(), found[setting(weights)]) for weights in stage.grid]
    return sorted_rows(rows, main)


def _metrics_of(stage: RankingStage, grid: Sequence[CvsiWeights]) -> list[dict[str, float]]:
    """Metrics of CVSI under each weighting."""
    from models.retrieval.gallery import Gallery
    from models.retrieval.sweeping import FusionWeights, sweep_top_k

    query_set, recipe = load_query_set(stage.root, stage.benchmark), stage.recipe
    assert isinstance(recipe, Recipe), stage.method
    sweep = [
        FusionWeights(
            tuple(query_weights(w.alpha, w.beta)[part] for part in QUERY_PARTS),
            tuple(gallery_weights(w.gamma)[part] for part in GALLERY_PARTS),
        )
        for w in grid
    ]
    views: dict[str, IndexedCategory] = {}
    lists: dict[str, list[Ints]] = {}
    for category in query_set.benchmark.galleries:
        made = stage.features(query_set, category)
        found = sweep_top_k(
            [_scaled(recipe, part, made.queries[part]) for part in QUERY_PARTS],
            [
                Gallery({part: made.gallery[part]}, functools.partial(_scaled_part, recipe, part))
                for part in GALLERY_PARTS
            ],
            sweep,
            made.depth,
            similarity=recipe.similarity,
            excluded=made.excluded,
        )
        views[category] = made.view
        lists[category] = [_all_rows(made, top.indices) for top in found]
    return _metrics(query_set.benchmark, views, lists, len(grid))


def _scaled(recipe: Recipe, part: str, features: Floats) -> Floats:
    """A part as it enters the sum."""
    return features if recipe.norms.get(part) == "as_is" else unit(features)


def _scaled_part(recipe: Recipe, part: str, features: Mapping[str, Floats]) -> Floats:
    return _scaled(recipe, part, features[part])


def sweep_shares(stage: RankingStage, grid: Sequence[float]) -> list[dict[str, Any]]:
    """Metrics of a late fusion of two methods under each weight of the second, best first.

    Args:
        stage: A ranking of the fusion in which both methods have a weight, its features made.
        grid: The weights to try.

    Raises:
        ValueError: the method is not a late fusion of two methods.
    """
    from models.retrieval.gallery import Gallery
    from models.retrieval.sweeping import blended_top_k

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
                Gallery(made.gallery, part.gallery_vectors),
            )
            for _, part in recipe.parts
        ]
        found = blended_top_k(
            spaces, [(1 - w, w) for w in grid], made.depth, excluded=made.excluded
        )
        views[category] = made.view
        lists[category] = [_all_rows(made, top.indices) for top in found]
    scored = _metrics(query_set.benchmark, views, lists, len(grid))
    rows = [({"weight": weight}, own) for weight, own in zip(grid, scored, strict=True)]
    return sorted_rows(rows, benchmark_facts(query_set.benchmark.name).metrics.main)


def _metrics(
    benchmark: Benchmark,
    views: Mapping[str, IndexedCategory],
    lists: Mapping[str, Sequence[Ints]],
    count: int,
) -> list[dict[str, float]]:
    """The metrics of each of some settings, whose lists are given by category."""
    return [
        metrics_from_lists(benchmark, views, {category: own[i] for category, own in lists.items()})
        for i in range(count)
    ]


def sorted_rows(
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]], main: str
) -> list[dict[str, Any]]:
    """Settings and their metrics in one row each, without those of single categories."""
    shown = [
        {
            **tried,
            main: round(metrics[main], 3),
            **{name: round(value, 3) for name, value in metrics.items() if "/" not in name},
        }
        for tried, metrics in rows
    ]
    return sorted(shown, key=lambda row: -row[main])


def _all_rows(made: CategoryFeatures, indices: Ints) -> Ints:
    """Lists of all queries of a category; queries without features get an empty one."""
    return lists_of_all(len(made.view.queries), made.rows, indices)
