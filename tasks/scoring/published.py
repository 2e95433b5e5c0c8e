"""The published number that stands next to a result of a benchmark."""

from __future__ import annotations

from models.retrieval.published_results import Published, published_next_to
from storage.benchmarks.registry import BENCHMARKS


def published_for(
    benchmark: str, split: str, method: str, backbone: str, *, drawn: bool
) -> Published | None:
    """The published row with a benchmark's main metric to show next to a result.

    Args:
        benchmark: Name of the benchmark; one that is not registered has no published row.
        split: The split of the result.
        method: Its method.
        backbone: Its backbone, as tables name it; a network trained on top of it does not count.
        drawn: Whether the benchmark is a drawn one.
    """
    facts = BENCHMARKS.get(benchmark)
    if facts is None:
        return None
    plain = backbone.partition(" + ")[0]
    return published_next_to(method, facts.paper, split, plain, facts.metrics.main, drawn=drawn)
