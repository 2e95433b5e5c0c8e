"""Rank counting against sorting name strings, at the size of CIRR's validation split.

The baseline does what evaluators of this field do: argsort every row, gather the gallery's
names into a queries x gallery matrix of strings, and compare names to drop the reference, find
the target and keep the group. Ours counts on integers. Both must give the same seven recalls.

    python -m bench.scoring
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.retrieval.metrics import (
    CIRR_RECALLS,
    CIRR_SUBSET_RECALLS,
    cirr_metrics,
    ranks_in_score_blocks,
)

QUERIES: Final = 4181
GALLERY: Final = 2297
MEMBERS: Final = 5
BLOCK: Final = 1024
STRING_REPEATS: Final = 2
COUNT_REPEATS: Final = 10
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
    recalls = {f"recall@{k}": 100 * labels[:, :k].any(axis=1).mean() for k in CIRR_RECALLS}
    return recalls | {
        f"recall_subset@{k}": 100 * group_labels[:, :k].any(axis=1).mean()
        for k in CIRR_SUBSET_RECALLS
    }


def by_counting(problem: Problem) -> dict[str, float]:
    """Ours: ranks counted in streamed score blocks."""
    blocks = (problem.scores[start : start + BLOCK] for start in range(0, QUERIES, BLOCK))
    ranks = ranks_in_score_blocks(
        blocks, problem.targets, excluded=problem.references, subsets=problem.subsets
    )
    return cirr_metrics(ranks.full, ranks.subset if ranks.subset is not None else ranks.full)


def main() -> None:
    """Measure, print one line and one JSON line, and fail where the bound is missed."""
    problem = make_problem()
    counted = by_counting(problem)
    string_seconds, count_seconds = [], []
    for _ in range(STRING_REPEATS):
        start = time.perf_counter()
        sorted_recalls = by_strings(problem)
        string_seconds.append(time.perf_counter() - start)
        for _ in range(COUNT_REPEATS // STRING_REPEATS):
            start = time.perf_counter()
            counted = by_counting(problem)
            count_seconds.append(time.perf_counter() - start)
    ratio = min(string_seconds) / min(count_seconds)
    difference = float(max(abs(counted[name] - value) for name, value in sorted_recalls.items()))
    passed = ratio >= DEMANDED_RATIO and difference < 1e-9
    print(
        f"scoring at CIRR val size: {ratio:.0f}x an argsort over name strings (demanded "
        f"{DEMANDED_RATIO:.0f}x), {min(string_seconds):.2f} s against {min(count_seconds):.3f} s, "
        f"largest difference {difference:.0e}: {'ok' if passed else 'MISSED'}"
    )
    print(
        json.dumps(
            {
                "bench": "scoring",
                "ratio": ratio,
                "demanded": DEMANDED_RATIO,
                "difference": difference,
                "string_seconds": min(string_seconds),
                "seconds": min(count_seconds),
                "queries": QUERIES,
                "gallery": GALLERY,
                "passed": passed,
            }
        )
    )
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
