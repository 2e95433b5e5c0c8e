"""A finished evaluation whose ranks are chosen by hand: no model runs, every answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedded_world.benchmarks import WorldSize, write_world
from tests.fakes.drawn import small_profile

if TYPE_CHECKING:
    from tasks.settings import Profile
    from tasks.stages.rankings import RankingStage

RANKS = {
    "cvsi": [1, 1, 1, 2, 3, 12, None, 1, 7, 1, 1, 4],
    "ldre": [1, 3, 1, 1, None, 11, None, 2, 8, 1, 1, 1],
}
"""Method -> rank of the target of each query, in the benchmark's order; None: not in the list."""
CAPTION = "a caption that was written by hand"


@dataclass(frozen=True)
class RankedWorld:
    """A root with an evaluation.

    Attributes:
        profile: Its settings.
        key: The evaluation's key.
        report: The report.
    """

    profile: Profile
    key: str
    report: Path


def ranked_world(folder: Path) -> RankedWorld:
    """Draw a CIRR-like benchmark, publish rankings with `RANKS`, score, record and report them."""
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tasks.explorer.evaluations import record_evaluation
    from tasks.planner import plan_evaluation
    from tasks.query_sets import BenchmarkRef, image_folder
    from tasks.report.build import EvaluatedBenchmark, report_data, write_report
    from tasks.scoring.scores import record_scores, score_ranking
    from tasks.stages.captions import CaptionStage
    from tasks.stages.stage import inputs_of

    size = WorldSize(subsets=6, circo_queries=1, fashion_queries=1, distractors=4)
    root = write_world(folder / "world", size, seed=5)["cirr"]
    profile = small_profile(folder / "tables")
    ref = BenchmarkRef(name="cirr", root=str(root))
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    plan = plan_evaluation(profile, ref, list(RANKS))
    for stage in plan.rankings:
        _publish(stage)
    for upstream in inputs_of(plan.rankings):
        if isinstance(upstream, CaptionStage) and "references" in upstream.title:
            table = upstream.table()
            for shard in table.plan(upstream.planned(), 64).shards:
                texts, keys = [[CAPTION] * 2] * len(shard.members), list(shard.members)
                given: dict[str, Any] = {"captions": texts, "n": [2] * len(keys), "raw": texts}
                table.publish(shard, table.rows(image_id=keys, **given))
    scores = {stage.method: score_ranking(stage, resamples=50) for stage in plan.rankings}
    record_scores([(stage, scores[stage.method]) for stage in plan.rankings])
    key = record_evaluation(profile, plan.rankings, "a backbone", folder / "report")
    item = EvaluatedBenchmark(plan.rankings[0].benchmark, plan.rankings, scores)
    report = write_report(report_data(profile, [item], [], "Ranked by hand"), folder / "report")
    return RankedWorld(profile, key, report)


def _publish(stage: RankingStage) -> None:
    """The target at its rank among the gallery's other images."""
    benchmark = stage.benchmark.load()
    rows: dict[str, dict[str, Any]] = {}
    for query, rank in zip(benchmark.queries, RANKS[stage.method], strict=True):
        (target,) = query.targets
        own = {query.reference, target}
        names = [name for name in benchmark.galleries[""] if name not in own]
        group = [name for name in query.subset if name != target]
        if rank is not None:
            names.insert(rank - 1, target)
        group.insert(min(rank or 5, 5) - 1, target)
        rows[query.query_id] = {
            "category": "",
            "names": names[:50],
            "scores": [1 - place / 100 for place in range(len(names[:50]))],
            "subset_names": group,
        }
    table = stage.table()
    for shard in table.plan(stage.planned(), 512).shards:
        columns = ("category", "names", "scores", "subset_names")
        made = {name: [rows[key][name] for key in shard.members] for name in columns}
        table.publish(shard, table.rows(query_id=list(shard.members), **made))
