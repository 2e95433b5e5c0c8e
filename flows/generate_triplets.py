"""Generate triplets: from unlabelled images to training data for InstructCIR.

Pairs of images are sampled, every image in them is captioned once, and a language model writes
the change from the first of a pair to the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from flows.forms import PROFILE_CAPTIONER, Captioner, Overrides, ProfileName
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stage
from storage.locations.location import Location
from storage.tables.table import IncompleteTable, require_complete
from tasks.artifacts import publish_markdown
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.redacted import redacting
from tasks.report.triplets import build_triplet_report, markdown, notes_on, stage_quality
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.pair_samples import PairSample, PairSource, Within
from tasks.stages.triplets import TripletStage
from tasks.training.leak_guard import Guarded, describe, located, parse_guard
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
    flow_run_name="{count} triplets",
    persist_result=False,
    result_serializer="json",
)
@redacting
def generate_triplets(
    collections: list[str],
    count: int,
    captioning: Captioner = PROFILE_CAPTIONER,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    within: Within | dict[str, Within] = "meta_class",
    mix: dict[str, float] | None = None,
    seed: int = 0,
    guard: list[str] | None = None,
    guard_names: bool = True,
    allow_gaps: float = 0.2,
    retry_failed: bool = False,
    out: str = "",
) -> dict[str, Any]:
    """Make training data for InstructCIR out of images alone.

    Pairs are sampled, each of their images gets one caption (instructcir.captioner), and a language
    model (instructcir.rewriter) writes in at most twelve words the change from the first image to
    the second. A text that breaks this rule is retried; after `instructcir.attempts` the pair
    stays without a text, and its row says why.

    The first pairs of a larger count are those of a smaller one, in the same table: ask for 32,000,
    train, ask for 65,000, and only the new ones are made. A stopped run resumes where it was.

    Read the report before training. Training takes the file `triplets.json` next to it.

    Args:
        collections: Names of ingested collections.
        count: Number of pairs, from all collections together.
        captioning: The captioner of the images.
        within: Pair images of one meta_class, or any two of a collection; one rule for all
            collections, or one for each, such as {"fashion": "meta_class", "nlvr": "collection"}.
        mix: Collection -> weight of its share of the pairs; 1 where it is not named.
        seed: Seed of the pairs.
        guard: Guard list of images that must not be trained on: collections, or benchmarks as
            BENCHMARK:SPLIT:FOLDER, such as cirr:test1:data/cirr. Their images are recognised by
            content and by file name; a copy that was encoded again and renamed is not.
        guard_names: Recognise images by file name too; false where files are merely numbered.
        allow_gaps: Fraction of the pairs that may end without a text.
        retry_failed: Retry failed rows: captions, late answers, rejected texts.
        out: Folder for the report and triplets.json; empty: out/triplets.
    """
    own = captioning.settings("instructcir.captioner")
    chosen = resolve_profile(profile, {**(settings or {}), **own})
    guarded = tuple(parse_guard(each) for each in guard or ())
    for ref in guarded:
        ingest_guarded(chosen.root, ref)
    stage = triplet_stage(
        chosen,
        PairSample(
            sources=pair_sources(collections, within, mix or {}),
            count=count,
            seed=seed,
            guard=guarded,
            guard_names=guard_names,
        ),
    )
    for each in stage.pairs.pools(chosen.root).exclusions:
        if not is_unrecorded():
            get_run_logger().info(describe(each))
    log = RunLog()
    run_stage(stage.captions, log, allow_gaps=chosen.allow_gaps, retry_failed=retry_failed)
    # Rejected texts are judged when the report that explains them is written.
    run_stage(stage, log, allow_gaps=1.0, retry_failed=retry_failed)
    made = write_report(stage, log, Path(out or "out/triplets"))
    require_texts(stage, allow_gaps, made["report"])
    return {"stages": [report.as_json() for report in log.stages], **made}


def pair_sources(
    collections: Sequence[str], within: Within | Mapping[str, Within], mix: Mapping[str, float]
) -> tuple[PairSource, ...]:
    """The collections with their rules and weights.

    Raises:
        ValueError: a rule or a weight is given for a collection that is not among them.
    """
    rules = dict.fromkeys(collections, within) if isinstance(within, str) else dict(within)
    for what, named in (("within", rules), ("mix", mix)):
        if unknown := sorted(set(named) - set(collections)):
            raise ValueError(
                f"{what} names {', '.join(unknown)}; the collections are {', '.join(collections)}"
            )
    return tuple(
        PairSource(collection=name, within=rules.get(name, "meta_class"), weight=mix.get(name, 1.0))
        for name in collections
    )


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
