"""From rankings or scores of a benchmark's queries to its published metrics.

Joins storage's integer view of a benchmark, and the metrics that its facts name, with the metric
engine. Every benchmark has the same two inputs: score blocks and ranked lists (a search, a file).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from models.retrieval.audit import first_hits
from models.retrieval.metrics import (
    Ints,
    Ranks,
    Scores,
    Values,
    average,
    average_precision,
    average_precisions,
    by_aspect,
    joined,
    negatives_found,
    percent,
    ranks_in_lists,
    ranks_in_score_blocks,
    recalls,
)
from storage.benchmarks.errors import HiddenTargets
from storage.benchmarks.facts import Metrics
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import benchmark_facts


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
    chosen = benchmark_facts(benchmark.name).metrics
    ranks = list_ranks(views, lists, subset_lists)
    return summed_up(chosen, query_metrics(chosen, views, *ranks, negative_ranks(views, lists)))


def list_ranks(
    views: Mapping[str, IndexedCategory],
    lists: Mapping[str, Ints] | None,
    subset_lists: Mapping[str, Ints] | None,
) -> tuple[dict[str, Ranks] | None, Ranks | None]:
    """(Q, T) ranks in the galleries by category, and (Q,) ranks in the groups."""
    ranks, subset_ranks = (
        None
        if given is None
        else {key: ranks_in_lists(given[key], view.targets) for key, view in views.items()}
        for given in (lists, subset_lists)
    )
    return ranks, None if subset_ranks is None else next(iter(subset_ranks.values()))[:, 0]


def negative_ranks(
    views: Mapping[str, IndexedCategory], lists: Mapping[str, Ints] | None
) -> dict[str, Ranks] | None:
    """(Q, N) ranks of the images named as wrong, by category; None without galleries ranked."""
    if lists is None:
        return None
    return {key: ranks_in_lists(lists[key], view.negatives) for key, view in views.items()}


def metrics_from_ranks(
    benchmark: Benchmark,
    views: Mapping[str, IndexedCategory],
    ranks: Mapping[str, Ranks] | None,
    subset_ranks: Ranks | None,
) -> dict[str, float]:
    """The benchmark's metrics from (Q, T) ranks per category and (Q,) group ranks."""
    chosen = benchmark_facts(benchmark.name).metrics
    return summed_up(chosen, query_metrics(chosen, views, ranks, subset_ranks))


def query_metrics(
    chosen: Metrics,
    views: Mapping[str, IndexedCategory],
    ranks: Mapping[str, Ranks] | None,
    subset_ranks: Ranks | None,
    negatives: Mapping[str, Ranks] | None = None,
) -> list[dict[str, Values]]:
    """The score of each query in each metric that the ranks can give, category by category.

    Args:
        chosen: Which metrics.
        views: Category -> its integer view.
        ranks: Category -> (Q, T) ranks in the gallery, the annotated target first.
        subset_ranks: (Q,) ranks in the queries' groups, where there is a single category.
        negatives: Category -> (Q, N) ranks of images named as wrong; None: without their metrics.

    Returns:
        One for each category; a single one of all queries where the metrics are pooled.

    Raises:
        ValueError: The ranks give no metric of the benchmark.
    """
    if ranks is None and subset_ranks is None:
        raise ValueError("give rankings of the gallery, of the groups, or both.")
    if ranks is None and not chosen.group_recalls:
        raise ValueError("the benchmark has no groups; give rankings of the gallery.")
    found = []
    for category, view in views.items():
        own: dict[str, Values] = {}
        if ranks is not None:
            own |= _gallery_metrics(chosen, category, view, ranks[category])
            if negatives is not None and chosen.negatives:
                hits = first_hits(ranks[category])
                own |= negatives_found(negatives[category], hits, chosen.negatives)
        if subset_ranks is not None:
            own |= recalls(subset_ranks, chosen.group_recalls, "recall_subset")
        if chosen.averaged and own.keys() >= {*chosen.averaged}:
            own["average"] = average([own[name] for name in chosen.averaged])
        found.append(own)
    if chosen.pooled:
        return [{name: joined([own[name] for own in found]) for name in found[0]}] if found else []
    return found


def query_hits(
    chosen: Metrics, ranks: Mapping[str, Ranks] | None, subset_ranks: Ranks | None
) -> list[Ranks]:
    """For each category (Q,) the rank of each query's best-ranked right answer.

    The arguments are those of `query_metrics`. Ranks are those of the gallery; in the groups where
    the benchmark has no other metric.
    """
    if ranks is None or chosen.of_groups:
        return [] if subset_ranks is None else [subset_ranks]
    found = [first_hits(own) for own in ranks.values()]
    return [joined(found)] if chosen.pooled else found


def _gallery_metrics(
    chosen: Metrics, category: str, view: IndexedCategory, ranks: Ranks
) -> dict[str, Values]:
    own = average_precisions(ranks, view.target_counts, chosen.average_precisions)
    if chosen.whole_precision:
        own = {"map": average_precision(ranks, view.target_counts), **own}
    for name, values in recalls(ranks[:, 0], chosen.recalls).items():
        own |= (
            {f"{name}/{category}": values, f"{name}/average": values}
            if chosen.by_category
            else {name: values}
        )
    if depth := chosen.aspect_precision:
        values = average_precisions(ranks, view.target_counts, [depth])[f"map@{depth}"]
        own |= by_aspect(f"map@{depth}", values, [query.aspects for query in view.queries])
    return own


def summed_up(chosen: Metrics, categories: Sequence[Mapping[str, Values]]) -> dict[str, float]:
    """Metric -> percent: means over queries, then over categories.

    Raises:
        ValueError: No category was given.
    """
    if not categories:
        raise ValueError("no category was given; a benchmark needs at least one.")
    names = list(dict.fromkeys(name for own in categories for name in own))
    if chosen.by_category:  # a metric's categories first, their average after them
        bases = list(dict.fromkeys(name.partition("/")[0] for name in names))
        names.sort(key=lambda n: (bases.index(n.partition("/")[0]), n.endswith("/average")))
    metrics: dict[str, float] = {}
    for name in names:
        found = [percent(own[name]) for own in categories if name in own]
        metrics[name] = sum(found) / len(found)
    if "average" in metrics:
        metrics["average"] = sum(metrics[n] for n in chosen.averaged) / len(chosen.averaged)
    return metrics


def require_targets(benchmark: Benchmark) -> None:
    """Raise HiddenTargets unless every query's right answers are public."""
    if not benchmark.has_targets:
        raise HiddenTargets(
            f"{benchmark.name} {benchmark.split}: the targets are not public, so only the "
            "benchmark's evaluation server can score it. Write a submission file and upload it, or "
            "score the validation split."
        )
