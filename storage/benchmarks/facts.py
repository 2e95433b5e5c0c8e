"""The facts of a benchmark: one record, filled in by the benchmark's own file.

Metrics are named here and computed in `models.retrieval.metrics`; `tasks.scoring` joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from storage.benchmarks.predictions import PredictionForm
from storage.benchmarks.records import Benchmark
from storage.benchmarks.submissions import SubmissionFile

Lists: TypeAlias = Mapping[str, npt.NDArray[np.integer[Any]]]
"""Category -> (Q, depth) gallery indices, best first."""
SubmissionWriter: TypeAlias = Callable[[Benchmark, Lists, Lists], tuple[SubmissionFile, ...]]
"""From a benchmark, its rankings and the rankings inside its groups to the server's files."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split of a benchmark.

    Attributes:
        name: Its published name.
        targets: Whether its targets are public.
        offered: Whether it can be chosen where a run is started.
    """

    name: str
    targets: bool = True
    offered: bool = True


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics that a benchmark publishes, each in percent.

    Attributes:
        main: The metric that leaderboards are sorted by.
        recalls: Depths k of recall@k of the annotated target.
        group_recalls: Depths k of recall_subset@k, inside the query's group.
        average_precisions: Depths k of map@k over all right answers.
        aspect_precision: Depth k of map@k/ASPECT over the queries of each aspect; 0: none.
        by_category: Whether each recall is given for each category as recall@k/CATEGORY, and as
            their unweighted mean recall@k/average.
        averaged: Metrics whose mean is the metric `average`; empty: without that metric.
        pooled: Whether means are taken over all queries, and not over categories.
        whole_precision: Whether `map` is computed, over the whole ranking: every gallery is ranked
            to its end.
        negatives: Depth K of neg@K and any_neg@K, of images named as wrong; 0: none.
    """

    main: str
    recalls: tuple[int, ...] = ()
    group_recalls: tuple[int, ...] = ()
    average_precisions: tuple[int, ...] = ()
    aspect_precision: int = 0
    by_category: bool = False
    averaged: tuple[str, ...] = ()
    pooled: bool = False
    whole_precision: bool = False
    negatives: int = 0

    def __post_init__(self) -> None:
        """Refuse a metric that is named and not computed."""
        unknown = [name for name in (self.main, *self.averaged) if name not in self.names]
        if unknown:
            raise ValueError(f"metrics {', '.join(unknown)}; known: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics of every split, without those of single categories and aspects."""
        whole = "/average" if self.by_category else ""
        wrong = (f"neg@{self.negatives}", f"any_neg@{self.negatives}", "neg_before_pos")
        return (
            *(("map",) if self.whole_precision else ()),
            *(f"map@{k}" for k in self.average_precisions),
            *(f"recall@{k}{whole}" for k in self.recalls),
            *(f"recall_subset@{k}" for k in self.group_recalls),
            *(("average",) if self.averaged else ()),
            *(wrong if self.negatives else ()),
        )

    @property
    def of_groups(self) -> bool:
        """Whether the benchmark looks into the queries' groups only."""
        return not (self.whole_precision or self.average_precisions or self.recalls)

    @property
    def depths(self) -> tuple[int, ...]:
        """Ranks at which the benchmark looks into a gallery, or into a group where it has none."""
        named = {*self.recalls, *self.average_precisions}
        return tuple(sorted({*self.group_recalls} if self.of_groups else named))


@dataclass(frozen=True, kw_only=True)
class BenchmarkFacts:
    """One benchmark: its names, splits, metrics, file forms, and the keys of its settings.

    Attributes:
        name: Its name in the registry, in parameters and in the ledger.
        title: Its name in reports.
        load: (root, split, **protocol switches) -> the annotations of one split.
        splits: Its splits; the first offered one is the default.
        metrics: The metrics that are computed.
        columns: Metrics of a report's leaderboard, in order.
        terminal_columns: Metric -> heading, of the few that fit a terminal.
        predictions: How a predictions file is read.
        submission: Writes the files of its evaluation server; None without a server.
        family: The benchmark family whose prompts and fusion weights are used; empty: its own.
        paper: Its name in `models.retrieval.published_results`; empty: no paper is known.
        options: Protocol switches of an evaluation that differ from the loader's defaults.
    """

    name: str
    title: str
    load: Callable[..., Benchmark]
    splits: tuple[Split, ...]
    metrics: Metrics
    columns: tuple[str, ...]
    terminal_columns: Mapping[str, str]
    predictions: PredictionForm
    submission: SubmissionWriter | None = None
    family: str = ""
    paper: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the family; refuse columns that are not among the metrics."""
        if not self.family:
            object.__setattr__(self, "family", self.name)
        unknown = {*self.columns, *self.terminal_columns} - {*self.metrics.names}
        if unknown:
            raise ValueError(
                f"{self.name} has the columns {', '.join(sorted(unknown))}; "
                f"its metrics are {', '.join(self.metrics.names)}"
            )

    @property
    def offered_splits(self) -> tuple[str, ...]:
        """Names of the splits that can be chosen where a run is started."""
        return tuple(split.name for split in self.splits if split.offered)
