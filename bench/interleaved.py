"""Time two ways of doing one thing fairly: in turns, in one process, the best of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Timing(Generic[Result]):
    """Best seconds of both ways, and what each gave."""

    baseline_seconds: float
    seconds: float
    expected: Result
    got: Result

    @property
    def ratio(self) -> float:
        """How many times faster ours is than the baseline."""
        return self.baseline_seconds / self.seconds


def best_of_interleaved(
    baseline: Callable[[], Result],
    ours: Callable[[], Result],
    repeats: int = 3,
    budget_seconds: float = 40.0,
) -> Timing[Result]:
    """Run both in turns, at least once each and `repeats` times if the budget allows."""
    best = [float("inf"), float("inf")]
    begun = time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        expected = baseline()
        middle = time.perf_counter()
        got = ours()
        end = time.perf_counter()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
        if end - begun > budget_seconds * (1 - 1 / repeats):
            break
    return Timing(best[0], best[1], expected, got)
