"""Rank counting against sorting name strings, at the size of CIRR's validation split.

The baseline does what evaluators of this field do: argsort every row, gather the gallery's
names into a queries x gallery matrix of strings, and compare names to drop the reference, find
the target and keep the group. Ours counts on integers. Both must give the same seven recalls.

    python -m bench.scoring
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.command_line import command_line
from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
from models.retrieval.metrics import percent, ranks_in_score_blocks, recalls
from storage.benchmarks.registry import benchmark_facts

QUERIES: Final = 4181
GALLERY: Final = 2297
MEMBERS: Final = 5
BLOCK: Final = 1024
METRICS: Final = benchmark_facts("cirr").metrics
DEMANDED_RATIO: Final = 50.0


@dataclass(frozen=True)
class Problem:
    """Random scores with the shapes of CIRR val; one reference, target and group per query."""

    scores: np.ndarray  # (Q, G) float32
    names: np.ndarray  # (G,) str
    references: np.ndarray  # (Q,)
    subsets: np.ndarray  # (Q, 5) without the reference
    targets: np.ndarray  # (Q,) one of the subset


def make_problem(seed: int = 0) -> Problem:
    """Distinct group members per query, names of CIRR's form."""
    random = np.random.default_rng(seed)
    groups = random.random((QUERIES, GALLERY)).argpartition(MEMBERS + 1, axis=1)[:, : MEMBERS + 1]
    return Problem(
        scores=random.random((QUERIES, GALLERY), dtype=np.float32),
        names=np.array([f"dev-{image}-{image % 4}-img{image % 2}" for image in range(GALLERY)]),
        references=groups[:, 0],
        subsets=groups[:, 1:],
        targets=groups[:, 1],
    )


def by_strings(problem: Problem) -> dict[str, float]:
    """The baseline: full argsort and comparisons of name matrices."""
    names = problem.names
    ordered = names[np.argsort(-problem.scores, axis=1)]
    kept = ordered != names[problem.references][:, None]
    ordered = ordered[kept].reshape(QUERIES, GALLERY - 1)
    labels = ordered == names[problem.targets][:, None]
    members = names[problem.subsets]
    grouped = (ordered[:, :, None] == members[:, None, :]).any(axis=2)
    group_labels = labels[grouped].reshape(QUERIES, MEMBERS)
    recalls = {f"recall@{k}": 100 * labels[:, :k].any(axis=1).mean() for k in METRICS.recalls}
    return recalls | {
        f"recall_subset@{k}": 100 * group_labels[:, :k].any(axis=1).mean()
        for k in METRICS.group_recalls
    }


def by_counting(problem: Problem) -> dict[str, float]:
    """Ours: ranks counted in streamed score blocks."""
    blocks = (problem.scores[start : start + BLOCK] for start in range(0, QUERIES, BLOCK))
    ranks = ranks_in_score_blocks(
        blocks, problem.targets, excluded=problem.references, subsets=problem.subsets
    )
    assert ranks.subset is not None
    found = recalls(ranks.full, METRICS.recalls)
    found |= recalls(ranks.subset, METRICS.group_recalls, "recall_subset")
    return {name: percent(values) for name, values in found.items()}


def main() -> Verdict:
    """Measure, and print the verdict."""
    problem = make_problem()
    by_counting(problem)
    timing = interleaved(lambda: by_strings(problem), lambda: by_counting(problem), least=3)
    ratio = statistics.median(timing.ratios)
    strings = statistics.median(timing.baseline_seconds)
    seconds = statistics.median(timing.seconds)
    difference = max(abs(timing.got[name] - recall) for name, recall in timing.expected.items())
    return report(
        "scoring",
        f"scoring at CIRR val size: {ratio:.0f}x an argsort over name strings (demanded "
        f"{DEMANDED_RATIO:.0f}x), {strings:.2f} s against {seconds:.3f} s, "
        f"largest difference {difference:.0e}",
        judge(timing.ratios, at_least=DEMANDED_RATIO) if difference < 1e-9 else "MISSED",
        {
            "ratio": ratio,
            "demanded": DEMANDED_RATIO,
            "difference": difference,
            "ratios": timing.ratios,
            "baseline_seconds": strings,
            "seconds": seconds,
            "queries": QUERIES,
            "gallery": GALLERY,
        },
    )


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    sys.exit(exit_status([main()]))
