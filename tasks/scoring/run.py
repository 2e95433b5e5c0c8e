"""Scoring as a Prefect task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.redacted import redacting
from tasks.scoring.scores import MethodScores, score_ranking
from tasks.stages.rankings import RankingStage


@task(
    task_run_name="score {stage.method} on {stage.benchmark.collection_name}", cache_policy=NO_CACHE
)
@redacting
def score_method(stage: RankingStage) -> MethodScores:
    """Metrics of a ranking with intervals; nothing is written."""
    return score_ranking(stage)
