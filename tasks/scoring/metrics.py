"""From rankings or scores of a benchmark's queries to its published metrics.

Joins storage's integer view of a benchmark with the metric engine. Every benchmark has the
same two doors: score blocks (features at hand) and ranked lists (a search, a file).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from models.retrieval.metrics import (
    Ints,
    Ranks,
    Scores,
    circo_metrics,
    cirr_metrics,
    cirr_recalls,
    cirr_subset_recalls,
    fashioniq_metrics,
    ranks_in_lists,
    ranks_in_score_blocks,
)
from storage.benchmarks.errors import BenchmarkError, HiddenTargets
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.records import Benchmark


def metrics_from_scores(
    benchmark: Benchmark,
    views: Mapping[str, IndexedCategory],
    blocks: Mapping[str, Iterable[Scores]],
) -> dict[str, float]:
    """All metrics of a benchmark from streamed score blocks.

    Args:
        benchmark: With public targets.
        views: Category -> its integer view (``index_category``).
        blocks: Category -> (B, G) score blocks in query order, columns in gallery order.

    Returns:
        Metric name -> percent.

    Raises:
        HiddenTargets: when the split's targets are not public.
        ValueError: for blocks that do not fit the view.
    """
    require_targets(benchmark)
    ranks: dict[str, Ranks] = {}
    subset_ranks: Ranks | None = None
    for category, view in views.items():
        found = ranks_in_score_blocks(
            blocks[category],
            view.targets,
            excluded=view.references if benchmark.exclude_reference else None,
            subsets=view.subsets if view.subsets.shape[1] else None,
        )
        ranks[category], subset_ranks = found.full, found.subset
    return metrics_from_ranks(benchmark, views, ranks, subset_ranks)


def metrics_from_lists(
    benchmark: Benchmark,
    views: Mapping[str, IndexedCategory],
    lists: Mapping[str, Ints] | None = None,
    subset_lists: Mapping[str, Ints] | None = None,
) -> dict[str, float]:
    """The metrics that ranked lists can give.

    Args:
        benchmark: With public targets.
        views: Category -> its integer view.
        lists: Category -> (Q, depth) gallery indices, best first, exclusion applied; None
            when only groups were ranked.
        subset_lists: Category -> (Q, depth) group members, best first (CIRR).

    Raises:
        HiddenTargets: when the split's targets are not public.
        ValueError: when neither is given.
    """
    require_targets(benchmark)
    ranks, subset_ranks = (
        None
        if given is None
        else {key: ranks_in_lists(given[key], view.targets) for key, view in views.items()}
        for given in (lists, subset_lists)
    )
    first = None if subset_ranks is None else next(iter(subset_ranks.values()))[:, 0]
    return metrics_from_ranks(benchmark, views, ranks, first)


def metrics_from_ranks(
    benchmark: Benchmark,
    views: Mapping[str, IndexedCategory],
    ranks: Mapping[str, Ranks] | None,
    subset_ranks: Ranks | None,
) -> dict[str, float]:
    """The benchmark's metrics from (Q, T) ranks per category and (Q,) group ranks."""
    if ranks is None and subset_ranks is None:
        raise ValueError("give rankings of the gallery, of the groups, or both.")
    if benchmark.family not in _METRICS:
        known = ", ".join(_METRICS)
        raise BenchmarkError(f"No metrics for the style {benchmark.family!r}. Known: {known}.")
    return _METRICS[benchmark.family](views, ranks, subset_ranks)


def require_targets(benchmark: Benchmark) -> None:
    """Raise HiddenTargets unless every query's right answers are public."""
    if not benchmark.has_targets:
        raise HiddenTargets(
            f"{benchmark.name} {benchmark.split}: the targets are not public, so only the "
            "benchmark's evaluation server can score it. Write a submission file and upload it, or "
            "score the validation split."
        )


def _cirr(
    views: Mapping[str, IndexedCategory],
    ranks: Mapping[str, Ranks] | None,
    subset_ranks: Ranks | None,
) -> dict[str, float]:
    if ranks is None:
        return {} if subset_ranks is None else cirr_subset_recalls(subset_ranks)
    full = ranks[""][:, 0]
    return cirr_recalls(full) if subset_ranks is None else cirr_metrics(full, subset_ranks)


def _circo(
    views: Mapping[str, IndexedCategory],
    ranks: Mapping[str, Ranks] | None,
    subset_ranks: Ranks | None,
) -> dict[str, float]:
    if ranks is None:
        raise ValueError("CIRCO has no groups; give rankings of the gallery.")
    view = views[""]
    return circo_metrics(ranks[""], view.target_counts, [query.aspects for query in view.queries])


def _fashioniq(
    views: Mapping[str, IndexedCategory],
    ranks: Mapping[str, Ranks] | None,
    subset_ranks: Ranks | None,
) -> dict[str, float]:
    if ranks is None:
        raise ValueError("FashionIQ has no groups; give rankings of the gallery.")
    return fashioniq_metrics({category: each[:, 0] for category, each in ranks.items()})


_Summary = Callable[
    [Mapping[str, IndexedCategory], Mapping[str, Ranks] | None, Ranks | None], dict[str, float]
]
_METRICS: Mapping[str, _Summary] = {"cirr": _cirr, "circo": _circo, "fashioniq": _fashioniq}
