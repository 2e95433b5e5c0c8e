"""What makes a collection searchable at once: some stages filled in this process, no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from flows.running import Display
from tasks import progress
from tasks.stages.run import run_shard
from tasks.stages.stage import Stage, in_order


def fill(stages: Sequence[Stage], display: Display) -> int:
    """Make the missing rows of some stages and of what they read; returns their number.

    Prefect is not asked: the tables say what is missing, as in every run, and another run that
    fills the same table shares the work.

    Args:
        stages: Tables to fill.
        display: Shows each stage.
    """
    made = 0
    for stage in in_order(stages):
        table = stage.table()
        plan = table.plan(stage.planned_keys(), stage.shard_size, False, stage.read_order)
        with (
            display(stage.title, plan.todo, plan.present) as listener,
            progress.listening(listener),
        ):
            for shard in plan.shards:
                run_shard.fn(stage, asdict(shard))
        made += plan.todo
    return made
