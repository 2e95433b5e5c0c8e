"""Tune the model that writes modification texts: LoRA on prompts with answers (InstructCIR)."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.generate_triplets import triplet_set, triplet_stage
from flows.ingest_collection import run_ingest
from flows.requests import finetune_rewriter as requests
from flows.requests.finetune_rewriter import Teacher, TuningRequest
from flows.requests.prepared import prepared_by
from flows.running import RunLog, run_stage, train_once
from flows.summaries import summed_up
from models.generators.openai_server import OpenAIServerSettings
from models.instructcir.rewriter_examples import ExampleSource
from models.prompts.library import Prompt
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.redacted import redacting
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.image_sets import ImageSet
from tasks.stages.pair_samples import PairSample, PairSource
from tasks.training.rewriter import RewriterJob, TuningData, export_merged, tune_rewriter
from tasks.training.rewriter_pairs import benchmark_pairs, is_table, read_pairs, triplet_pairs
from tasks.training.triplet_sets import parse_triplet_set
from tasks.unrecorded import run_task


@flow(
    name="finetune-rewriter",
    flow_run_name=run_names.rewriter,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.finetune_rewriter)
def finetune_rewriter(asked: TuningRequest) -> State[Any]:
    """Collect the pairs, tune, and merge where that is asked for."""
    log, prompt = RunLog(), asked.prompt
    sources = [_given_pairs(asked.pairs, prompt)] if asked.pairs else []
    if asked.teacher:
        sources.append(_teacher_pairs(asked.profile, asked.teacher, prompt, log))
    sources += [_benchmark_texts(asked.profile, ref, prompt, log) for ref in asked.benchmarks]
    if asked.replay:
        sources.append(read_pairs(asked.replay, prompt, "replay"))
    data = TuningData(sources)
    job = RewriterJob(
        root=asked.profile.root,
        base=asked.base,
        config=asked.config,
        prompt_sha256=str(prompt.fingerprint["prompt_sha256"]),
        data_sha256=data.sha256,
        counts=data.counts,
        benchmarks=data.benchmarks,
    )
    steps = job.config.steps_on(len(data.pairs))
    result = train_once("tune rewriter", tune_rewriter, job, steps, data)
    made = {
        **result,
        "merged": run_task(export_merged, job, asked.merged) if asked.merged else "",
        "form": job.card.form,
        "pairs": data.counts,
        "left_out": {source.name: dict(source.left_out) for source in sources if source.left_out},
        "saw_benchmark_texts": list(data.benchmarks),
        "stages": [report.as_json() for report in log.stages],
    }
    return summed_up(made)


def _given_pairs(source: str, prompt: Prompt) -> ExampleSource:
    if is_table(source):
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
    profile: Profile, ref: BenchmarkRef, prompt: Prompt, log: RunLog
) -> ExampleSource:
    """The training texts of a benchmark, between captions of its images."""
    run_ingest(profile.root, image_folder(ref.load()), ref.collection_name)
    captions = CaptionStage(
        root=profile.root,
        shard_size=profile.shards.captions,
        images=ImageSet(collection=ref.collection_name, benchmark=ref),
        captioner=profile.instructcir.captioner,
        sampling=profile.instructcir.captioning,
    )
    run_stage(captions, log, allow_gaps=profile.allow_gaps)
    return benchmark_pairs(ref, captions, prompt)
