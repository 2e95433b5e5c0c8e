"""Generate triplets: from unlabelled images to training data for InstructCIR.

Pairs of images are sampled, every image in them is captioned once, and a language model writes
the change from the first of a pair to the second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import State

from flows import run_names
from flows.form_choices import offer_what_exists
from flows.ingest_collection import run_ingest
from flows.requests import generate_triplets as requests
from flows.requests.generate_triplets import TripletsRequest
from flows.requests.prepared import prepared_by
from flows.running import RunLog, run_stage
from flows.summaries import summed_up
from storage.locations.location import Location
from storage.tables.table import IncompleteTable, require_complete
from tasks.artifacts import publish_markdown
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.redacted import redacting
from tasks.report.triplets import build_triplet_report, markdown, notes_on, stage_quality
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.pair_samples import PairSample
from tasks.stages.triplets import TripletStage
from tasks.training.leak_guard import Guarded, describe, located
from tasks.training.triplet_sets import TripletSet
from tasks.unrecorded import is_unrecorded


def triplet_stage(profile: Profile, pairs: PairSample) -> TripletStage:
    """Triplets of a sample of pairs under a profile, with the captions that they are made from."""
    chosen = profile.instructcir
    return TripletStage(
        root=profile.root,
        shard_size=profile.shards.triplets,
        pairs=pairs,
        captions=CaptionStage(
            root=profile.root,
            shard_size=profile.shards.captions,
            images=pairs,
            captioner=chosen.captioner,
            sampling=chosen.captioning,
        ),
        prompt=chosen.prompt,
        generator=chosen.rewriter,
        temperature=chosen.temperature,
        retry_temperature=chosen.retry_temperature,
        attempts=chosen.attempts,
    )


def triplet_set(stage: TripletStage) -> TripletSet:
    """The reference by which training finds the triplets of a stage."""
    return TripletSet(
        root=str(stage.location),
        spec_key=stage.spec_key,
        collections=tuple(source.collection for source in stage.pairs.sources),
        count=stage.pairs.count,
    )


@flow(
    name="generate-triplets",
    flow_run_name=run_names.triplets,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.generate_triplets)
def generate_triplets(asked: TripletsRequest) -> State[Any]:
    """Sample, caption, write the texts, and report on them."""
    for ref in asked.pairs.guard:
        ingest_guarded(asked.profile.root, ref)
    log = RunLog()
    for features in asked.pairs.features(asked.profile.root, asked.profile.shards.features):
        run_stage(features, log, allow_gaps=asked.profile.allow_gaps)
    stage = triplet_stage(asked.profile, asked.pairs)
    for each in stage.pairs.pools(asked.profile.root).exclusions:
        if not is_unrecorded():
            get_run_logger().info(describe(each))
    run_stage(
        stage.captions, log, allow_gaps=asked.profile.allow_gaps, retry_failed=asked.retry_failed
    )
    # Rejected texts are judged when the report that explains them is written.
    run_stage(stage, log, allow_gaps=1.0, retry_failed=asked.retry_failed)
    made = write_report(stage, log, asked.out)
    require_texts(stage, asked.allow_gaps, made["report"])
    offer_what_exists()
    return summed_up({"stages": [report.as_json() for report in log.stages], **made})


def ingest_guarded(root: str, guarded: Guarded) -> None:
    """Ingest the images of a guarded benchmark, if they are on disk, to know their content."""
    if isinstance(guarded, BenchmarkRef) and (benchmark := located(guarded)).image_paths:
        run_ingest(root, image_folder(benchmark), guarded.collection_name)


def write_report(stage: TripletStage, log: RunLog, out: Path) -> dict[str, Any]:
    """The quality report as a page, as JSON and in the UI, and the reference for training."""
    quality = stage_quality(stage)
    reference = triplet_set(stage)
    report = build_triplet_report(stage, quality, log.stages, out)
    Location(str(out)).replace(
        "triplets.json", (reference.model_dump_json(indent=2) + "\n").encode()
    )
    text = markdown(quality, notes_on(stage, quality))
    publish_markdown(f"triplets-{stage.spec_key}", text, f"Quality of {stage.title}")
    return {
        "report": str(report),
        "triplets": reference.model_dump(mode="json"),
        "statuses": dict(quality.by_status),
        "attention": notes_on(stage, quality),
    }


def require_texts(stage: TripletStage, allow_gaps: float, report: str) -> None:
    """Refuse a set in which too many pairs lack a text.

    Raises:
        IncompleteTable: says how many, and where to read why.
    """
    try:
        require_complete(stage.table(), stage.planned(), allow_gaps)
    except IncompleteTable as error:
        raise IncompleteTable(f"{error}. The reasons are counted in {report}") from error
