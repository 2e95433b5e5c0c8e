"""Score a predictions file: annotations and file to metrics, without images and Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.benchmarks.predictions import read_predictions
from storage.benchmarks.registry import benchmark_facts, load_annotations
from storage.tables.keys import JsonValue
from tasks.scoring.metrics import metrics_from_lists, require_targets


@dataclass(frozen=True)
class PredictionScores:
    """Scores of one predictions file, with the protocol that made them.

    Attributes:
        metrics: Metric name -> percent.
        protocol: Every choice that changes a number, and the number of queries.
    """

    metrics: Mapping[str, float]
    protocol: Mapping[str, JsonValue]


def score_predictions(
    benchmark: str,
    split: str,
    annotations_dir: str | Path,
    predictions_path: str | Path,
    **options: Any,
) -> dict[str, float]:
    """Metrics of a predictions file in the benchmark's submission form.

    Args:
        benchmark: A name in the registry, such as ``cirr``.
        split: A split with public targets, such as ``val``.
        annotations_dir: The benchmark's folder in its published layout.
        predictions_path: In the benchmark's submission form; see its file in
            ``storage/benchmarks``.
        options: Protocol switches of the benchmark's loader.

    Returns:
        Metric name -> percent.

    Raises:
        BenchmarkError: for unusable annotations or predictions, and for hidden targets.
    """
    return dict(
        score_with_protocol(benchmark, split, annotations_dir, predictions_path, **options).metrics
    )


def score_with_protocol(
    benchmark: str,
    split: str,
    annotations_dir: str | Path,
    predictions_path: str | Path,
    **options: Any,
) -> PredictionScores:
    """As ``score_predictions``, with the protocol for a ledger row or a printed line."""
    loaded = load_annotations(benchmark, annotations_dir, split, **options)
    require_targets(loaded)
    predictions = read_predictions(loaded, benchmark_facts(benchmark).predictions, predictions_path)
    by_kind = {"lists" if predictions.kind == "ranking" else "subset_lists": predictions.lists}
    metrics = metrics_from_lists(loaded, predictions.categories, **by_kind)
    protocol: dict[str, JsonValue] = {
        **loaded.protocol,
        "predictions": predictions.kind,
        "queries": len(loaded.queries),
        "gallery_size": {key: len(names) or None for key, names in loaded.galleries.items()},
    }
    return PredictionScores(metrics, protocol)
