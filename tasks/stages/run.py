"""Planning and running stages as Prefect tasks: one task run for a plan, one for each shard.

The published part is the cache; Prefect's record of a task is for the UI alone. Tasks look at
the table themselves, so no record can outlive its part, and nothing of a result is stored.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from botocore.exceptions import ConnectionError as S3ConnectionError
from botocore.exceptions import HTTPClientError as S3ClientError
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State
from prefect.tasks import exponential_backoff

from models.metering import Spent, measuring
from storage.tables.costs import Cost
from storage.tables.plans import Plan, Shard
from storage.tables.schemas import OK
from tasks import progress
from tasks.cached import shown_as_cached
from tasks.redacted import redacting, without_secrets
from tasks.stages.stage import Stage
from tasks.stages.streams import own_seconds

TRANSIENT = (ConnectionError, TimeoutError, S3ConnectionError, S3ClientError)
"""Lost connections and timeouts; an error of the S3 client is not a ConnectionError of Python's."""


def is_transient(task: Any, run: Any, state: Any) -> bool:
    """Retry lost connections and timeouts, nothing else."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TRANSIENT)


@task(task_run_name="plan {stage.title}", cache_policy=NO_CACHE, persist_result=False)
@redacting
def plan_stage(stage: Stage, retry_failed: bool = False) -> Plan | State[Plan]:
    """The missing shards of a stage; a stage that is complete shows as Cached."""
    keys, order = stage.planned_keys(), stage.read_order
    plan = stage.table().plan(keys, stage.shard_size, retry_failed, order)
    return plan if plan.shards else shown_as_cached(plan)


@task(
    task_run_name="{stage.title} {shard[key]}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
)
@redacting
def run_shard(stage: Stage, shard: dict[str, Any]) -> dict[str, Any] | State[dict[str, Any]]:
    """Make and publish the rows of one shard; one that another worker made shows as Cached."""
    started, seconds = time.monotonic(), 0.0
    table = stage.table()
    work = Shard(shard["key"], tuple(shard["members"]), shard["attempt"])
    made: dict[str, Any] = {"rows": len(work.members), "published": False, "failed": {}}
    if table.holds(work):
        return shown_as_cached(made)
    with measuring() as meter:
        try:
            rows = without_secrets(stage.rows(work.members, progress.tick), table.schema.key)
            seconds, started = own_seconds(started), time.monotonic()
            made["published"] = table.publish(work, rows, seconds).published
        finally:
            if made["published"] or meter.spent != Spent():
                number = len(work.members) if made["published"] else 0
                seconds += own_seconds(started)
                cost = Cost(number, seconds=seconds, **asdict(meter.spent))
                table.note(work, cost, published=made["published"])
    counts = Counter(rows["status"].to_pylist())
    made["failed"] = {status: count for status, count in counts.items() if status != OK}
    return made
