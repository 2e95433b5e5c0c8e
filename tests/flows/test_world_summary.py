"""The summary over several embedded worlds, against draws worked by hand."""

import numpy as np
import pytest

from tasks.scoring.scores import MethodScores


def scored(value: float, draws: list[float]) -> MethodScores:
    return MethodScores(
        metrics={"recall@1": value},
        intervals={},
        queries=10,
        coverage=1.0,
        protocol={},
        draws={"recall@1": np.array(draws)},
    )


SCORES = {
    "cvsi": [scored(60.0, [50.0, 70.0, 60.0]), scored(80.0, [70.0, 90.0, 80.0])],
    "instructcir": [scored(40.0, [36.0, 48.0, 42.0]), scored(50.0, [44.0, 52.0, 48.0])],
}


@pytest.mark.parametrize(
    ("against", "other", "means"),
    [("cvsi", "instructcir", [20.0, 30.0, 25.0]), ("instructcir", "cvsi", [-20.0, -30.0, -25.0])],
)
def test_differences_are_paired_and_averaged_over_worlds(
    against: str, other: str, means: list[float]
) -> None:
    from flows.evaluate_world import as_markdown, sum_up

    rows = {row["method"]: row for row in sum_up(SCORES, "recall@1", against)}
    assert [row["method"] for row in sum_up(SCORES, "recall@1", against)] == ["cvsi", "instructcir"]
    assert (rows["cvsi"]["mean"], rows["cvsi"]["seeds"], rows["cvsi"]["queries"]) == (
        70.0,
        [60.0, 80.0],
        20,
    )
    assert "behind" not in rows[against]
    assert rows[other]["behind"] == pytest.approx(np.mean(means))
    assert rows[other]["behind_interval"] == [
        pytest.approx(float(np.quantile(means, q)), abs=0.01) for q in (0.025, 0.975)
    ]
    page = as_markdown({"cirr": list(rows.values())}, [3, 4], against)
    assert f"| {against} minus it |" in page
    assert "seeds 3, 4" in page


def test_a_method_that_is_not_scored_gives_no_differences() -> None:
    from flows.evaluate_world import sum_up

    assert all("behind" not in row for row in sum_up(SCORES, "recall@1", "ldre"))
