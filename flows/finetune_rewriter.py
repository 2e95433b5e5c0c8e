"""Tune the model that writes modification texts: LoRA on prompts with answers (InstructCIR)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from flows.form_fields import DEFAULTS, Group, Of, Values
from flows.forms import Overrides, ProfileName
from flows.generate_triplets import triplet_set, triplet_stage
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stage, train_once
from models.engine_settings import CheckpointSettings
from models.generators.openai_server import OpenAIServerSettings
from models.instructcir.modification_texts import PLACEHOLDERS
from models.instructcir.rewriter_examples import ExampleSource
from models.instructcir.rewriter_settings import BaseLlm, TuningConfig
from models.prompts.library import Prompt, load_prompt
from models.protocols import AutoDtype
from models.settings import Settings
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.redacted import redacting
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.image_sets import ImageSet
from tasks.stages.pair_samples import PairSample, PairSource, Within
from tasks.training.rewriter import RewriterJob, TuningData, export_merged, tune_rewriter
from tasks.training.rewriter_pairs import benchmark_pairs, read_pairs, triplet_pairs
from tasks.training.triplet_sets import parse_triplet_set
from tasks.unrecorded import run_task


class Teacher(Settings):
    """A stronger model behind an OpenAI-compatible server, asked once for each pair.

    Its answers are a triplets table like any other: an answer in the table is not asked for again,
    and answers that break the contract are rows with a reason. A key is read from OPENAI_API_KEY.
    """

    model: Annotated[str, Of(OpenAIServerSettings, "model")]
    base_url: Annotated[str, Of(OpenAIServerSettings, "base_url")]
    identity: Annotated[str, Of(OpenAIServerSettings, "identity")] = ""
    api: Annotated[Literal["chat", "completions"], Of(OpenAIServerSettings, "api")] = "chat"
    collections: tuple[str, ...] = Field(min_length=1)
    """Ingested collections; the teacher is asked about pairs of their captions."""
    within: Within = "meta_class"
    """Pair images of one class, or any two of a collection."""
    count: int = Field(3_000, ge=1)
    """Pairs asked about."""
    seed: int = 0
    """Seed of the sample of pairs."""


class BenchmarkTexts(Settings):
    """Benchmarks with annotated training texts to learn; the adapter is then not zero-shot."""

    cirr: str = ""
    """Folder of CIRR with the images of its training split."""
    fashioniq: str = ""
    """Folder of FashionIQ with the images of its training split."""


NO_BENCHMARK = BenchmarkTexts()


@flow(
    name="finetune-rewriter",
    flow_run_name="tune rewriter",
    persist_result=False,
    result_serializer="json",
)
@redacting
def finetune_rewriter(
    pairs: str = "",
    teacher: Teacher | None = None,
    gt: BenchmarkTexts = NO_BENCHMARK,
    replay: str = "",
    base: str = "",
    revision: Annotated[str, Of(BaseLlm, "revision")] = "",
    tuning: Annotated[Values, Group(TuningConfig, "tuning")] = DEFAULTS,
    device: Annotated[str, Of(BaseLlm, "device")] = "auto",
    dtype: Annotated[AutoDtype, Of(BaseLlm, "dtype")] = "auto",
    merged: str = "",
    profile: ProfileName = "tiny",
    settings: Overrides = None,
) -> dict[str, Any]:
    """Tune the profile's rewriter with LoRA and publish the adapter.

    Name its folder as `instructcir.rewriter.adapter` to use it in process; or serve it (`vllm serve
    BASE --enable-lora --max-lora-rank 16 --lora-modules NAME=FOLDER`) and name it as
    `instructcir.rewriter.model`, with the folder as `adapter`, so that tables know the model that
    answered. Use it for modification texts only: without `replay`, the model's other tasks are
    likely lost (in a trial with a small model, edits fell from 0.93 right to 0.04; with replay they
    did not). A stopped run resumes from its last saved state; a finished one is reused.

    Args:
        pairs: JSON lines or Parquet with `caption_a`, `caption_b`, `text` or `prompt`, `answer`;
            or the `triplets.json` of a generated set.
        teacher: A model that answers first, and the collections that it is asked about.
        gt: Benchmarks with training texts to learn too ("33B-GT" in the paper). Everything
            made with the adapter is then labelled as not zero-shot.
        replay: A file like `pairs` with other tasks to rehearse, each prompt with its answer.
        base: Directory or hub id of the model to tune; empty: the profile's rewriter.
        tuning: Rank, learning rate, epochs and so on.
        merged: Folder for the whole model with the adapter merged in, for servers without LoRA.
    """
    chosen = resolve_profile(profile, settings)
    log = RunLog()
    prompt = load_prompt(chosen.instructcir.prompt, PLACEHOLDERS)
    sources = [
        *([_given_pairs(pairs, prompt)] if pairs else []),
        *([_teacher_pairs(chosen, teacher, prompt, log)] if teacher else []),
        *_benchmark_texts(chosen, gt, prompt, log),
    ]
    if not sources:
        raise ValueError("nothing to learn from; give pairs=FILE, a teacher, or gt")
    if replay:
        sources.append(read_pairs(replay, prompt, "replay"))
    data = TuningData(sources)
    job = RewriterJob(
        root=chosen.root,
        base=_base_model(chosen, base, revision, device, dtype),
        config=TuningConfig.given(tuning, "tuning"),
        prompt_sha256=str(prompt.fingerprint["prompt_sha256"]),
        data_sha256=data.sha256,
        counts=data.counts,
        benchmarks=data.benchmarks,
    )
    steps = job.config.steps_on(len(data.pairs))
    result = train_once("tune rewriter", tune_rewriter, job, steps, data)
    return {
        **result,
        "merged": run_task(export_merged, job, merged) if merged else "",
        "form": job.card.form,
        "pairs": data.counts,
        "left_out": {source.name: dict(source.left_out) for source in sources if source.left_out},
        "saw_benchmark_texts": list(data.benchmarks),
        "stages": [report.as_json() for report in log.stages],
    }


def _given_pairs(source: str, prompt: Prompt) -> ExampleSource:
    if source.endswith((".jsonl", ".ndjson", ".parquet")):
        return read_pairs(source, prompt)
    return triplet_pairs(parse_triplet_set(source), prompt)


def _teacher_pairs(
    profile: Profile, teacher: Teacher, prompt: Prompt, log: RunLog
) -> ExampleSource:
    """Ask the teacher for its missing answers, and read all of them."""
    writer = OpenAIServerSettings(
        **teacher.model_dump(include={"model", "base_url", "identity", "api"}),
        max_new_tokens=64,
    )
    choices = profile.instructcir.model_copy(update={"rewriter": writer})
    sample = PairSample(
        sources=tuple(
            PairSource(collection=name, within=teacher.within) for name in teacher.collections
        ),
        count=teacher.count,
        seed=teacher.seed,
    )
    stage = triplet_stage(profile.model_copy(update={"instructcir": choices}), sample)
    run_stage(stage.captions, log, allow_gaps=profile.allow_gaps)
    run_stage(stage, log, allow_gaps=1.0)  # pairs without a usable answer are left out
    return triplet_pairs(triplet_set(stage), prompt, f"teacher {teacher.model}")


def _benchmark_texts(
    profile: Profile, gt: BenchmarkTexts, prompt: Prompt, log: RunLog
) -> Iterator[ExampleSource]:
    """The training texts of benchmarks, between captions of their images."""
    for name, folder in gt.model_dump().items():
        if not folder:
            continue
        ref = BenchmarkRef(
            name=name, root=folder, split="train", allow_missing=profile.allow_missing_images
        )
        run_ingest(profile.root, image_folder(ref.load()), ref.collection_name)
        captions = CaptionStage(
            root=profile.root,
            shard_size=profile.shards.captions,
            images=ImageSet(collection=ref.collection_name, benchmark=ref),
            captioner=profile.instructcir.captioner,
            sampling=profile.instructcir.captioning,
        )
        run_stage(captions, log, allow_gaps=profile.allow_gaps)
        yield benchmark_pairs(ref, captions, prompt)


def _base_model(
    profile: Profile, base: str, revision: str, device: str, dtype: AutoDtype
) -> BaseLlm:
    """The model to tune, asked in the form in which the profile asks its rewriter."""
    rewriter = profile.instructcir.rewriter
    own = rewriter.revision if isinstance(rewriter, CheckpointSettings) else ""
    raw = rewriter.engine == "openai" and rewriter.api == "completions"
    return BaseLlm(
        model=base or rewriter.model,
        revision=revision if base else revision or own,
        chat="never" if raw else "auto",
        device=device,
        dtype=dtype,
    )
