"""Several embedded worlds: names of their collections, and the summary against draws by hand."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.scoring.scores import MethodScores

if TYPE_CHECKING:
    from flows.requests.evaluate_world import WorldKind


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
    "instructcir": [scored(41.0, [36.0, 48.0, 42.0]), scored(50.0, [44.0, 52.0, 48.0])],
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
    assert rows[other]["behind"] == rows[against]["mean"] - rows[other]["mean"] != np.mean(means)
    assert rows[other]["behind_interval"] == [
        pytest.approx(float(np.quantile(means, q)), abs=0.01) for q in (0.025, 0.975)
    ]
    page = as_markdown({"cirr": list(rows.values())}, [3, 4], against)
    assert f"| {against} minus it |" in page
    assert "seeds 3, 4" in page


def test_a_method_that_is_not_scored_gives_no_differences() -> None:
    from flows.evaluate_world import sum_up

    assert all("behind" not in row for row in sum_up(SCORES, "recall@1", "ldre"))


def test_drawn_worlds_of_other_sizes_have_other_names() -> None:
    from embedded_world.benchmarks import WorldSize
    from flows.evaluate_world import USUAL, drawn_name

    assert drawn_name("cirr", 0, USUAL) == "cirr-val-seed-0"
    small = WorldSize(subsets=9, circo_queries=300, fashion_queries=100)
    names = [drawn_name(name, 0, small) for name in ("cirr", "circo", "fashioniq")]
    assert names == ["cirr-val-seed-0-of-9", "circo-val-seed-0", "fashioniq-val-seed-0"]


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("usual", "world-0"), ("harder", "harder-world-0"), ("pointing", "pointing-world-0")],
)
def test_the_drawing_of_a_benchmark_is_shown_and_its_reuse_is_not(
    tmp_path: Path, kind: WorldKind, folder: str
) -> None:
    from embedded_world.benchmarks import WorldSize
    from flows.evaluate_world import draw_world
    from flows.running import shown_by

    size = WorldSize(1, 1, 1, 1, 1, 1)
    seen: list[str] = []

    def display(title: str, todo: int, present: int) -> AbstractContextManager[Any]:
        seen.append(title)
        return nullcontext()

    for _ in range(2):
        with shown_by(display):
            draw_world.fn(tmp_path / folder, size, 0, kind, ["circo"])
    assert seen == [f"draw {folder}/circo"]
