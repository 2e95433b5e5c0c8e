"""Planning and running stages as Prefect tasks.

Prefect's record of a task is a shortcut and what the UI shows; the published part is the truth. A
cache key exists only while the part, or the complete table, does: a record that outlived its part
never hits. Between tasks travel small JSON values.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from botocore.exceptions import ConnectionError as S3ConnectionError
from botocore.exceptions import HTTPClientError as S3ClientError
from prefect import task
from prefect.tasks import exponential_backoff

from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import Shard
from tasks import progress
from tasks.plain_results import PLAIN_JSON
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.captions import CaptionStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.reformulation_features import ReformulatedImageStage, ReformulatedQueryStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage
from tasks.stages.triplets import TripletStage

TRANSIENT = (ConnectionError, TimeoutError, S3ConnectionError, S3ClientError)
"""Lost connections and timeouts; those of the S3 client are no ConnectionErrors of Python's."""

AnyStage = (
    CaptionStage
    | ImageFeatureStage
    | CaptionFeatureStage
    | RewriteStage
    | QueryFeatureStage
    | ReformulatedImageStage
    | ReformulatedQueryStage
    | TripletStage
)


def is_transient(task: Any, run: Any, state: Any) -> bool:
    """Retry what may pass by itself: lost connections and timeouts, nothing else."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TRANSIENT)


def _plan_key(context: Any, parameters: dict[str, Any]) -> str | None:
    stage: Stage = parameters["stage"]
    keys = stage.planned()
    table = stage.table()
    if parameters.get("retry_failed") or table.plan(keys, stage.shard_size).shards:
        return None
    return f"plan-{table.name}-{table.spec_key}-{content_key(keys)}"


@task(
    task_run_name="plan {stage.title}",
    cache_key_fn=_plan_key,
    persist_result=True,
    result_serializer=PLAIN_JSON,
)
def plan_stage(stage: AnyStage, retry_failed: bool = False) -> dict[str, Any]:
    """What of a stage is missing: one listing when nothing is."""
    keys = stage.planned()
    table = stage.table()
    plan = table.plan(keys, stage.shard_size, retry_failed)
    return {
        "table": table.name,
        "spec_key": table.spec_key,
        "planned": plan.planned,
        "present": plan.present,
        "shards": [
            {"key": shard.key, "members": list(shard.members), "attempt": shard.attempt}
            for shard in plan.shards
        ],
    }


def _shard_key(context: Any, parameters: dict[str, Any]) -> str | None:
    table = parameters["stage"].table()
    key = parameters["shard"]["key"]
    if not table.location.exists(f"{table.folder}/part-{key}.parquet"):
        return None
    return f"{table.name}-{table.spec_key}-{key}"


@task(
    task_run_name="{stage.title} {shard[key]}",
    cache_key_fn=_shard_key,
    persist_result=True,
    result_serializer=PLAIN_JSON,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
)
def run_shard(stage: AnyStage, shard: dict[str, Any]) -> dict[str, Any]:
    """Make and publish the rows of one shard, unless another worker has."""
    started = time.monotonic()
    table = stage.table()
    work = Shard(shard["key"], tuple(shard["members"]), shard["attempt"])
    name = f"part-{work.key}.parquet"
    failed: dict[str, int] = {}
    published = False
    if not table.location.exists(f"{table.folder}/{name}"):
        rows = stage.rows(work.members, progress.tick)
        published = table.publish(work, rows, time.monotonic() - started).published
        counts = Counter(rows["status"].to_pylist())
        failed = {status: count for status, count in counts.items() if status != OK}
    return {
        "part": name,
        "rows": len(work.members),
        "published": published,
        "failed": failed,
        "seconds": round(time.monotonic() - started, 3),
    }
