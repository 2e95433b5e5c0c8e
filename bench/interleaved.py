"""Time two ways of doing one thing fairly: in turns, in one process, by processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.verdict import is_steady

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Timing(Generic[Result]):
    """Processor seconds of both ways, turn by turn, and what each gave last."""

    baseline_seconds: tuple[float, ...]
    seconds: tuple[float, ...]
    expected: Result
    got: Result

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours is than the baseline, pair by pair of turns."""
        return [base / own for base, own in zip(self.baseline_seconds, self.seconds, strict=True)]


def interleaved(
    baseline: Callable[[], Result],
    ours: Callable[[], Result],
    least: int = 5,
    most: int = 15,
    budget_seconds: float = 60.0,
    clock: Callable[[], float] = time.process_time,
) -> Timing[Result]:
    """Run both in turns until their ratios are steady.

    Args:
        baseline: What ours is compared with.
        ours: Work of the same result.
        least: Pairs of turns that are always run.
        most: Pairs after which unsteady ratios are left as they are.
        budget_seconds: Wall time after which no pair beyond `least` begins.
        clock: Seconds of the processor: of all threads, or of this one (`time.thread_time`) for
            work of one thread, where threads of a library spin while they wait.
    """
    begun = time.perf_counter()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < least or (
        len(pairs) < most
        and time.perf_counter() - begun < budget_seconds
        and not is_steady([base / own for base, own in pairs])
    ):
        start = clock()
        expected = baseline()
        middle = clock()
        got = ours()
        pairs.append((middle - start, clock() - middle))
    baseline_seconds, seconds = zip(*pairs, strict=True)
    return Timing(baseline_seconds, seconds, expected, got)
