"""Whether a bound holds, and whether the measurements can tell: ok, MISSED or not judged."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any, Final, Literal

Verdict = Literal["ok", "MISSED", "not judged"]

WIDEST_SPREAD: Final = 0.25
"""Middle half of the measurements, relative to their median; a wider one is not judged."""


NOT_JUDGED: Final = 3
"""Exit status of a benchmark that cannot tell."""


def spread(values: Sequence[float]) -> float:
    """Distance of the quartiles, relative to the median."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / abs(median)


def is_steady(values: Sequence[float]) -> bool:
    """Whether the measurements agree well enough for a verdict."""
    return len(values) > 1 and spread(values) <= WIDEST_SPREAD


def judge(
    values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None
) -> Verdict:
    """Hold the median of repeated measurements against a bound."""
    if not is_steady(values):
        return "not judged"
    median = statistics.median(values)
    low = at_least is not None and median < at_least
    high = at_most is not None and median > at_most
    return "MISSED" if low or high else "ok"


def report(name: str, sentence: str, verdict: Verdict, facts: dict[str, Any]) -> Verdict:
    """Print one line for people and one of JSON; returns the verdict."""
    print(f"{sentence}: {verdict}")
    print(json.dumps({"bench": name, **facts, "verdict": verdict}), flush=True)
    return verdict


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """Of a process: 1 where a bound is missed, `NOT_JUDGED` where one cannot be told, else 0."""
    if "MISSED" in verdicts:
        return 1
    return NOT_JUDGED if "not judged" in verdicts else 0
