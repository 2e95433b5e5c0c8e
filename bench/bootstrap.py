"""Bootstrap intervals in array form against scoring every query by itself.

The baseline asks the metric engine for the metrics of one query at a time, as if it were a
benchmark of its own, and gathers them by name; then both take the same draws. At the size of CIRR's
validation split. Both must give equal draws, to the last digit.

    python -m bench.bootstrap
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bench.command_line import command_line
from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
from models.retrieval.bootstrap import RESAMPLES, Draws, bootstrap
from models.retrieval.metrics import Ints, Values, percent
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.records import Query
from storage.benchmarks.registry import benchmark_facts
from tasks.scoring.metrics import list_ranks, query_metrics

QUERIES: Final = 4181
DEMANDED_RATIO: Final = 4.0
METRICS: Final = benchmark_facts("cirr").metrics


@dataclass(frozen=True)
class Problem:
    """Ranked lists with the shapes of CIRR val; the targets are the gallery's first images."""

    view: IndexedCategory
    lists: Ints  # (Q, 50)
    groups: Ints  # (Q, 5)


def make_problem(seed: int = 0) -> Problem:
    """Lists in which the target stands anywhere or nowhere, groups in which it stands anywhere."""
    random = np.random.default_rng(seed)
    one = np.zeros((QUERIES, 1), np.int64)
    queries = tuple(Query(str(row), "reference", "text") for row in range(QUERIES))
    return Problem(
        IndexedCategory((), queries, one[:, 0], one, one[:, 0] + 1, one),
        random.permuted(np.tile(np.arange(80), (QUERIES, 1)), axis=1)[:, :50],
        random.permuted(np.tile(np.arange(5), (QUERIES, 1)), axis=1),
    )


def scored(problem: Problem) -> list[dict[str, Values]]:
    """What each query scores in each metric."""
    views = {"": problem.view}
    return query_metrics(
        METRICS, views, *list_ranks(views, {"": problem.lists}, {"": problem.groups})
    )


def one_query(problem: Problem, row: int) -> Problem:
    """One query as a benchmark of its own."""
    pick, view = slice(row, row + 1), problem.view
    alone = replace(
        view,
        queries=view.queries[pick],
        references=view.references[pick],
        targets=view.targets[pick],
        target_counts=view.target_counts[pick],
        subsets=view.subsets[pick],
    )
    return Problem(alone, problem.lists[pick], problem.groups[pick])


def one_by_one(problem: Problem) -> dict[str, Draws]:
    """The baseline."""
    single = [
        {name: percent(values) for name, values in scored(one_query(problem, row))[0].items()}
        for row in range(QUERIES)
    ]
    count = len(single)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    drawn = {}
    for name in dict.fromkeys(name for values in single for name in values):
        having = np.array([name in values for values in single])
        values = np.array([values.get(name, 0.0) for values in single])
        weights = times[:, having]
        drawn[name] = weights @ values[having] / np.maximum(weights.sum(axis=1), 1)
    return drawn


def as_arrays(problem: Problem) -> dict[str, Draws]:
    """Ours."""
    return bootstrap(scored(problem))


def main() -> Verdict:
    """Measure, and print the verdict."""
    problem = make_problem()
    # A thread of OpenBLAS spins after each product, for longer than ours takes as a whole.
    timing = interleaved(
        lambda: one_by_one(problem), lambda: as_arrays(problem), clock=time.thread_time
    )
    ratio = statistics.median(timing.ratios)
    baseline = statistics.median(timing.baseline_seconds)
    seconds = statistics.median(timing.seconds)
    got, expected = timing.got, timing.expected
    equal = got.keys() == expected.keys() and all((got[n] == expected[n]).all() for n in got)
    return report(
        "bootstrap",
        f"bootstrap at CIRR val size: {ratio:.1f}x scoring query by query (demanded "
        f"{DEMANDED_RATIO:.0f}x), {baseline:.2f} s against {seconds:.3f} s, "
        f"{'equal' if equal else 'OTHER'} draws",
        judge(timing.ratios, at_least=DEMANDED_RATIO) if equal else "MISSED",
        {
            "ratio": ratio,
            "demanded": DEMANDED_RATIO,
            "equal": equal,
            "ratios": timing.ratios,
            "baseline_seconds": baseline,
            "seconds": seconds,
            "queries": QUERIES,
            "resamples": RESAMPLES,
        },
    )


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    sys.exit(exit_status([main()]))
