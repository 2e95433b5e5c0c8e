"""Backfill captions: make the missing rows in the caption tables of collections."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass, fields
from typing import Annotated, Any, Final

from prefect import flow, runtime
from prefect.states import Completed, State
from pydantic import Field

from flows.fan_out import start_helpers
from flows.form_fields import Of
from flows.forms import PROFILE_CAPTIONING, Captioning, Overrides, ProfileName, Work
from flows.profiles import resolve_profile
from flows.ray_workers import NO_RAY, RayWorkers, on_ray
from flows.running import RunLog, ShardRunner, StageFailed, one_by_one, run_stage
from models.settings import Settings
from storage.collections.collection import list_collections
from storage.locations.location import Location
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable
from tasks.artifacts import artifact_key, publish_markdown, stages_markdown
from tasks.planner import CaptionKind, caption_stage
from tasks.redacted import redacting
from tasks.report.markdown import markdown_table, plain
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.image_sets import SelectedImages, Which
from tasks.unrecorded import about_to_make

DEPLOYMENT = "backfill-captions/backfill-captions"
SHOWN = 50
"""Failed rows that the artifact lists."""
FAILED: Final = ("collection", "image", "status", "reason")


class Selector(Settings):
    """The images to caption."""

    which: Which = "missing"
    """missing: no captions yet under these settings. failed: tried before, to be retried. stale:
    captioned under other settings only."""
    since: datetime.date | None = None
    """Ingested on this day (UTC) or later."""
    until: datetime.date | None = None
    """Ingested on this day (UTC) or earlier."""


WITHOUT_CAPTIONS: Final = Selector()


@flow(
    name="backfill-captions",
    flow_run_name="captions of {collection}",
    persist_result=False,
    result_serializer="json",
)
@redacting
def backfill_captions(
    collection: str = "all",
    kind: CaptionKind = "ensemble",
    selector: Selector = WITHOUT_CAPTIONS,
    captioning: Captioning = PROFILE_CAPTIONING,
    dry_run: bool = False,
    runs: Annotated[int, Field(ge=1)] = 1,
    shard_size: Annotated[int, Of(Work, "shard_size")] = 0,
    ray: RayWorkers = NO_RAY,
    allow_gaps: Annotated[float | None, Of(Work, "allow_gaps")] = None,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
) -> State[Any]:
    """Caption the images of a collection that have no captions yet.

    A second run makes only the captions that are still missing. A run ends Completed,
    CompletedWithGaps (some images could not be captioned, but no more than is allowed) or Failed.

    Args:
        collection: Name of an ingested collection, or all.
        kind: ensemble: the N captions of CVSI. single: the one greedy caption. instructcir: the
            one caption that modification texts are written from.
        selector: The images of it.
        dry_run: Report the work and its cost, and stop.
        runs: Flow runs that share the work, this one included; each takes shards that no other has
            begun. The others are runs of the deployment backfill-captions.
        ray: Caption on the workers of a Ray cluster instead.
    """
    chosen = _chosen_profile(profile, settings, kind, captioning, shard_size)
    gaps = chosen.allow_gaps if allow_gaps is None else allow_gaps
    names = list_collections(Location(chosen.root)) if collection == "all" else [collection]
    stages = [captions_to_fill(chosen, name, kind, selector) for name in names]
    retry = selector.which == "failed"
    if retry and runs > 1:
        raise ValueError("failed images are retried in one run; choose runs=1")
    if ray.workers and runs > 1:
        raise ValueError("the workers of Ray share the work of one run; choose runs=1")
    costs = [cost_of(n, stage, retry) for n, stage in zip(names, stages, strict=True)]
    _show_costs(collection, costs)
    if dry_run:
        return Completed(message=_in_words(costs), data={"costs": [vars(c) for c in costs]})
    log, outcomes = RunLog(), []
    work = any(cost.images for cost in costs)
    if work:
        about_to_make(_in_words(costs))
    with on_ray(ray) if ray.workers and work else nullcontext(one_by_one) as runner:
        for stage, cost in zip(stages, costs, strict=True):
            if runs > 1 and cost.images > stage.shard_size:
                again = {
                    "collection": cost.collection,
                    "kind": kind,
                    "selector": selector.model_dump(mode="json"),
                    "captioning": captioning.model_dump(mode="json"),
                    "shard_size": shard_size,
                    "allow_gaps": 1.0,
                    "profile": profile,
                    "settings": settings,
                }
                start_helpers(DEPLOYMENT, again, runs - 1)
            outcomes.append(_fill(stage, log, gaps, retry, runner))
    counts = [counted(stage, cost) for stage, cost in zip(stages, costs, strict=True)]
    return _end(collection, stages, counts, log, outcomes)


def _chosen_profile(
    profile: str,
    settings: dict[str, Any] | None,
    kind: CaptionKind,
    captioning: Captioning,
    shard_size: int,
) -> Profile:
    """The profile with the form's choices on top.

    Raises:
        ValueError: several captions are chosen for a kind that has one.
    """
    if captioning.per_image and kind != "ensemble":
        raise ValueError(
            f"kind={kind} is one caption an image; captioning.per_image goes with kind=ensemble"
        )
    place = "instructcir.captioner" if kind == "instructcir" else "captioner"
    own = captioning.settings(place) | Work(shard_size=shard_size).settings()
    return resolve_profile(profile, {**(settings or {}), **own})


def captions_to_fill(
    profile: Profile, collection: str, kind: CaptionKind, selector: Selector
) -> CaptionStage:
    """The stage whose missing rows a backfill makes.

    Raises:
        ValueError: captions of this kind are not made under the profile.
    """
    if kind == "single" and profile.single_caption == "first":
        raise ValueError(
            "under this profile the single caption is the first of the ensemble "
            "(single_caption=first); backfill kind=ensemble, or set single_caption=greedy"
        )
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
    return f"{images} images to caption ({captions} captions){about}" if images else "nothing to do"


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
    """

    collection: str
    captioner: str
    per_image: int
    captioned: int
    reused: int
    failed: int
    missing: int

    @property
    def in_words(self) -> str:
        """Such as `photos by blip2 opt-2.7b (15 captions an image): 3 captioned, ...`."""
        each = "1 caption" if self.per_image == 1 else f"{self.per_image} captions"
        missing = f", {self.missing} not tried" if self.missing else ""
        return (
            f"{self.collection} by {self.captioner} ({each} an image): {self.captioned} captioned,"
            f" {self.reused} reused, {self.failed} failed{missing}"
        )


def counted(stage: CaptionStage, before: Cost) -> Counts:
    """Count the outcome of a backfill of one collection."""
    found = stage.table().completeness(stage.planned_keys())
    return Counts(
        collection=before.collection,
        captioner=stage.captioner.title,
        per_image=stage.sampling.n,
        captioned=found.ok - before.ready,
        reused=before.ready,
        failed=found.failed,
        missing=found.missing,
    )


def _end(
    collection: str,
    stages: Sequence[CaptionStage],
    counts: Sequence[Counts],
    log: RunLog,
    outcomes: Sequence[Problem | None],
) -> State[Any]:
    """The state that the run ends in, and the artifact that says why.

    Raises:
        StageFailed: shards raised; the run then ends as Failed.
        IncompleteTable: more images than allowed lack captions; likewise.
    """
    reports = [report.as_json() for report in log.stages]
    failed = [row for stage in stages for row in _failed_rows(stage)]
    columns = tuple(field.name.replace("_", " ") for field in fields(Counts))
    table = markdown_table(columns, [astuple(each) for each in counts])
    text = f"## Captions of {plain(collection)}\n\n{table}\n\n{stages_markdown(reports)}"
    if failed:
        text += f"\n\n### {len(failed)} without captions"
        text += f" (first {SHOWN})" if len(failed) > SHOWN else ""
        text += f"\n\n{markdown_table(FAILED, failed[:SHOWN])}"
    publish_markdown(artifact_key("backfill", collection), text, f"Captions of {collection}")
    summary = "; ".join(each.in_words for each in counts)
    data = {
        "stages": reports,
        "failed": len(failed),
        "run": str(runtime.flow_run.name or ""),
        "summary": summary,
    }
    if problems := [outcome for outcome in outcomes if outcome is not None]:
        raise problems[0]
    if failed:
        message = f"{len(failed)} images could not be captioned; that is within allow_gaps."
        message += f" {summary}"
        return Completed(name="CompletedWithGaps", message=message, data=data)
    return Completed(message=f"every chosen image has its captions. {summary}", data=data)


def _failed_rows(stage: CaptionStage) -> list[tuple[str, str, str, str]]:
    rows = stage.table().read(["status", "reason"], stage.planned())
    return [
        (stage.images.title, key, status, reason)
        for key, status, reason in rows.iter_rows()
        if status != OK
    ]
