"""Predictions of others in the ledger, and rankings made here as predictions files.

An imported row is labelled by its file: its facet `source` says the name and the hash, so that it
is never taken for a row that was made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.retrieval.bootstrap import bootstrap, interval
from storage.benchmarks.indexing import IntArray
from storage.benchmarks.predictions import Predictions, read_predictions
from storage.benchmarks.registry import benchmark_facts, load_annotations
from storage.benchmarks.submissions import SubmissionFile, validated_file, write_submission
from storage.exchange.sources import ExchangeError, SourceFile
from storage.tables.keys import content_key
from tasks.query_sets import WORLD_NOTE
from tasks.scoring.metrics import (
    list_ranks,
    negative_ranks,
    query_metrics,
    require_targets,
    summed_up,
)
from tasks.scoring.scores import MethodScores, Scored, read_ranking, record
from tasks.stages.rankings import RankingStage

PRODUCER = "cirflow/imported_predictions/1"


def import_predictions(
    root: str,
    files: Sequence[SourceFile],
    benchmark: str,
    split: str,
    folder: str,
    method: str,
    backbone: str = "",
    not_zero_shot: str = "",
) -> tuple[MethodScores, int]:
    """Score predictions and write them to the ledger; returns the scores and the new rows.

    Args:
        root: Root of the tables.
        files: One file in the benchmark's submission form; of CIRR the recall file, the
            recall_subset file, or both.
        benchmark: Name of the benchmark.
        split: A split with public targets.
        folder: The benchmark's folder; its images are not needed.
        method: Name of the method that made them, for the ledger.
        backbone: Its backbone, for the ledger.
        not_zero_shot: Why it is not zero-shot; empty where it is.

    Raises:
        ExchangeError: two files rank the same.
        BenchmarkError: unusable annotations or predictions, or hidden targets.
    """
    loaded = load_annotations(benchmark, folder, split)
    require_targets(loaded)
    chosen = benchmark_facts(benchmark)
    read: dict[str, Predictions] = {}
    for file in files:
        found = read_predictions(loaded, chosen.predictions, file.path)
        if found.kind in read:
            raise ExchangeError(f"{file.path}: a second file of the kind {found.kind}; give one")
        read[found.kind] = found
    views = next(iter(read.values())).categories
    lists = {kind: predictions.lists for kind, predictions in read.items()}
    ranks = list_ranks(views, lists.get("ranking"), lists.get("subset"))
    negatives = negative_ranks(views, lists.get("ranking"))
    single = query_metrics(chosen.metrics, views, *ranks, negatives)
    metrics, draws = summed_up(chosen.metrics, single), bootstrap(single)
    made_from = {
        "producer": PRODUCER,
        "files": sorted(file.sha256 for file in files),
        "benchmark": benchmark,
        "split": split,
        "method": method,
        "backbone": backbone,
        **({"not_zero_shot": not_zero_shot} if not_zero_shot else {}),
    }
    drawn = Path(folder, WORLD_NOTE).is_file()
    protocol: dict[str, Any] = {
        **loaded.protocol,
        "world": "embedded" if drawn else "real",
        "zero_shot": not not_zero_shot,
        "zero_shot_reason": not_zero_shot,
        "made": {"source": f"imported from {' and '.join(file.title for file in files)}"},
    }
    scores = MethodScores(
        metrics=metrics,
        intervals={name: interval(draws[name]) for name in metrics},
        draws=draws,
        queries=len(loaded.queries),
        coverage=1.0,
        protocol=protocol,
    )
    what = Scored(content_key(made_from), method, backbone, benchmark, split, made_from)
    return scores, record(root, [(what, scores)])


def export_predictions(stage: RankingStage, out: Path) -> list[Path]:
    """Write a ranking in its benchmark's submission form; returns the paths.

    A benchmark without a server has the form of its predictions file: category -> query index ->
    names, best first.

    Raises:
        IncompleteTable: the ranking was not made yet.
        SubmissionError: a file would not be read back as it is.
        ExchangeError: a file of other content would be written over.
    """
    stage.existing_table()
    ranked, facts = read_ranking(stage), benchmark_facts(stage.benchmark.name)
    loaded = stage.benchmark.load()
    if facts.submission is not None:
        files: Sequence[SubmissionFile] = facts.submission(
            loaded, ranked.lists, ranked.subset_lists
        )
    else:
        chosen = ranked.subset_lists if facts.metrics.of_groups else ranked.lists
        content = {
            category: {
                str(row): _names(ranked.views[category].gallery, places)
                for row, places in enumerate(lists)
            }
            for category, lists in chosen.items()
        }
        name = f"{facts.name}_{stage.benchmark.split}.json"
        files = [validated_file(loaded, facts.predictions, name, content)]
    for file in files:
        path = out / file.name
        if path.exists() and path.read_bytes() != file.payload:
            raise ExchangeError(f"{path} exists with other predictions; name another folder")
    return list(write_submission(files, out))


def _names(gallery: Sequence[str], places: IntArray) -> list[str]:
    return [gallery[place] for place in places if place >= 0]
