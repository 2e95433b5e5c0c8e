"""Run stages one after the other: plan, make missing rows, check the gaps, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

from prefect import Task

from flows.shard_runners import ShardRunner, in_this_process
from flows.shown_progress import progress_artifact
from models.protocols import EngineUnavailable
from models.spelling import agreed
from storage.locations.location import NoRoom
from storage.tables.costs import TableCost
from storage.tables.plans import Plan
from storage.tables.table import require_complete
from storage.tables.turns import Turns
from tasks import progress
from tasks.stages.run import plan_stage
from tasks.stages.stage import Stage, in_order, require_hosts
from tasks.stages.stage_report import StageReport
from tasks.training.publish import Job
from tasks.training.run_settings import RunSettings
from tasks.unrecorded import about_to_make, run_task


@dataclass
class RunLog:
    """Stage reports of a flow run, in order."""

    stages: list[StageReport] = field(default_factory=list)

    def add(self, report: StageReport) -> StageReport:
        """Keep a report."""
        self.stages.append(report)
        return report

    @property
    def costs(self) -> dict[str, TableCost]:
        """What each table took, by its folder: as the last stage that filled it found."""
        return {stage.where: stage.cost for stage in self.stages}


class StageFailed(RuntimeError):
    """Shards of a stage raised; the finished shards are published."""


Listener = Callable[[int], None]
Display = Callable[[str, int, int], AbstractContextManager[Listener]]
"""Called with a stage's title, the rows to make and the rows present; listens while it is open."""


def run_stage(
    stage: Any,
    log: RunLog,
    *,
    allow_gaps: float = 0.0,
    retry_failed: bool = False,
    runner: ShardRunner = in_this_process,
) -> StageReport:
    """Make the missing rows of a stage, shard by shard; costs one listing if none is missing.

    A shard that raises does not stop the others. Where its engine cannot be used, or the root is
    full, no further shard is begun: it would fail alike. Everything that was finished stays
    published.

    Args:
        stage: The stage to run.
        log: Gains the report.
        allow_gaps: Fraction of rows that may lack a usable value.
        retry_failed: Make rows again that have failed before.
        runner: Makes the shards, in this process or elsewhere.

    Raises:
        StageFailed: shards raised.
        IncompleteTable: more rows than `allow_gaps` lack a usable value.
    """
    started = time.monotonic()
    plan: Plan = run_task(plan_stage, stage, retry_failed)
    if plan.shards:
        if runner is in_this_process and not stage.has_earlier:
            require_hosts(stage)
        about_to_make(stage.title)
    broken: list[str] = []
    made = 0
    with (
        watching(stage.title, plan.todo, plan.present) as listener,
        progress.listening(listener),
        progress_artifact(stage.title) as bar,
        ExitStack() as stack,
    ):
        turns = Turns(stage.table(), plan)
        shards = stack.enter_context(closing(runner(stage, turns)))
        for done, (shard, state) in enumerate(shards, start=1):
            bar.show(100.0 * done / len(plan.shards))
            result = state.result(raise_on_failure=False)
            if isinstance(result, dict):
                made += result["rows"] if result["published"] else 0
                continue
            ends_all = isinstance(result, EngineUnavailable | NoRoom)
            said = f"{shard['key']}: {type(result).__name__}: {result}"
            broken.insert(0 if ends_all else len(broken), said)  # the first one is told
            if ends_all:
                turns.stop()
    table = stage.table()
    coverage = table.completeness(stage.planned_keys()) if plan.shards else plan.before
    report = log.add(
        StageReport(
            title=stage.title,
            planned=plan.planned,
            reused=plan.planned - coverage.missing - made,
            made=made,
            failed=coverage.failed,
            broken=tuple(broken),
            seconds=time.monotonic() - started,
            where=table.location.join(table.folder),
            cost=table.cost() if plan.shards else plan.cost,
        )
    )
    if broken:
        raise StageFailed(
            f"{stage.title}: {len(broken)} of {len(plan.shards)} "
            f"{agreed(len(plan.shards), 'shard')} failed, finished ones are published. "
            f"First: {broken[0]}. Mend the cause and run again: only the missing shards are made"
        )
    if coverage.gaps > allow_gaps:
        require_complete(table, stage.planned_keys(), allow_gaps, coverage)
    return report


def run_stages(
    stages: Sequence[Stage],
    log: RunLog,
    allow_gaps: float,
    retry_failed: bool = False,
    runner: ShardRunner = in_this_process,
) -> None:
    """Run stages and everything that they read, inputs first."""
    for stage in in_order(stages):
        run_stage(stage, log, allow_gaps=allow_gaps, retry_failed=retry_failed, runner=runner)


_displays: list[Display] = []


def watching(title: str, todo: int, present: int) -> AbstractContextManager[Listener]:
    """A listener for a stage's ticks: the innermost display's, or one that ignores them."""
    if _displays:
        return _displays[-1](title, todo, present)
    return nullcontext(lambda count: None)


def train_once(
    title: str, train: Task[..., Any], job: Job, amount: int, *arguments: Any
) -> dict[str, Any]:
    """Run a training task with its progress shown; returns the task's result.

    Args:
        title: A few words for progress lines.
        train: The task; it takes the job first.
        job: The job whose network the task publishes.
        amount: Ticks of the whole training.
        arguments: The task's other arguments.
    """
    todo = 0 if job.is_published else amount
    if not job.is_published:
        for where in (job, *arguments):
            if isinstance(where, Job | RunSettings):
                where.require_host()
    if todo:
        about_to_make(title)
    with watching(title, todo, amount - todo) as listener, progress.listening(listener):
        return cast(dict[str, Any], run_task(train, job, *arguments))


@contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Show the progress of all stages that run inside with `display`."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.pop()
