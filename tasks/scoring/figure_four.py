"""CVSI's Figure 4: quality over alpha and beta, over gamma, and over N of the target captions.

All of it comes from cached features. The captions of the gallery are encoded once, each of them;
every smaller N is averaged from these vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.retrieval.cvsi_settings import CvsiWeights
from storage.benchmarks.registry import benchmark_facts
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef
from tasks.scoring.sweeps import SweepStage, grid_points, setting, weight_grid
from tasks.settings import Profile
from tasks.stages.stage import Stage, in_order

TARGET_CAPTIONS = 15
"""Largest N of the paper's curve."""


@dataclass(frozen=True)
class FigurePlan:
    """The stages behind the figure, and the settings that it shows.

    Attributes:
        weights: The profile's own weights: what is not swept has these.
        points: Values of alpha, beta and gamma.
        plane: Metrics over alpha and beta, and over gamma.
        targets: Metrics under the profile's weights, for N = 1, 2, ... captions of a target.
    """

    weights: CvsiWeights
    points: tuple[float, ...]
    plane: SweepStage
    targets: tuple[SweepStage, ...]

    @property
    def stages(self) -> list[Stage]:
        """Everything to be made, inputs first."""
        return in_order((self.plane, *self.targets))


@dataclass(frozen=True)
class FigureFour:
    """What the figure shows of a benchmark, in percent.

    Attributes:
        benchmark: Title of the benchmark, and its split.
        metric: The benchmark's main metric.
        weights: The profile's own weights: what is not swept has these.
        plane: (alpha, beta, value).
        line: (gamma, value).
        targets: (N of target captions, value).
    """

    benchmark: str
    metric: str
    weights: CvsiWeights
    plane: tuple[tuple[float, float, float], ...]
    line: tuple[tuple[float, float], ...]
    targets: tuple[tuple[int, float], ...]


def plan_figure(
    profile: Profile,
    ref: BenchmarkRef,
    step: float = 0.1,
    targets: int = TARGET_CAPTIONS,
    whole: bool = False,
) -> FigurePlan:
    """The stages of the figure.

    Args:
        profile: Models and settings.
        ref: A benchmark whose targets are public.
        step: Grid step of the weights.
        targets: Largest N of target captions; 0: N is not swept.
        whole: Whether every gamma is tried at every alpha and beta.

    Raises:
        ValueError: `step` does not divide 1.
    """
    family, points = ref.load().family, grid_points(step)
    own, made = profile.cvsi.weights_for(family), profile.cvsi.captions_of_target
    every = weight_grid(step)
    grid = [w.changed(gamma=own.gamma) for w in every if w.gamma == points[0]]
    line = [own.changed(gamma=gamma) for gamma in points]
    shared = targets and made >= targets
    return FigurePlan(
        weights=own,
        points=tuple(points),
        plane=_sweep(
            profile, ref, [*grid, *line, own, *(every if whole else ())], made if shared else 0
        ),
        targets=tuple(
            _sweep(_with_targets(profile, n), ref, [own], max(targets, made))
            for n in range(1, targets + 1)
        ),
    )


def read_figure(plan: FigurePlan) -> FigureFour:
    """The figure of a plan whose stages are made.

    Raises:
        IncompleteTable: some settings were not tried yet.
    """
    ranking, own = plan.plane.ranking, plan.weights
    benchmark, facts = ranking.benchmark, benchmark_facts(ranking.benchmark.name)
    main, found = facts.metrics.main, plan.plane.read()

    def value(weights: CvsiWeights) -> float:
        return found[setting(weights)][main]

    plane = {(w.alpha, w.beta): w for w in plan.plane.grid if w.gamma == own.gamma}
    return FigureFour(
        benchmark=f"{facts.title} {benchmark.split}",
        metric=main,
        weights=own,
        plane=tuple((*place, value(w)) for place, w in sorted(plane.items())),
        line=tuple((gamma, value(own.changed(gamma=gamma))) for gamma in plan.points),
        targets=tuple(
            (n, stage.read()[setting(own)][main]) for n, stage in enumerate(plan.targets, start=1)
        ),
    )


def _sweep(
    profile: Profile, ref: BenchmarkRef, grid: Sequence[CvsiWeights], caption_pool: int
) -> SweepStage:
    family = ref.load().family
    weights = {**profile.cvsi.weights, family: CvsiWeights(alpha=0.4, beta=0.4, gamma=0.5)}
    weighted = profile.model_copy(update={"cvsi": profile.cvsi.changed(weights=weights)})
    (ranking,) = plan_evaluation(weighted, ref, ["cvsi"], caption_pool).rankings
    unique = tuple({setting(each): each for each in grid}.values())
    return SweepStage(root=profile.root, shard_size=1_000_000, ranking=ranking, grid=unique)


def _with_targets(profile: Profile, n: int) -> Profile:
    return profile.model_copy(update={"cvsi": profile.cvsi.changed(target_captions=n)})
