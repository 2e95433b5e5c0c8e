"""Curves of a training: means done by hand, charts of what was logged, the page."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from tasks.report.charts import chart_markdown
from tasks.training.curves import (
    LOGGED_POINTS,
    POINTS,
    curves_page,
    history_charts,
    history_in_words,
    loss_points,
    validation_table,
)
from tasks.training.folder import History


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


def history(steps: int, temperature: float = 0.0) -> History:
    """A training with noisy losses, whose recall grows with each of ten validations."""
    noise = random.Random(0)
    points = [
        {
            "step": float(step),
            "loss": 3.0 / step + noise.random(),
            "lr_new": 1e-3 * noise.random(),
            "lr_pretrained": 1e-4 * noise.random(),
            "momentum": 0.996 + 1e-3 * noise.random(),
            "gradient_norm": noise.random(),
            "temperature": 0.07 + temperature * step,
        }
        for step in range(1, steps + 1)
    ]
    validations = [
        {
            "step": float(steps // 10 * (i + 1)),
            **{f"{branch}_recall_{k}": 0.1 * i for branch in ("online", "ema") for k in (1, 5)},
        }
        for i in range(10)
    ]
    return History(points, validations, {"step": validations[8]["step"]}, True)


def test_charts_are_the_curves_that_were_logged() -> None:
    titles = [chart.title for chart in history_charts(history(20))]
    assert titles == [
        "Training loss",
        "Recall of held-out triplets, percent",
        "Learning rates",
        "Momentum of the moving average",
        "Norm of the gradient before clipping",
    ]
    assert history_charts(history(20, temperature=1e-3))[-1].title == "Temperature"
    (only,) = history_charts(History([{"step": 1.0, "loss": 2.0}], [], {}, True))
    assert only.curves[0].points == ((1.0, 2.0),)


def test_recall_is_in_percent_and_the_moving_average_is_dashed_in_the_same_colour() -> None:
    recall = history_charts(history(20))[1]
    assert [curve.name for curve in recall.curves] == [
        "online R@1",
        "online R@5",
        "ema R@1",
        "ema R@5",
    ]
    assert recall.curves[0].points[:3] == ((2.0, 0.0), (4.0, 10.0), (6.0, 20.0))
    assert [(c.colour, c.dashed) for c in recall.curves] == [
        (0, False), (1, False), (0, True), (1, True),
    ]  # fmt: skip


def test_a_long_training_still_fits_into_an_artifact() -> None:
    from tasks.artifacts import LARGEST

    charts = history_charts(history(20_000, temperature=1e-6))
    assert len(charts) == 6
    assert max(len(curve.points) for chart in charts for curve in chart.curves) == LOGGED_POINTS
    assert sum(len(chart_markdown(chart)) for chart in charts) < LARGEST


def test_the_page_is_the_same_in_every_run_and_loads_nothing() -> None:
    page = curves_page("network <x>", history(30))
    assert page == curves_page("network <x>", history(30))
    assert page.count("<svg") == 5
    assert "network &lt;x&gt;" in page
    assert "The weights of step 27 are kept: R@1 80.0 and R@5 80.0 percent" in page
    assert not re.search(r'(?:src|href)="(?!#)|style="|\bon\w+="', page)


def test_the_kept_validation_is_marked() -> None:
    lines = validation_table(history(30)).splitlines()
    assert lines[0] == "| step | online R@1 | online R@5 | ema R@1 | ema R@5 | |"
    assert [line for line in lines if "kept" in line] == [
        "| 27 | 80.0 | 80.0 | 80.0 | 80.0 | kept |"
    ]


@pytest.mark.parametrize(
    ("waited", "said"), [(0.0, ""), (3.0, "3% of the time: bound by compute."), (21.0, "21%")]
)
def test_the_summary_says_what_bounds_the_steps(waited: float, said: str) -> None:
    history = History([{"step": 4.0, "loss": 0.5}], seconds=100.0, waited=waited)
    text = history_in_words(history)
    assert said in text
    assert ("waited" in text) == bool(said)
    assert ("bound by data; raise run.workers" in text) == (waited > 20)
