"""Tables that are filled in this process, without Prefect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.stages.stage import Stage


def fill(stage: Stage) -> int:
    """Make what a stage lacks; returns how many rows that were."""
    table = stage.table()
    plan = table.plan(stage.planned_keys(), stage.shard_size, order=stage.read_order)
    for shard in plan.shards:
        table.publish(shard, stage.rows(shard.members, lambda count: None))
    return plan.todo


def fill_all(stages: Iterable[Stage]) -> int:
    """Make what some stages and those behind them lack; returns how many rows that were."""
    from tasks.stages.stage import in_order

    return sum(fill(stage) for stage in in_order(stages))
