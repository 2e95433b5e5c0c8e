"""CVSI's Figure 4 from cached features: each point is what a ranking with that setting scores."""

from __future__ import annotations

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import IncompleteTable
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.report.charts import Chart, Contours, chart_svg
from tasks.report.sweeps import figure_charts, sweeps_page
from tasks.scoring.figure_four import FigureFour, plan_figure, read_figure
from tasks.scoring.scores import score_ranking
from tasks.settings import Profile
from tasks.stages.stage import in_order
from tests.fakes.drawn import small_profile
from tests.fakes.filled_tables import fill

SIZE = WorldSize(subsets=2, circo_queries=6, fashion_queries=2, distractors=8)
N = 3
CODE = {"caption_mean": "unit_mean", "similarity": "dot", "part_norms": "code"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, BenchmarkRef]:
    """A drawn CIRCO, and the tiny profile with three captions an image."""
    folder = tmp_path_factory.mktemp("figure")
    write_world(folder / "world", SIZE, seed=11)
    ref = BenchmarkRef(name="circo", root=str(folder / "world" / "circo"))
    profile = small_profile(folder / "tables", captions=N, shard=64)
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    return profile, ref


def changed(profile: Profile, **values: object) -> Profile:
    return profile.model_copy(update={"cvsi": profile.cvsi.changed(**values)})


def scored(profile: Profile, ref: BenchmarkRef, **weights: float) -> float:
    """The main metric of an ordinary ranking."""
    own = profile.cvsi.weights_for("circo").changed(**weights)
    profile = changed(profile, weights={**profile.cvsi.weights, "circo": own})
    (ranking,) = plan_evaluation(profile, ref, ["cvsi"]).rankings
    for stage in in_order([ranking]):
        fill(stage)
    return score_ranking(ranking, resamples=2).metrics["map@10"]


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{}, CODE])
def test_each_point_is_the_score_of_a_ranking_with_that_setting(
    world: tuple[Profile, BenchmarkRef], choices: dict[str, object]
) -> None:
    profile, ref = changed(world[0], **choices), world[1]
    plan = plan_figure(profile, ref, step=0.5, targets=N)
    with pytest.raises(IncompleteTable):
        read_figure(plan)
    made = [fill(stage) for stage in plan.stages]
    assert sum(made) > 0
    assert [fill(stage) for stage in plan.stages] == [0] * len(made)
    figure = read_figure(plan)
    own = profile.cvsi.weights_for("circo")
    assert len(figure.plane) == 6 + 1  # a grid, and the profile's own
    for alpha, beta, value in figure.plane:
        assert value == pytest.approx(scored(profile, ref, alpha=alpha, beta=beta))
    assert [gamma for gamma, _ in figure.line] == [0, 0.5, 1]
    for gamma, value in figure.line:
        assert value == pytest.approx(scored(profile, ref, gamma=gamma))
    assert [n for n, _ in figure.targets] == [1, 2, 3]
    for n, value in figure.targets:
        assert value == pytest.approx(scored(changed(profile, target_captions=n), ref))
    assert (figure.metric, figure.weights) == ("map@10", own)


def test_the_figure_is_drawn_with_its_best_points() -> None:
    from models.retrieval.cvsi_settings import CvsiWeights

    figure = FigureFour(
        benchmark="<b>CIRCO</b> val",
        metric="map@10",
        weights=CvsiWeights(alpha=0.5, beta=0, gamma=0.5),
        plane=((0, 0, 10.0), (0.5, 0, 15.0), (0.5, 0.5, 31.25), (0, 1, 12.0), (1, 0, 20.0)),
        line=((0, 10.0), (0.5, 15.0), (1, 12.0)),
        targets=((1, 9.0), (2, 16.5), (3, 15.0)),
    )
    plane, line, targets = figure_charts(figure)
    assert isinstance(plane, Contours)
    assert isinstance(line, Chart)
    assert isinstance(targets, Chart)
    assert [name for name, _ in plane.marks] == [
        "best: 0.5, 0.5 (31.25)",
        "profile: 0.5, 0 (15.00)",
    ]
    assert [curve.name for curve in line.curves] == ["swept", "best: 0.5 (15.00)"]
    assert [curve.name for curve in targets.curves] == ["swept", "best: 2 (16.50)"]
    svg = chart_svg(plane)
    assert svg == chart_svg(plane)
    assert "best: 0.5, 0.5 (31.25)" in svg
    assert "<style" not in svg
    assert " style=" not in svg
    page = sweeps_page([figure], embedded=True)
    assert "<b>CIRCO" not in page
    assert page.count("<svg") == 3
    assert "Embedded world." in page


def test_a_plane_on_which_nothing_differs_is_drawn() -> None:
    points = ((0.0, 0.0, 5.0), (0.0, 1.0, 5.0), (1.0, 0.0, 5.0))
    assert "<svg" in chart_svg(Contours("flat", points, "x", "y"))
