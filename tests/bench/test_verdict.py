"""How benchmarks judge: by medians of interleaved turns, and not at all where these differ."""

from __future__ import annotations

import pytest

from bench.interleaved import interleaved
from bench.verdict import NOT_JUDGED, exit_status, is_steady, judge, spread


def test_the_spread_is_the_middle_half_relative_to_the_median() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((4 - 2) / 3)
    assert spread([2.0, 2.0, 2.0]) == 0


@pytest.mark.parametrize(
    ("values", "bounds", "verdict"),
    [
        ([0.9, 0.95, 1.0], {"at_least": 0.85}, "ok"),
        ([0.7, 0.75, 0.8], {"at_least": 0.85}, "MISSED"),
        ([1.0, 1.1, 1.2], {"at_most": 1.15}, "ok"),
        ([1.1, 1.2, 1.3], {"at_most": 1.15}, "MISSED"),
        # What a busy machine gave, and what used to be called ok.
        ([0.5, 1.62, 2.1, 1.7, 0.6], {"at_least": 0.85}, "not judged"),
        ([0.43, 1.0, 0.8, 0.3], {"at_most": 1.15}, "not judged"),
        ([1.0], {"at_least": 0.85}, "not judged"),
    ],
)
def test_verdicts(values: list[float], bounds: dict[str, float], verdict: str) -> None:
    assert judge(values, **bounds) == verdict


def test_one_outlier_does_not_count() -> None:
    assert is_steady([1.0, 1.0, 1.02, 9.0, 1.01])


def test_exit_statuses_tell_missed_from_not_judged() -> None:
    assert exit_status(["ok", "ok"]) == 0
    assert exit_status(["ok", "not judged"]) == NOT_JUDGED
    assert exit_status(["not judged", "MISSED"]) == 1


def test_turns_are_taken_in_pairs_until_they_agree() -> None:
    """A clock by hand says what each turn costs."""
    clock, turns = [0.0], []
    costs = iter([1, 1, 1, 4, 1, 2, 1, 2, 1, 2, 1, 2])

    def turn(name: str) -> str:
        turns.append(name)
        clock[0] += next(costs)
        return name

    timing = interleaved(
        lambda: turn("theirs"), lambda: turn("ours"), least=3, most=6, clock=lambda: clock[0]
    )
    assert turns == ["theirs", "ours"] * 5
    assert timing.ratios == [1, 0.25, 0.5, 0.5, 0.5]
    assert (timing.expected, timing.got) == ("theirs", "ours")
