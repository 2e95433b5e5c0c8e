"""Points of a loss curve against means done by hand."""

from __future__ import annotations

import itertools

import pytest

from tasks.training.curves import POINTS, loss_points


def test_few_losses_are_shown_as_they_are() -> None:
    assert loss_points(1, [3.0, 2.0, 1.0]) == ((1, 3.0), (2, 2.0), (3, 1.0))


def test_many_losses_are_means_that_end_where_their_stretch_ends() -> None:
    points = loss_points(501, [float(i // 7) for i in range(7 * POINTS)])
    assert points == tuple((501 + 7 * (i + 1) - 1, float(i)) for i in range(POINTS))


def test_a_remainder_is_shared_out() -> None:
    losses = [float(i % 13) for i in range(2 * POINTS + 50)]
    points = loss_points(1, losses)
    assert len(points) == POINTS
    assert points[-1][0] == len(losses)
    ends = [0.0, *(step for step, _ in points)]
    lengths = [end - start for start, end in itertools.pairwise(ends)]
    assert set(lengths) == {2.0, 3.0}
    weighed = sum(n * mean for n, (_, mean) in zip(lengths, points, strict=True))
    assert weighed == pytest.approx(sum(losses))


def test_outside_a_task_nothing_is_asked_of_a_server() -> None:
    from tasks.training.curve_artifacts import show_losses

    show_losses("a key", "a title", 1, [1.0], "nowhere")
