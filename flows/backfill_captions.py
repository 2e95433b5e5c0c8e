"""Backfill captions: make the missing rows in the caption tables of collections."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Final

import polars as pl
from prefect import flow, runtime
from prefect.states import Completed, State

from flows import run_names
from flows.fan_out import start_helpers
from flows.ray_workers import runner_of
from flows.requests import backfill_captions as requests
from flows.requests.backfill_captions import BackfillRequest, Selector
from flows.requests.prepared import prepared_by
from flows.running import RunLog, StageFailed, run_stage
from flows.shard_runners import ShardRunner
from models.spelling import agreed
from storage.tables.key_columns import KeyColumn
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown, stages_markdown
from tasks.choices import CaptionKind
from tasks.foreign_pictures import warning_for
from tasks.profile_stages import caption_stage
from tasks.redacted import redacting
from tasks.report.markdown import markdown_table, plain
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.image_sets import SelectedImages
from tasks.stages.stage import require_hosts
from tasks.unrecorded import about_to_make

DEPLOYMENT = "backfill-captions/backfill-captions"
SHOWN = 50
"""Failed rows that the artifact lists."""
FAILED: Final = ("collection", "image", "status", "reason")


@flow(
    name="backfill-captions",
    flow_run_name=run_names.backfill,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.backfill_captions)
def backfill_captions(asked: BackfillRequest) -> State[Any]:
    """Count the work, show its cost, and do it."""
    collection, names, gaps = asked.collection, asked.names, asked.allow_gaps
    stages = [captions_to_fill(asked.profile, n, asked.kind, asked.selector) for n in names]
    retry = asked.selector.which == "failed"
    costs = [cost_of(n, stage, retry) for n, stage in zip(names, stages, strict=True)]
    _show_costs(collection, costs)
    warning = warning_for(asked.profile, *names)
    if asked.dry_run:
        message = f"{warning}. {_in_words(costs)}" if warning else _in_words(costs)
        said = {"dry_run": message, "costs": [vars(cost) for cost in costs]}
        return Completed(message=message, data=said)
    log, outcomes = RunLog(), []
    work = [stage for stage, cost in zip(stages, costs, strict=True) if cost.images]
    if work:
        for stage in work if not asked.ray.workers else ():
            require_hosts(stage)
        about_to_make(_in_words(costs))
    with runner_of(asked.ray) as runner:
        for stage, cost in zip(stages, costs, strict=True):
            if asked.runs > 1 and cost.images > stage.shard_size:
                again = {**asked.again, "collection": cost.collection}
                start_helpers(DEPLOYMENT, again, asked.runs - 1)
            outcomes.append(_fill(stage, log, gaps, retry, runner))
    each = zip(stages, costs, log.stages, strict=True)
    counts = [counted(stage, cost, report.made) for stage, cost, report in each]
    return _end(collection, stages, counts, log, outcomes, warning)


def captions_to_fill(
    profile: Profile, collection: str, kind: CaptionKind, selector: Selector
) -> CaptionStage:
    """The stage whose missing rows a backfill makes."""
    own = caption_stage(profile, collection, kind).spec_key
    images = SelectedImages(collection=collection, captions_key=own, **selector.model_dump())
    return caption_stage(profile, images, kind)


# --------------------------------------------------------------------------- costs


@dataclass(frozen=True)
class Cost:
    """Work that a backfill of one collection would do.

    Attributes:
        collection: its name.
        planned: images that the selector chooses.
        ready: images that have usable captions already.
        images: images that would be captioned now.
        captions: number of captions of these.
        seconds: estimated time of one run, from the pace measured so far; None = not measured.
    """

    collection: str
    planned: int
    ready: int
    images: int
    captions: int
    seconds: float | None


def cost_of(collection: str, stage: CaptionStage, retry_failed: bool) -> Cost:
    """Count the captions to make, and estimate the time from the pace so far.

    Nothing is written, not even the table's spec.
    """
    try:
        table = stage.existing_table()
    except IncompleteTable:
        images = len(stage.planned())
        return Cost(collection, images, 0, images, images * stage.sampling.n, None)
    plan = table.plan(stage.planned_keys(), stage.shard_size, retry_failed)
    pace = table.pace() if plan.todo else None
    return Cost(
        collection,
        plan.planned,
        plan.before.ok,
        plan.todo,
        plan.todo * stage.sampling.n,
        plan.todo / pace if pace else None,
    )


def _in_words(costs: Sequence[Cost]) -> str:
    images = sum(cost.images for cost in costs)
    captions = sum(cost.captions for cost in costs)
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    about = f", about {_duration(sum(known))} in one run" if known else ""
    if not images:
        return "nothing to do"
    said = f"{captions} {agreed(captions, 'caption')}"
    return f"{images} {agreed(images, 'image')} to caption ({said}){about}"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=max(1, round(seconds))))


def _show_costs(collection: str, costs: Sequence[Cost]) -> None:
    columns = ("collection", "chosen", "to caption", "captions", "time of one run")
    rows = [
        (
            cost.collection,
            cost.planned,
            cost.images,
            cost.captions,
            "not measured yet" if cost.seconds is None else _duration(cost.seconds),
        )
        for cost in costs
    ]
    text = f"## {plain(_in_words(costs))}\n\n{markdown_table(columns, rows)}"
    publish_markdown(artifact_key("backfill plan", collection), text, "What a backfill would do")


# --------------------------------------------------------------------------- work


Problem = StageFailed | IncompleteTable


def _fill(
    stage: CaptionStage, log: RunLog, allow_gaps: float, retry: bool, runner: ShardRunner
) -> Problem | None:
    """Make the missing rows of a stage; returns the error if it may not be used, or None."""
    try:
        run_stage(stage, log, allow_gaps=allow_gaps, retry_failed=retry, runner=runner)
    except (StageFailed, IncompleteTable) as error:
        return error
    return None


@dataclass(frozen=True)
class Counts:
    """The outcome for the chosen images of one collection.

    Attributes:
        collection: its name.
        captioner: engine and model.
        per_image: captions of one image.
        captioned: images that got usable captions since the run began, by it and its helpers.
        reused: images that had them before.
        failed: images that were tried and have none.
        missing: images that were not tried, because their shard raised.
        by_other_runs: images of those captioned or failed that other runs tried meanwhile.
    """

    collection: str
    captioner: str
    per_image: int
    captioned: int
    reused: int
    failed: int
    missing: int
    by_other_runs: int

    @property
    def in_words(self) -> str:
        """Such as `photos by blip2 opt-2.7b (15 captions an image): 3 captioned, ...`."""
        each = f"{self.per_image} {agreed(self.per_image, 'caption')}"
        missing = f", {self.missing} not tried" if self.missing else ""
        if self.by_other_runs:
            missing += f"; {self.by_other_runs} of these by other runs meanwhile"
        return (
            f"{self.collection} by {self.captioner} ({each} an image): {self.captioned} captioned,"
            f" {self.reused} reused, {self.failed} failed{missing}"
        )


def counted(stage: CaptionStage, before: Cost, made: int) -> Counts:
    """Count the outcome of a backfill of one collection, of which this run made so many rows."""
    found = stage.table().completeness(stage.planned_keys())
    return Counts(
        collection=before.collection,
        captioner=stage.captioner.title,
        per_image=stage.sampling.n,
        captioned=found.ok - before.ready,
        reused=before.ready,
        failed=found.failed,
        missing=found.missing,
        by_other_runs=max(0, before.images - found.missing - made),
    )


def _end(
    collection: str,
    stages: Sequence[CaptionStage],
    counts: Sequence[Counts],
    log: RunLog,
    outcomes: Sequence[Problem | None],
    warning: str,
) -> State[Any]:
    """The state that the run ends in, and the artifact that says why.

    Args:
        collection: As it was given.
        stages: The captions of each collection.
        counts: Their outcome.
        log: What was made.
        outcomes: The errors, None where there was none.
        warning: What is wrong with captions of these pictures; empty: nothing is known.

    Raises:
        StageFailed: shards raised; the run then ends as Failed.
        IncompleteTable: more images than allowed lack captions; likewise.
    """
    reports = [report.as_json() for report in log.stages]
    lacking = [stage for stage, own in zip(stages, counts, strict=True) if own.failed]
    failed = [row for stage in lacking for row in _failed_rows(stage)]
    columns = tuple(field.name.replace("_", " ") for field in fields(Counts))
    table = markdown_table(columns, [astuple(each) for each in counts])
    text = f"## Captions of {plain(collection)}\n\n"
    text += f"**{plain(warning)}**\n\n" if warning else ""
    text += f"{table}\n\n{stages_markdown(reports)}"
    if failed:
        text += f"\n\n### {len(failed)} without captions"
        text += f" (first {SHOWN})" if len(failed) > SHOWN else ""
        text += f"\n\n{markdown_table(FAILED, failed[:SHOWN])}"
    publish_markdown(artifact_key("backfill", collection), text, f"Captions of {collection}")
    summary = ". ".join(filter(None, ("; ".join(each.in_words for each in counts), warning)))
    data = {
        "stages": reports,
        "failed": len(failed),
        "run": str(runtime.flow_run.name or ""),
        "summary": summary,
    }
    if problems := [outcome for outcome in outcomes if outcome is not None]:
        raise problems[0]
    if failed:
        message = f"{len(failed)} {agreed(len(failed), 'image')} could not be captioned; that is"
        message += f" within allow_gaps. {summary}"
        return Completed(name="CompletedWithGaps", message=message, data=data)
    return Completed(message=f"every chosen image has its captions. {summary}", data=data)


def _failed_rows(stage: CaptionStage) -> list[tuple[str, str, str, str]]:
    table, planned = stage.table(), KeyColumn.of(stage.planned())
    statuses = table.read(["status"], planned)
    failed = KeyColumn.of(statuses.filter(pl.col("status") != OK)[table.schema.key])
    rows = table.read(["status", "reason"], failed)
    return [(stage.images.title, *row) for row in rows.iter_rows()]
