"""The benchmark of a training step runs, with as many bare steps as ours."""

from __future__ import annotations

import pytest


@pytest.mark.slow  # torch and Lightning
def test_the_benchmark_runs_in_small() -> None:
    from bench.reformulation_step import SIZES, measure

    spec, _, _, _ = SIZES["embedded"]
    ours, bare = measure(spec, 4, 3)
    assert len(ours) == len(bare) == 3
